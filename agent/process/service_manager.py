"""What a service manager is told: the datagrams of systemd's sd_notify(3)."""

from __future__ import annotations

import logging
import os
import socket

logger = logging.getLogger(__name__)


class ServiceManager:
    """The service manager that started this process, if one did.

    Its address is taken out of the environment, so that no child process can speak for the agent.
    """

    def __init__(self) -> None:
        address = os.environ.pop("NOTIFY_SOCKET", "")
        # How sd_notify writes the abstract namespace.
        self._address = "\0" + address[1:] if address.startswith("@") else address

    @property
    def listens(self) -> bool:
        """Whether there is one to tell."""
        return bool(self._address)

    def tell(self, state: str) -> None:
        """Tell it `state`, newline-separated assignments such as `READY=1\\nSTATUS=...`.

        A manager that cannot be reached is a warning in the log: the agent serves all the same.
        """
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)  # a manager that is behind misses a status, and nobody waits
                sender.sendto(state.encode(), self._address)
        except OSError as error:
            address = self._address.replace("\0", "@")
            logger.warning("cannot notify the service manager at %s: %s", address, error)
