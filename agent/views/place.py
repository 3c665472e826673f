"""Where the socket of a `[[socket]]` may be, and making it there; for threads, as paths may hang."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from replug.agent.clients.listener import Listener, ListenerError, is_dead, listen_at
from replug.agent.clients.peer import Peer
from replug.agent.control.places import program_name
from replug.agent.keys.refusal import RequestRefusedError
from replug.token.trusted_file import UntrustedFileError, check_folder, make_folder

_OTHER_PLACE = "choose another path: below $XDG_RUNTIME_DIR, or in a folder of your own"
_PATIENCE = 1.0  # seconds


def make_socket(path: str, own: Collection[str]) -> Listener:
    """Listen at `path`, in a folder that is only ours; a dead agent's socket there is replaced.

    `own` are the agent's other sockets. RequestRefusedError, in words, if it is not to be there.
    """
    folder = Path(path).parent
    there = next(one for one in (folder, *folder.parents) if os.path.lexists(one))
    try:
        _check(there)
        make_folder(folder)
        _make_way(path, own)
        return listen_at(path)
    except UntrustedFileError as error:
        raise RequestRefusedError(f"{path}: {error}", error.fix or _OTHER_PLACE) from error
    except ListenerError as error:
        raise RequestRefusedError(str(error), _OTHER_PLACE) from error
    except OSError as error:
        where = error.filename or path
        raise RequestRefusedError(f"{where}: {error.strerror or error}", _OTHER_PLACE) from error


def _check(folder: Path) -> None:
    """Others who can write there could put a socket of theirs in the place of ours."""
    owner = folder.stat().st_uid
    if owner != os.geteuid():
        raise RequestRefusedError(f"the folder {folder} is another user's (user {owner})", _OTHER_PLACE)
    check_folder(folder)


def _make_way(path: str, own: Collection[str]) -> None:
    """Remove the socket of an agent that is dead; nothing else."""
    if path in own:
        raise _is_ours(path)
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if any(_is_same(status, one) for one in own):
        raise _is_ours(path)
    if not stat.S_ISSOCK(status.st_mode):
        raise RequestRefusedError(f"{path} is there, and is no socket", "remove it, or choose another path")
    if status.st_uid != os.geteuid():
        raise RequestRefusedError(f"{path} is another user's socket", _OTHER_PLACE)
    if not is_dead(path):
        name = _listening_program(path)
        raise RequestRefusedError(
            f"{name or 'another program'} listens at {path}", "end it, or choose another path"
        )
    os.unlink(path)


def _is_ours(path: str) -> RequestRefusedError:
    return RequestRefusedError(f"{path} is this agent's own socket", "choose another path")


def _is_same(status: os.stat_result, other: str) -> bool:
    with suppress(OSError):
        return os.path.samestat(status, os.lstat(other))
    return False


def _listening_program(path: str) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(_PATIENCE)
        try:
            client.connect(path)
            return program_name(Peer.of(client).pid, Path("/proc"))
        except OSError:
            return ""
