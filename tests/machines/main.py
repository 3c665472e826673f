"""`make machines`: from a bare machine to the first signature, and back, as an ordinary user of a new Debian.

For each distribution a root is made by mmdebstrap and booted. The user logs in by ssh, with the umask of that
distribution, and types the lines under "Start here" of the README. It prints what was measured, and ends with
0 only if everything held.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from machines.journey import Journey
from rigs.booted import Booted

REPOSITORY = Path(__file__).parents[2]
DISTRIBUTIONS = ("bookworm", "trixie")
_BARE = (
    "systemd-sysv,dbus,dbus-user-session,libpam-systemd,sudo,openssh-client,openssh-server,"
    "ca-certificates,python3,make,iproute2,procps,less"
)
"""What a user finds who has chosen "SSH server" and "standard system utilities", as far as it matters."""
_MIRROR = "http://deb.debian.org/debian"


@contextmanager
def bare_machine(distribution: str, folder: Path, bases: Path) -> Iterator[Booted]:
    """A machine that was installed a moment ago, with a user `ada` who may use sudo."""
    base = bases / f"{distribution}.tar"
    if not base.exists():
        packages = f"--include={_BARE}"
        subprocess.run(
            ["mmdebstrap", "--quiet", "--variant=minbase", packages, distribution, base, _MIRROR], check=True
        )
    root = folder / distribution
    root.mkdir()
    subprocess.run(["tar", "--extract", "--file", base, "--directory", root, "--exclude=./dev/*"], check=True)
    _write(root / "etc/hostname", "machine\n")
    _write(root / "etc/hosts", "127.0.0.1 localhost machine\n::1 localhost\n")
    # The network, and the authorities it is trusted with, are this machine's.
    for name in ("etc/resolv.conf", "etc/ssl/certs/ca-certificates.crt"):
        shutil.copyfile(Path("/", name), root / name)
    machine = Booted(root)
    try:
        machine.run("apt-get", "update")  # as the installer does
        machine.run("useradd", "--create-home", "--groups", "sudo", "--shell", "/bin/bash", "ada")
        _write(root / "etc/sudoers.d/ada", "ada ALL=(ALL) NOPASSWD: ALL\n")
        machine.admit("ada")
        yield machine
    finally:
        machine.shut_down()


def _write(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    path.write_text(text)


def main() -> int:
    """Take the journey on each distribution."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("distributions", nargs="*", default=DISTRIBUTIONS)
    parser.add_argument("--bases", type=Path, help="a folder that keeps the roots, for the next time")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rp-machines-") as folder:
        bases = given.bases or Path(folder)
        for distribution in given.distributions:
            print(f"\n== {distribution}", flush=True)
            started = time.monotonic()
            with bare_machine(distribution, Path(folder), bases) as machine:
                print(f"   booted after {time.monotonic() - started:.0f} s", flush=True)
                Journey(machine, REPOSITORY).take()
    return 0


if __name__ == "__main__":
    sys.exit(main())
