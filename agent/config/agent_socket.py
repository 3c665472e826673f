"""The sockets of other agents, as `upstreams` names them."""

from __future__ import annotations

import os
import re

from replug.agent.config.kinds import WrongValueError

_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")
_LONGEST = 107
"""Bytes of a socket's path (unix(7))."""
_MOST = 8
"""Each is asked for every list."""


def socket_path(text: str) -> str:
    """`text` with `~` and variables of the environment expanded; ValueError if that is no absolute path."""
    path = os.path.expanduser(_VARIABLE.sub(_value, text))
    if not os.path.isabs(path) or "\0" in path:
        raise ValueError(f"must be an absolute path, or begin with ~/ or $XDG_RUNTIME_DIR/, not {text!r}")
    if len(os.fsencode(path)) > _LONGEST:
        raise ValueError(f"{path} is longer than the {_LONGEST} bytes of a socket's path")
    return path


def _value(variable: re.Match[str]) -> str:
    name = variable[1] or variable[2]
    value = os.environ.get(name, "")
    if not value and name == "XDG_RUNTIME_DIR":
        return f"/run/user/{os.getuid()}"  # after su and in cron jobs it is not set
    if not value:
        raise ValueError(f"the environment has no {name}")
    return value


def different_sockets(paths: list[str]) -> tuple[str, ...]:
    """Each once, in order; WrongValueError if there are too many."""
    different = tuple(dict.fromkeys(paths))
    if len(different) > _MOST:
        raise WrongValueError(((), f" may name {_MOST} agents at most"))
    return different
