"""A client that does nothing but send: `flood.py SOCKET CONNECTIONS`, until its standard input ends.

Standard input has a line of JSON first: the frames that each connection sends once, and those that it then
sends again and again, each when it has the reply to the one before. It prints a line when each connection
has had one reply to the latter.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from itertools import cycle
from pathlib import Path


def ask(connection: socket.socket, frame: bytes) -> bool:
    """Sends a frame and drops the reply; False if there is none."""
    connection.sendall(frame)
    head = connection.recv(4, socket.MSG_WAITALL)
    length = int.from_bytes(head, "big")
    return len(head) == 4 and len(connection.recv(length, socket.MSG_WAITALL)) == length


def flood(path: Path, first: list[bytes], frames: list[bytes], answered: threading.Semaphore) -> None:
    """Sends on connections to `path`, a new one whenever the agent closes it."""
    released = False
    while True:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(str(path))
            try:
                alive = all(ask(connection, frame) for frame in first)
                for frame in cycle(frames):
                    if not alive:
                        break
                    alive = ask(connection, frame)
                    if not released:
                        released = True
                        answered.release()
            except (ConnectionError, BrokenPipeError):
                continue


def main() -> None:
    """Flood until nobody wants it any more."""
    path, connections = Path(sys.argv[1]), int(sys.argv[2])
    first, frames = ([bytes.fromhex(one) for one in some] for some in json.loads(sys.stdin.readline()))
    answered = threading.Semaphore(0)
    for _ in range(connections):
        threading.Thread(target=flood, args=(path, first, frames, answered), daemon=True).start()
    for _ in range(connections):
        answered.acquire()
    print("flooding", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
