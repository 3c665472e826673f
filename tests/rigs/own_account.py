"""The agent where our account has the home of the test: known_hosts is looked for there."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from rigs.home import Home


def with_own_known_hosts(home: Home, program: Path) -> Path:
    """A program that runs `program` in a mount namespace in which `home` is the home of our account."""
    entry = pwd.getpwuid(os.getuid())
    line = f"{entry.pw_name}:x:{entry.pw_uid}:{entry.pw_gid}::{home.folder}:{entry.pw_shell}\n"
    others = [
        one
        for one in Path("/etc/passwd").read_text().splitlines(True)
        if one.split(":")[2] != str(entry.pw_uid)
    ]
    accounts = home.write("passwd", line + "".join(others), 0o644)
    as_ourselves = "" if os.geteuid() == 0 else "--user --map-current-user --keep-caps"
    mounts = f"mount --bind {accounts} /etc/passwd"
    script = (
        f'#!/bin/sh\nexec unshare --mount {as_ourselves} sh -ec \'{mounts}; exec "$@"\' - {program} "$@"\n'
    )
    return home.write(f"{program.name}-of-account", script, 0o755)
