"""Runs ssh-keygen: it owns the formats of certificates and revocation lists, and asks the agent to sign."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from replug.agent.ca.authority import Authority
from replug.agent.keys.regular_file import contents_of
from replug.token.trusted_file import write_whole

_PROGRAM = "ssh-keygen"
_LARGEST_LIST = 64 * 1024 * 1024  # bytes


class KeygenError(Exception):
    """ssh-keygen cannot be run, or has failed; the text is for the user."""

    def __init__(self, text: str, pid: int = 0) -> None:
        super().__init__(text)
        self.pid = pid
        """Of the process that failed."""


@dataclass(frozen=True)
class Wish:
    """The certificate that is wanted, in ssh-keygen's words (ssh-keygen(1), CERTIFICATES)."""

    key: Path
    key_id: str
    principals: str
    """Separated by commas."""
    validity: str
    serial: int
    host: bool
    options: tuple[str, ...]


def sign(authority: Authority, wish: Wish, agent_socket: str) -> Path:
    """Have the agent at `agent_socket` certify a key; the path of the certificate. KeygenError."""
    with _key_file(authority) as ca:
        options = [part for option in wish.options for part in ("-O", option)]
        _run(
            [
                *("-q", "-U", "-s", ca, "-I", wish.key_id, "-n", wish.principals),
                *("-V", wish.validity, "-z", str(wish.serial), *(["-h"] if wish.host else [])),
                *(*options, "--", str(wish.key)),
            ],
            environment=os.environ | {"SSH_AUTH_SOCK": agent_socket},
        )
    return wish.key.with_name(f"{wish.key.name.removesuffix('.pub')}-cert.pub")


def revoke(authorities: Sequence[Authority], specification: str, krl: Path) -> None:
    """Add what `specification` says of certificates by each of `authorities` to the list `krl`. KeygenError.

    The list is replaced at once: sshd refuses every key while it cannot read it.
    """
    mode = 0o644
    try:
        krl.parent.stat()
        with tempfile.TemporaryDirectory(prefix="replug-") as folder:
            copy = Path(folder) / "krl"
            with suppress(FileNotFoundError):
                copy.write_bytes(contents_of(krl, _LARGEST_LIST))
                mode = krl.stat().st_mode & 0o777
            for authority in authorities:
                update = ["-u"] if copy.exists() else []
                with _key_file(authority) as ca:
                    _run(["-q", "-k", *update, "-f", str(copy), "-s", ca, "-"], stdin=specification)
            write_whole(krl, copy.read_bytes(), mode)
    except OSError as error:
        raise KeygenError(f"{error.filename or krl}: {error.strerror or error}") from error


@contextmanager
def _key_file(authority: Authority) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="replug-") as folder:
        path = Path(folder) / "ca.pub"
        path.write_text(f"{authority.line}\n")
        yield str(path)


def _run(arguments: list[str], *, environment: dict[str, str] | None = None, stdin: str = "") -> None:
    program = shutil.which(_PROGRAM)
    if program is None:
        raise KeygenError(f"{_PROGRAM} is not installed: it comes with OpenSSH's client")
    # The agent asks for the PIN on the terminal that it finds by this process, so it stays in our session.
    with subprocess.Popen(
        [program, *arguments],
        stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        text=True,
        errors="replace",
    ) as process:
        said, _ = process.communicate(stdin or None)
    if process.returncode:
        raise KeygenError(said.strip() or f"{_PROGRAM} failed", process.pid)
