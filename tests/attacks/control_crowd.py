"""Connects to the control socket again and again, and says nothing: `control_crowd.py SOCKET`."""

from __future__ import annotations

import socket
import sys
import time

_HELD = 3
"""Connections that it keeps, of the four that a process may have."""


def main() -> None:
    """Connect until killed, without waiting for a place in the queue."""
    held: list[socket.socket] = []
    while True:
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        try:
            client.connect(sys.argv[1])
        except OSError:
            client.close()
            time.sleep(0.0005)  # other tests want the processor
            continue
        held.append(client)
        if len(held) > _HELD:
            held.pop(0).close()


if __name__ == "__main__":
    main()
