"""A home folder that belongs to one test, and an environment in which nothing of this machine shows."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from rigs.terminal import Done, run


class Home:
    """A person's home: HOME, TMPDIR, XDG folders and SoftHSM's tokens, all in one short-named new folder."""

    def __init__(self, folder: Path | None = None) -> None:
        """Makes it in `folder`, which must be empty; else in a new one."""
        # Not pytest's tmp_path: socket paths in it must fit 108 bytes.
        self.folder = folder or Path(tempfile.mkdtemp(prefix="rp-"))
        for name in ("tmp", "run", "tokens"):
            (self.folder / name).mkdir(mode=0o700)
        softhsm = self.folder / "softhsm2.conf"
        softhsm.write_text(f"directories.tokendir = {self.folder / 'tokens'}\nlog.level = ERROR\n")
        # Nothing is served that a test did not add: the machine's own modules would find its tokens too.
        self.configure("modules = []")
        self.env = {
            "HOME": str(self.folder),
            "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin",
            "LANG": "C.UTF-8",
            "SHELL": "/bin/sh",
            "USER": "nobody",
            "TMPDIR": str(self.folder / "tmp"),
            "XDG_RUNTIME_DIR": str(self.folder / "run"),
            "SOFTHSM2_CONF": str(softhsm),
            "GIT_CONFIG_NOSYSTEM": "1",
        }

    def configure(self, text: str) -> Path:
        """Writes the agent's configuration file."""
        for name in (".config", ".config/replug"):
            (self.folder / name).mkdir(mode=0o700, exist_ok=True)
        return self.write(".config/replug/config.toml", text + "\n")

    def run(
        self,
        *argv: str | Path,
        env: dict[str, str] | None = None,
        text: str | bytes = "",
        typing: Sequence[tuple[str, str]] = (),
        timeout: float = 60,
    ) -> Done:
        """Runs `argv` here, with `env` on top of this home's environment; see `terminal.run`."""
        return run(
            *argv, env=self.env | (env or {}), text=text, typing=typing, cwd=self.folder, timeout=timeout
        )

    def write(self, name: str, content: str | bytes, mode: int = 0o600) -> Path:
        """Writes a file of this home and returns its path."""
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(mode)
        return path

    def remove(self) -> None:
        """Deletes the folder; a program that is still ending may delete or make files."""
        end = time.monotonic() + 10
        while True:
            try:
                shutil.rmtree(self.folder, onerror=_unless_gone)
            except OSError as error:
                if error.errno != errno.ENOTEMPTY or time.monotonic() > end:
                    raise
                time.sleep(0.05)
            else:
                return


def _unless_gone(_: object, __: str, error: tuple[type[BaseException], BaseException, TracebackType]) -> None:
    if not isinstance(error[1], FileNotFoundError):
        raise error[1]
