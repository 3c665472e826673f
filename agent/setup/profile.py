"""Lines that start the agent at login without systemd."""

from __future__ import annotations

import shlex
from pathlib import Path


def profile_lines(program: Path) -> str:
    """Lines of POSIX shell for ~/.profile that give every login the same agent, `program`.

    SSH_AUTH_SOCK is kept if it is a socket, such as a forwarded agent's. Status 2 of `ssh-add -l` means that
    no agent answers.
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
