"""The files of `replug setup --ca`: an agent of the system that has CA keys, for a group of users."""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from replug.agent.control.places import SYSTEM_SOCKET
from replug.agent.setup.polkit_rule import polkit_rule
from replug.agent.setup.units import ProgramError, exists, filled_in, quoted

USER = "replug-ca"
SERVICE, SOCKET = "replug-ca.service", "replug-ca.socket"
CREDENTIAL = Path("/etc/replug/ca-pin.cred")
"""The PIN as systemd-creds(1) encrypts it, if it is there when setup runs."""
SYSUSERS, TMPFILES = Path("/etc/sysusers.d/replug-ca.conf"), Path("/etc/tmpfiles.d/replug-ca.conf")
SSH_CONFIG = Path("/etc/ssh/ssh_config.d/50-replug-ca.conf")
_UNITS = Path("/etc/systemd/system")
_STATE = "/var/lib/replug-ca"
_HEAD = "# Written by replug setup --ca; replug setup --ca --remove removes it."


def files(program: Path, group: str) -> dict[Path, str]:
    """What is to be in which file, for an agent that is `program` and for the users in `group`."""
    wanted = {
        SYSUSERS: f'{_HEAD}\nu {USER} - "CA keys of replug" {_STATE}\n',
        TMPFILES: f"{_HEAD}\nd {Path(SYSTEM_SOCKET).parent} 0755 {USER} {USER} -\n",
        _UNITS / SERVICE: _service(program),
        _UNITS / SOCKET: filled_in(
            SOCKET,
            (r"^ConditionFileIsExecutable=.*", exists(program)),
            (r"^SocketGroup=.*", f"SocketGroup={group}"),
        ),
        SSH_CONFIG: f"""{_HEAD}
# Users who may write to the socket have an agent there that logs in with certificates. ~/.ssh/config comes
# first: IdentityAgent SSH_AUTH_SOCK below a Host where another agent is wanted.
Match !localuser root exec "test -w {SYSTEM_SOCKET}"
    IdentityAgent {SYSTEM_SOCKET}
""",
    }
    rule, text = polkit_rule(USER)
    if rule.parent.is_dir():
        wanted[rule] = f"// {_HEAD.removeprefix('# ')}\n{text}\n"
    return wanted


def _service(program: Path) -> str:
    start, reload = quoted(str(program)), quoted(str(program.with_name("replug")))
    lines = [
        (r"^ExecStart=\S+ ", f"ExecStart={start} "),
        (r"^ExecReload=\S+ ", f"ExecReload={reload} "),
        (r"^ConditionFileIsExecutable=.*", exists(program)),
    ]
    if CREDENTIAL.exists():
        lines.append((r"^# LoadCredentialEncrypted=", "LoadCredentialEncrypted="))
    return filled_in(SERVICE, *lines)


def parts_of(program: Path) -> tuple[Path, ...]:
    """What the agent runs: its program, Python, and this code, which may be elsewhere (`pip install -e`)."""
    return program, Path(sys.executable), Path(__file__)


def check_only_roots(parts: Iterable[Path]) -> None:
    """ProgramError if others than root can change one of the parts of what will have the CA keys' PIN."""
    every = (path for part in parts for path in (*_with_folders(part), *_with_folders(part.resolve())))
    for path in dict.fromkeys(every):
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode) and not status.st_uid:
            continue
        if status.st_uid or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise ProgramError(
                f"others than root can change {path}, and with it an agent that has the PIN of CA keys;"
                " install replug for the whole system: docs/bastion.md has the command"
            )


def _with_folders(path: Path) -> Iterator[Path]:
    yield from (path, *path.parents)
