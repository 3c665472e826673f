"""Where the socket is made that -A asks for: `user:DIR` or `shared:DIR`, as with OpenSSH 10.6."""

from __future__ import annotations

import os
import pwd
import re

from replug.agent.clients.listener import (
    Listener,
    ListenerError,
    home_folder,
    listen_in,
    listen_in_temporary_folder,
    remove_stale,
)

_USER, _SHARED = "user:", "shared:"
_TOKEN = re.compile(r"%(.?)", re.DOTALL)


def listen_as_told(where: str, *, skip_cleaning: bool) -> Listener:
    """Listen in the folder `where`: `user:` directly in it, `shared:` in a new folder of our own below it.

    Stale sockets in a user's folder are removed, unless that is to be skipped. Raises ListenerError.
    """
    if where.startswith(_SHARED):
        folder = _expanded(where.removeprefix(_SHARED))
        if not os.path.isabs(folder):
            raise ListenerError(f"cannot listen in {folder!r}: the path of a shared folder must be absolute")
        return listen_in_temporary_folder(folder)
    folder = user_folder(where)
    if not skip_cleaning:
        remove_stale(folder, any_host=False)
    return listen_in(folder)


def user_folder(where: str) -> str:
    """The folder of `user:DIR`; what is relative is so to the home. Raises ListenerError."""
    if not where.startswith(_USER):
        raise ListenerError(f"-A {where!r} does not begin with {_USER} or {_SHARED}")
    return os.path.join(home_folder(), _expanded(where.removeprefix(_USER)))


def _expanded(path: str) -> str:
    """With the home in place of `~`, and of tokens what sshd_config(5) says."""

    def value(token: re.Match[str]) -> str:
        match token[1]:
            case "%":
                return "%"
            case "h":
                return home_folder()
            case "u":
                return _user_name()
            case "U":
                return str(os.getuid())
        raise ListenerError(f"-A: {token[0]!r} is none of the tokens %%, %h, %U and %u")

    return _TOKEN.sub(value, os.path.expanduser(path))


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError as error:
        raise ListenerError(f"-A: user {os.getuid()} has no name for %u") from error
