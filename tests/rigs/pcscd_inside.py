"""What runs inside the new namespaces: makes them habitable, and becomes pcscd.

Started as `python -I pcscd_inside.py FD FOLDER READER`. FOLDER is where pcscd puts its own socket, READER the
reader's name. At FD, a child of ours takes the numbers of slots and gives connections to the reader for
them, which is the only way into this network; it ends when FD does.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

PCSCD = Path("/usr/sbin/pcscd")
DRIVERS = Path("/usr/lib/pcsc/drivers")
DRIVER = DRIVERS / "serial" / "libifdvpcd.so"
PORT = 0x8C7B  # vpcd's first slot
_PR_SET_PDEATHSIG = 1
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1


def main() -> None:
    """Does all that, or ends with a message about what is missing."""
    fd, folder, reader = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    for needed, package in ((PCSCD, "pcscd"), (DRIVER, "vsmartcard-vpcd")):
        if not needed.exists():
            sys.exit(f"{needed} is missing: apt-get install {package}")
    raise_loopback()
    driver = shutil.copy(DRIVER, folder)
    configuration = folder / "reader.conf"
    configuration.write_text(
        f'FRIENDLYNAME "{reader}"\nDEVICENAME /dev/null:{PORT:#x}\nLIBPATH {driver}\nCHANNELID {PORT:#x}\n'
    )
    # pcscd's socket is at a fixed place: put `folder` there. And without drivers it opens no real reader.
    mount("-t", "tmpfs", "tmpfs", "/run")
    Path("/run/pcscd").mkdir()
    mount("--bind", str(folder), "/run/pcscd")
    mount("-t", "tmpfs", "tmpfs", str(DRIVERS))
    if os.fork() == 0:
        connect_slots(socket.socket(fileno=fd))
        os._exit(0)
    os.close(fd)
    # Newer ones would ask polkit about each client, and there is none here.
    usage = subprocess.run([PCSCD, "--help"], capture_output=True, text=True).stdout
    polkit = ["--disable-polkit"] if "--disable-polkit" in usage else []
    os.execv(PCSCD, ["pcscd", "--foreground", "--config", str(configuration), *polkit])


def connect_slots(rig: socket.socket) -> None:
    """For each byte, the number of a slot, a connection to it; or a byte without one when nobody listens."""
    while number := rig.recv(1):
        try:
            with socket.create_connection(("127.0.0.1", PORT + number[0])) as connection:
                socket.send_fds(rig, [number], [connection.fileno()])
        except ConnectionRefusedError:
            rig.send(number)


def raise_loopback() -> None:
    """`ip link set lo up`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))


def mount(*arguments: str) -> None:
    """mount(8)."""
    subprocess.run(["mount", *arguments], check=True)


if __name__ == "__main__":
    main()
