"""Another agent, as the tests want it: what it does with each connection is a function."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

Behaviour = Callable[["Asked"], None]


class Asked:
    """One connection to it."""

    def __init__(self, connected: socket.socket, is_over: threading.Event) -> None:
        self.socket = connected
        self.is_over = is_over
        """Whether the test is."""
        self.requests: list[bytes] = []
        """What has come, without lengths."""
        self.has_ended = threading.Event()
        """Whether the other end has closed it."""

    def request(self) -> bytes:
        """The next request; EOFError at the end."""
        message = self._read(int.from_bytes(self._read(4), "big"))
        self.requests.append(message)
        return message

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            if not piece:
                self.has_ended.set()
                raise EOFError
            data += piece
        return data


class OtherAgent:
    """Listens at `path` until `stop`."""

    def __init__(self, path: Path, behaviour: Behaviour) -> None:
        self.path = path
        self.behaviour = behaviour
        self.asked: list[Asked] = []
        """All connections so far."""
        self._over = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                connected, _ = self._listener.accept()
            except OSError:
                return
            asked = Asked(connected, self._over)
            self.asked.append(asked)
            self._threads.append(threading.Thread(target=self._serve, args=(asked,)))
            self._threads[-1].start()

    def _serve(self, asked: Asked) -> None:
        with asked.socket, suppress(OSError, EOFError):
            self.behaviour(asked)

    def stop(self) -> None:
        """End it, and wait until it has ended."""
        self._over.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        for asked in self.asked:
            with suppress(OSError):
                asked.socket.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join()
