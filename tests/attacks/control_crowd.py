"""Connects to the control socket again and again: `control_crowd.py SOCKET [COMMAND]`.

Without a command it says nothing; with one it asks, and waits for the answer.
"""

from __future__ import annotations

import socket
import sys
import time
from contextlib import suppress

_HELD = 3
"""Connections that it keeps, of the four that a process may have."""


def say_nothing(path: str) -> None:
    """Connect until killed, without waiting for a place in the queue."""
    held: list[socket.socket] = []
    while True:
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        try:
            client.connect(path)
        except OSError:
            client.close()
            time.sleep(0.0005)  # other tests want the processor
            continue
        held.append(client)
        if len(held) > _HELD:
            held.pop(0).close()


def ask(path: str, command: str) -> None:
    """Ask until killed; the first time that it is connected it prints a line."""
    said = False
    while True:
        with socket.socket(socket.AF_UNIX) as client, suppress(OSError):
            client.connect(path)
            if not said:
                print(flush=True)
                said = True
            client.sendall(command.encode() + b"\n")
            while client.recv(65536):
                pass
        time.sleep(0.0005)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        ask(*sys.argv[1:])
    else:
        say_nothing(sys.argv[1])
