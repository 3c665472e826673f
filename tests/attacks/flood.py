"""A client that does nothing but send: `flood.py SOCKET CONNECTIONS`, until its standard input ends.

Standard input has a line of JSON first: the floods, which the connections share out among them. Each is the
frames that a connection sends once, those that it then sends again and again, each when it has the reply to
the one before, and those that it then only sends, as fast as it can, whatever is replied. A line is printed
whenever each connection has had one more reply to the latter.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import threading
from itertools import cycle
from pathlib import Path

Frames = list[bytes]


def ask(connection: socket.socket, frame: bytes) -> bool:
    """Sends a frame and drops the reply; False if there is none."""
    connection.sendall(frame)
    head = connection.recv(4, socket.MSG_WAITALL)
    length = int.from_bytes(head, "big")
    return len(head) == 4 and len(connection.recv(length, socket.MSG_WAITALL)) == length


def pour(connection: socket.socket, frames: bytes) -> bytes:
    """Sends the frames once and drops what has been replied; the first byte of it."""
    begin, replied = 0, b""
    ready = select.poll()
    ready.register(connection, select.POLLIN | select.POLLOUT)
    while begin < len(frames):
        for _, events in ready.poll():
            if events & select.POLLIN:
                replied = connection.recv(1 << 20)[:1] or replied
            if events & select.POLLOUT:
                begin += connection.send(frames[begin:], socket.MSG_DONTWAIT)
    return replied


def flood(path: Path, first: Frames, frames: Frames, poured: Frames, answered: threading.Semaphore) -> None:
    """Sends on connections to `path`, a new one whenever the agent closes it."""
    while True:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(str(path))
            try:
                alive = all(ask(connection, frame) for frame in first)
                for frame in cycle(frames):
                    if not alive:
                        break
                    alive = ask(connection, frame)
                    answered.release()
                while poured:
                    if pour(connection, poured[0]):
                        answered.release()
            except (ConnectionError, BrokenPipeError):
                continue


def main() -> None:
    """Flood until nobody wants it any more."""
    path, connections = Path(sys.argv[1]), int(sys.argv[2])
    floods = [
        [[bytes.fromhex(one) for one in some] for some in kinds] for kinds in json.loads(sys.stdin.readline())
    ]
    answered = [threading.Semaphore(0) for _ in range(connections)]
    for number in range(connections):
        first, frames, poured = floods[number % len(floods)]
        sends = (path, first, frames, poured, answered[number])
        threading.Thread(target=flood, args=sends, daemon=True).start()
    threading.Thread(target=report, args=(answered,), daemon=True).start()
    sys.stdin.read()


def report(answered: list[threading.Semaphore]) -> None:
    """Print the lines."""
    while True:
        for one in answered:
            one.acquire()
        print("answered", flush=True)


if __name__ == "__main__":
    main()
