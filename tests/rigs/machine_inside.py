"""What runs inside the new namespaces: makes them habitable, and waits for its end.

Started as `python -I machine_inside.py SOURCE:TARGET ...`: each folder or file SOURCE appears at TARGET, an
empty SOURCE stands for an empty folder. It writes a line when that is done, and ends when its standard input
does; as the first process of a process namespace it takes all others there with it.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys

_PR_SET_PDEATHSIG = 1
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1


def main() -> None:
    """Does all that."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:  # ip link set lo up
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))
    for argument in sys.argv[1:]:
        source, target = argument.split(":")
        kind = ["--bind", source] if source else ["-t", "tmpfs", "tmpfs"]
        subprocess.run(["mount", *kind, target], check=True)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # whoever loses its parent here is reaped
    print("ready", flush=True)
    os.read(0, 1)


if __name__ == "__main__":
    main()
