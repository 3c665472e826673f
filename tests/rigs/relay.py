"""A socket in front of an agent's, which passes on the bytes as they come and remembers the messages."""

from __future__ import annotations

import selectors
import socket
import threading
from pathlib import Path

Exchange = tuple[bytes, bytes]
"""The contents of a request and of its reply, each with its type first."""


class Relay:
    """Listens at `path` for clients of the agent at `agent`, until `close()`."""

    def __init__(self, path: Path, agent: Path) -> None:
        self.path = path
        self._agent = agent
        self._conversations: list[_Conversation] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(16)
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def forget(self) -> None:
        """Drops what has been said so far."""
        self._conversations.clear()

    @property
    def exchanges(self) -> list[Exchange]:
        """What was asked and answered since then."""
        return [exchange for conversation in self._conversations for exchange in conversation.exchanges]

    @property
    def in_flight(self) -> int:
        """The most requests of one connection that waited for their replies at the same time."""
        return max((conversation.in_flight for conversation in self._conversations), default=0)

    def close(self) -> None:
        """Listens no longer, and waits for the clients to end."""
        self._listener.shutdown(socket.SHUT_RDWR)  # which ends accept()
        for thread in self._threads:
            thread.join()
        self._listener.close()
        self.path.unlink()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            conversation = _Conversation()
            self._conversations.append(conversation)
            self._threads.append(threading.Thread(target=self._pass_on, args=(client, conversation)))
            self._threads[-1].start()

    def _pass_on(self, client: socket.socket, conversation: _Conversation) -> None:
        with client, socket.socket(socket.AF_UNIX) as agent, selectors.DefaultSelector() as selector:
            agent.connect(str(self._agent))
            selector.register(client, selectors.EVENT_READ, (agent, conversation.requests))
            selector.register(agent, selectors.EVENT_READ, (client, conversation.replies))
            try:
                while selector.get_map():
                    for ready, _ in selector.select():
                        other, heard = ready.data
                        assert isinstance(ready.fileobj, socket.socket)
                        data = ready.fileobj.recv(65536)
                        if data:
                            conversation.hear(heard, data)
                            other.sendall(data)
                        else:
                            selector.unregister(ready.fileobj)
                            other.shutdown(socket.SHUT_WR)
            except OSError:  # one of the two hung up
                return


class _Conversation:
    """What was said on one connection."""

    def __init__(self) -> None:
        self.requests = _Messages()
        self.replies = _Messages()
        self.in_flight = 0

    @property
    def exchanges(self) -> list[Exchange]:
        return list(zip(self.requests.complete, self.replies.complete, strict=False))

    def hear(self, messages: _Messages, data: bytes) -> None:
        messages.feed(data)
        waiting = len(self.requests.complete) - len(self.replies.complete)
        self.in_flight = max(self.in_flight, waiting)


class _Messages:
    """The messages of one direction (RFC 9987 section 3)."""

    def __init__(self) -> None:
        self.complete: list[bytes] = []
        self._rest = b""

    def feed(self, data: bytes) -> None:
        self._rest += data
        while len(self._rest) >= 4 and len(self._rest) >= (end := 4 + int.from_bytes(self._rest[:4], "big")):
            self.complete.append(self._rest[4:end])
            self._rest = self._rest[end:]
