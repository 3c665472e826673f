"""The agent from login on where there is no systemd."""

from __future__ import annotations

import shlex
from pathlib import Path


def profile_lines(program: Path) -> str:
    """Lines of POSIX shell for ~/.profile that give each login the same agent, `program`.

    A socket that is there already, such as a forwarded agent's, is left alone. `ssh-add -l` says by status 2
    that nobody answers.
    """
    return f"""\
if [ ! -S "${{SSH_AUTH_SOCK-}}" ]; then
    export SSH_AUTH_SOCK="${{XDG_RUNTIME_DIR:-$HOME/.ssh}}/replug.sock"
    ssh-add -l >/dev/null 2>&1
    if [ $? -eq 2 ]; then
        rm -f "$SSH_AUTH_SOCK"
        {shlex.quote(str(program))} -a "$SSH_AUTH_SOCK" >/dev/null
    fi
fi"""
