"""Machines that were installed a moment ago."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rigs.booted import Booted

USER, PASSWORD = "ada", "not a PIN"
_BARE = (
    "apt,systemd-sysv,dbus,dbus-user-session,libpam-systemd,sudo,openssh-client,openssh-server,"
    "ca-certificates,python3,make,iproute2,procps,less"
)
"""What a user finds who has chosen "SSH server" and "standard system utilities", as far as it matters."""
_DEBIAN, _UBUNTU = "http://deb.debian.org/debian", "http://archive.ubuntu.com/ubuntu"
_UBUNTUS = ("noble",)
_BARE_UBUNTU = f"{_BARE},polkitd"
"""Its server has polkit, which pcscd asks and does not bring."""
_KEYS_OF_UBUNTU = "pool/main/u/ubuntu-keyring/ubuntu-keyring_2023.11.28.1_all.deb"
_THEIR_DIGEST = "36de43b15853ccae0028e9a767613770c704833f82586f28eb262f0311adb8a8"
"""SHA-256: Debian does not have these keys."""


@contextmanager
def new_machine(distribution: str, folder: Path, bases: Path) -> Iterator[Booted]:
    """A machine that was installed a moment ago, with a user who may use sudo."""
    base = bases / f"{distribution}.tar"
    if not base.exists():
        _make(base, distribution, folder)
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
        updated = machine.run("apt-get", "update")  # as the installer does
        assert updated.status == 0, updated
        machine.run("useradd", "--create-home", "--groups", "sudo", "--shell", "/bin/bash", USER)
        # Each command of the tests is a login of its own; people type many in one, and their password once.
        _write(root / "etc/sudoers.d/tests", "Defaults timestamp_type=global, timestamp_timeout=-1\n")
        machine.run("sh", "-c", f"echo '{USER}:{PASSWORD}' | chpasswd")
        machine.admit(USER)
        yield machine
    finally:
        machine.shut_down()


def _make(base: Path, distribution: str, folder: Path) -> None:
    """The root of a bare system, in a tar file."""
    made = folder / base.name  # a base that is there is whole
    with tempfile.TemporaryDirectory(prefix="rp-keys-") as keys:
        os.chmod(keys, 0o755)  # apt reads them as another user
        ubuntu = distribution in _UBUNTUS
        packages = f"--include={_BARE_UBUNTU if ubuntu else _BARE}"
        source = _ubuntu(Path(keys)) if ubuntu else [_DEBIAN]
        subprocess.run(
            ["mmdebstrap", "--quiet", "--variant=minbase", packages, distribution, made, *source], check=True
        )
    shutil.move(made, base)


def _ubuntu(folder: Path) -> list[str]:
    """Where mmdebstrap finds Ubuntu, and the keys that sign it."""
    with urllib.request.urlopen(f"{_UBUNTU}/{_KEYS_OF_UBUNTU}", timeout=60) as answer:
        package = answer.read()
    found = hashlib.sha256(package).hexdigest()
    assert found == _THEIR_DIGEST, f"{_KEYS_OF_UBUNTU} is not what it was: {found}"
    (folder / "keys.deb").write_bytes(package)
    subprocess.run(["dpkg-deb", "--extract", folder / "keys.deb", folder], check=True)
    keyring = folder / "usr/share/keyrings/ubuntu-archive-keyring.gpg"
    return [_UBUNTU, "--components=main,universe", f"--keyring={keyring}"]


def _write(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    path.write_text(text)
