"""Readiness for a service manager: the datagram of systemd's sd_notify(3)."""

from __future__ import annotations

import logging
import os
import socket

logger = logging.getLogger(__name__)


def notify(state: str) -> None:
    """Tell the service manager `state`, newline-separated assignments such as `READY=1\\nSTATUS=...`.

    The manager's address is taken out of the environment, so that no child process can speak for
    the agent; a second call therefore does nothing, as does the first without NOTIFY_SOCKET. A
    manager that cannot be reached is a warning in the log: the agent serves all the same.
    """
    address = os.environ.pop("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]  # how sd_notify writes the abstract namespace
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(state.encode(), address)
    except OSError as error:
        logger.warning("cannot notify the service manager at %s: %s", address.replace("\0", "@"), error)
