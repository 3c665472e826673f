"""Keeps descriptors in flight until its standard input ends: `in_flight.py COUNT`. Prints how many there are.

The kernel counts them by user, and lets nobody send more than the sender's own limit of open files.
"""

from __future__ import annotations

import resource
import socket
import sys

_OF_A_MESSAGE = 253
"""SCM_MAX_FD."""


def main() -> None:
    """Send them on socket pairs from which nobody receives."""
    wanted, sent = int(sys.argv[1]), 0
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    pairs = []
    while sent < wanted:
        pairs.append(socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM))
        ours = pairs[-1][0]
        ours.setblocking(False)
        try:
            while sent < wanted:
                socket.send_fds(ours, [b"x"], [ours.fileno()] * _OF_A_MESSAGE)
                sent += _OF_A_MESSAGE
        except BlockingIOError:
            continue
    print(sent, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
