"""Notifies the service manager, with the datagrams of systemd's sd_notify(3)."""

from __future__ import annotations

import logging
import os
import socket

logger = logging.getLogger(__name__)


class ServiceManager:
    """The service manager that started this process, if one did.

    Its address is taken out of the environment, so that no child process can send notifications in its name.
    """

    def __init__(self) -> None:
        address = os.environ.pop("NOTIFY_SOCKET", "")
        # How sd_notify writes the abstract namespace.
        self._address = "\0" + address[1:] if address.startswith("@") else address

    @property
    def listens(self) -> bool:
        """Whether there is one to notify."""
        return bool(self._address)

    def tell(self, state: str) -> None:
        """Send it `state`, newline-separated assignments such as `READY=1\\nSTATUS=...`.

        If that fails, a warning is logged and the agent goes on.
        """
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)  # a slow manager misses a status rather than delay the agent
                sender.sendto(state.encode(), self._address)
        except OSError as error:
            address = self._address.replace("\0", "@")
            logger.warning("cannot notify the service manager at %s: %s", address, error)
