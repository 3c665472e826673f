"""Lines that start the agent at login without systemd."""

from __future__ import annotations

import shlex
from pathlib import Path


def profile_line(socket: str) -> str:
    """The line that gives logins without a session of systemd the agent at `socket`, if they have none.

    Where nothing listens there, as after an uninstallation, it does nothing.
    """
    ours = shlex.quote(socket)
    return f'[ -S "${{SSH_AUTH_SOCK-}}" ] || [ ! -S {ours} ] || export SSH_AUTH_SOCK={ours}'


def login_file(home: Path, shell: str) -> Path:
    """The file that the user's shell reads at login (bash(1), zsh(1)); ~/.profile if it is another."""
    names = {
        "bash": (".bash_profile", ".bash_login", ".profile"),
        "zsh": (".zprofile", ".zlogin"),
    }.get(Path(shell).name, (".profile",))
    fallback = ".zprofile" if names[0] == ".zprofile" else ".profile"
    return home / next((name for name in names if (home / name).exists()), fallback)


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
