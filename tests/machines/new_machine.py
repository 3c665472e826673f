"""Machines that were installed a moment ago."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rigs.booted import Booted

USER, PASSWORD = "ada", "not a PIN"
_BARE = (
    "systemd-sysv,dbus,dbus-user-session,libpam-systemd,sudo,openssh-client,openssh-server,"
    "ca-certificates,python3,make,iproute2,procps,less"
)
"""What a user finds who has chosen "SSH server" and "standard system utilities", as far as it matters."""
_MIRROR = "http://deb.debian.org/debian"


@contextmanager
def new_machine(distribution: str, folder: Path, bases: Path) -> Iterator[Booted]:
    """A machine that was installed a moment ago, with a user who may use sudo."""
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
        machine.run("useradd", "--create-home", "--groups", "sudo", "--shell", "/bin/bash", USER)
        # Each command of the tests is a login of its own; people type many in one, and their password once.
        _write(root / "etc/sudoers.d/tests", "Defaults timestamp_type=global, timestamp_timeout=-1\n")
        machine.run("sh", "-c", f"echo '{USER}:{PASSWORD}' | chpasswd")
        machine.admit(USER)
        yield machine
    finally:
        machine.shut_down()


def _write(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    path.write_text(text)
