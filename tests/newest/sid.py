"""The newest OpenSSH there is in Debian: a root of its unstable release, with replug as users install it."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import time
from pathlib import Path

from rigs.installation import ROOT as REPOSITORY
from rigs.installation import build_wheel

PYTEST = "/opt/replug/bin/pytest"
_ENVIRONMENT = "/opt/replug"
_PACKAGES = (
    "openssh-client,openssh-server,openssh-tests,softhsm2,opensc,"
    # What replug needs, and its tests.
    "python3-venv,ca-certificates,gcc,gdb,git,libc6-dev,openssl,procps,sudo"
)
_KEEPS = 7 * 24 * 3600
"""Seconds for which a root is new enough."""
_HOSTS = "127.0.0.1 localhost machine\n::1 localhost\n"
_HELPERS = ("sshd-session", "sshd-auth", "ssh-sk-helper", "ssh-pkcs11-helper")
"""Programs that OpenSSH's scripts look for where they are without Debian."""


class CannotBeMadeError(Exception):
    """There is no such root; the text says why."""


class Sid:
    """The system in the folder `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def run(self, *command: str | Path) -> int:
        """Runs a command there as root, in the repository; its exit status."""
        return subprocess.run(self._inside(*command), stdin=subprocess.DEVNULL).returncode

    def said(self, command: str) -> str:
        """What a shell command prints there."""
        return subprocess.run(
            self._inside("sh", "-c", command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout.strip()

    def install(self, folder: Path) -> None:
        """Installs the wheel of this source, which is built in `folder`, as pip does it for users."""
        wheel = Path(shutil.copy(build_wheel(folder), self._root / "root"))
        path = Path("/", wheel.relative_to(self._root))
        pip = f"{_ENVIRONMENT}/bin/pip"
        if self.run(pip, "install", "--quiet", "--no-index", "--no-deps", "--force-reinstall", path):
            raise CannotBeMadeError("pip could not install the wheel")

    def _inside(self, *command: str | Path) -> list[str | Path]:
        return [Path(__file__).with_name("inside.sh"), self._root, REPOSITORY, *command]


def made(folder: Path) -> Sid:
    """The root in `folder`: the one that is there, if it is new and made the same way, or a new one."""
    root, note = folder / "root", folder / "made"
    recipe = _recipe()
    if note.exists() and note.read_text() == recipe and time.time() - note.stat().st_mtime < _KEEPS:
        return Sid(root)
    note.unlink(missing_ok=True)
    if root.exists():
        shutil.rmtree(root)
    folder.mkdir(parents=True, exist_ok=True)
    _make(root)
    note.write_text(recipe)
    return Sid(root)


def _recipe() -> str:
    lock = (REPOSITORY / "requirements.lock").read_bytes()
    return hashlib.sha256(Path(__file__).read_bytes() + lock).hexdigest()


def _make(root: Path) -> None:
    try:
        subprocess.run(
            ["mmdebstrap", "--quiet", "--variant=minbase", '--aptopt=Acquire::Check-Valid-Until "false"',
             f"--include={_PACKAGES}", "sid", root],
            check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError) as error:
        raise CannotBeMadeError(f"mmdebstrap could not make a root of Debian sid: {error}") from error
    # The network, and the authorities it is trusted with, are this machine's.
    for name in ("etc/resolv.conf", "etc/ssl/certs/ca-certificates.crt"):
        (root / name).unlink(missing_ok=True)
        shutil.copyfile(Path("/", name), root / name)
    (root / "etc/hosts").write_text(_HOSTS)
    (root / "usr/libexec").mkdir(exist_ok=True)
    for helper in _HELPERS:
        (root / "usr/libexec" / helper).symlink_to(f"../lib/openssh/{helper}")
    install = f"{_ENVIRONMENT}/bin/pip install --quiet --require-hashes --requirement requirements.lock"
    if Sid(root).run("sh", "-euc", f"python3 -m venv {_ENVIRONMENT}; {install}"):
        raise CannotBeMadeError("pip could not install what replug needs there")
