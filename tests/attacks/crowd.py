"""A crowd of processes that each guess the lock's passphrase, twice, and end: `crowd.py SOCKET`."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from contextlib import suppress

UNLOCK = b"\x17"
LONG = 100_000
"""Bytes of a guess."""


def guess(path: str) -> None:
    """Two guesses, and no wait for an answer."""
    for _ in range(2):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(path)
            contents = UNLOCK + LONG.to_bytes(4, "big") + b"g" * LONG
            connection.sendall(len(contents).to_bytes(4, "big") + contents)
            time.sleep(0.02)


def main() -> None:
    """Guess until killed."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        if os.fork() == 0:
            with suppress(OSError):
                guess(sys.argv[1])
            os._exit(0)
        time.sleep(0.005)


if __name__ == "__main__":
    main()
