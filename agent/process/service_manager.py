"""What a service manager is told: the datagrams of systemd's sd_notify(3)."""

from __future__ import annotations

import os
import socket
import sys


class Notifications:
    """The way to the service manager that started this process, if one did.

    Its address is taken out of the environment, so that no child process can speak for the agent.
    """

    def __init__(self) -> None:
        address = os.environ.pop("NOTIFY_SOCKET", "")
        # How sd_notify writes the abstract namespace.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        """Connected once: later any program of the user may have mounted something over the folder.

        Non-blocking, as a slow manager is to miss a status rather than delay the agent.
        """
        if self._address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            try:
                self._socket.connect(self._address)
            except OSError as error:
                self._complain(error)

    @property
    def wanted(self) -> bool:
        """Whether there is a service manager."""
        return bool(self._address)

    def send(self, state: bytes) -> None:
        """Send it `state`, newline-separated assignments such as `READY=1\\nSTATUS=...`.

        If that fails, stderr says so and the agent goes on.
        """
        if self._socket is None:
            return
        try:
            self._socket.send(state)
        except OSError as error:
            self._complain(error)

    def close(self) -> None:
        """Leave it to another process that has this."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _complain(self, error: OSError) -> None:
        address = self._address.replace("\0", "@")
        sys.stderr.write(f"replug-agent: cannot notify the service manager at {address}: {error.strerror}\n")


class ServiceManager:
    """The service manager as the agent reaches it: it accepts notifications only from the supervisor."""

    def __init__(self, supervisor: socket.socket | None) -> None:
        """`supervisor` forwards notifications; None if there is no service manager."""
        self._supervisor = supervisor

    @property
    def listens(self) -> bool:
        """Whether there is one to tell."""
        return self._supervisor is not None

    def tell(self, state: str) -> None:
        """Send it `state` (see `Notifications.send`), or drop it if the supervisor is behind."""
        if self._supervisor is not None:
            try:
                self._supervisor.send(state.encode())
            except OSError:
                return
