"""Modules that p11-kit knows of, for the agents of one home: in a mount namespace, not on this machine."""

from __future__ import annotations

import os
from pathlib import Path

from rigs.home import Home

PACKAGES = Path("/usr/share/p11-kit/modules")
_SYSTEM = Path("/etc/pkcs11")
_AS_ROOT = [] if os.geteuid() == 0 else ["--map-root-user"]


class Registered:
    """The folder of module files that programs started by `program` see in place of the machine's."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._folder = home.folder / "p11-kit"
        self._folder.mkdir(mode=0o755)

    def register(self, name: str, *lines: str) -> Path:
        """Writes a module file."""
        path = self._folder / f"{name}.module"
        path.write_text("".join(f"{line}\n" for line in lines))
        return path

    def program(self, path: Path) -> Path:
        """A program that runs the one at `path` where p11-kit knows only these modules."""
        mounts = [f"mount --bind {self._folder} {PACKAGES}"]
        if _SYSTEM.exists():
            mounts.append(f"mount -t tmpfs tmpfs {_SYSTEM}")
        inside = " && ".join([*mounts, f'exec {path} "$@"'])
        words = " ".join(["unshare", "--mount", *_AS_ROOT, "--", "sh", "-c", f"'{inside}'", "sh"])
        return self._home.write(f"with-modules-{path.name}", f'#!/bin/sh\nexec {words} "$@"\n', 0o700)
