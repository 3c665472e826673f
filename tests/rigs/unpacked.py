"""Debian packages that are unpacked into a folder, and programs for which they are installed."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

_MOUNT = 'mount -t overlay overlay -o lowerdir="$1" "$2"; shift 2; '


class NotAllowedError(Exception):
    """There can be no namespaces here; the text has the reason."""


def among_them(folder: Path) -> list[str]:
    """The beginning of a command that runs another with the packages in `folder` in place; NotAllowedError.

    They are seen in a mount namespace of its own, below what is installed. It needs root, or user namespaces
    that everybody may make; the command runs as the same user in either case. Empty if the folder is.
    """
    command = ["unshare", *([] if os.geteuid() == 0 else ["--map-root-user"]), "--mount", "--"]
    added = [path for name in ("lib", "sbin") if (path := folder / "usr" / name).is_dir()]
    if not added:
        return []
    for path in added:
        own = Path("/usr", path.name)
        layers = ":".join(re.sub(r"[\\:,]", r"\\\g<0>", str(layer)) for layer in (own, path))
        command += ["sh", "-ec", f'{_MOUNT}exec "$@"', "-", layers, str(own)]
    if os.geteuid() != 0:
        command += ["unshare", "--user", f"--map-user={os.geteuid()}", f"--map-group={os.getegid()}", "--"]
    tried = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        raise NotAllowedError(
            "Without namespaces of its own there can be no reader, and they are not allowed here:"
            f" {tried.stderr.strip()}"
        )
    return command
