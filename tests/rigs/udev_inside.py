"""What runs inside the new namespaces: makes udev seem to run there, and holds them until the rig is gone.

Started as `python -I udev_inside.py FD [without-udev]`. At FD it gives the rig a netlink socket of this
network, by which the rig sends what udev would send.
"""

from __future__ import annotations

import ctypes
import signal
import socket
import subprocess
import sys
from pathlib import Path

NETLINK_KOBJECT_UEVENT = 15
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Does all that."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    rig = socket.socket(fileno=int(sys.argv[1]))
    # Nothing of this machine's udev, if it has one.
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
    if "without-udev" not in sys.argv:
        control = Path("/run/udev/control")
        control.parent.mkdir()
        control.touch()
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_KOBJECT_UEVENT)
    socket.send_fds(rig, [b"!"], [netlink.fileno()])
    rig.recv(1)


if __name__ == "__main__":
    main()
