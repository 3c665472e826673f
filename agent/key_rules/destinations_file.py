"""`destinations.json` in the state folder: hosts, the keys they accepted, and when they last did."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any, TypeAlias

from replug.agent.config.key_choice import check_fingerprint
from replug.token.trusted_file import UntrustedFileError, make_folder, read_trusted, write_whole

log = logging.getLogger(__name__)

_VERSION = 1
_LARGEST = 1024 * 1024  # bytes

Known: TypeAlias = dict[str, tuple[tuple[str, ...], float]]
"""By the fingerprint of a host's key: those of the keys it accepted, and when, in seconds since 1970."""


def read() -> Known:
    """What is in the file, in its order; nothing, and a line in the log, if it is not what this writes."""
    path = _path()
    try:
        return _decoded(json.loads(read_trusted(path, largest=_LARGEST)))
    except FileNotFoundError:
        return {}
    except (OSError, UntrustedFileError) as error:
        why = str(error)
    except (ArithmeticError, ValueError, TypeError, LookupError, AttributeError) as error:
        why = f"it is not what this version writes: {error!r}"
    except RecursionError:
        why = "it is not what this version writes: it is nested too deep"
    extra = {"path": str(path), "why": why}
    log.warning("which keys hosts accept is unknown, and learned from now on", extra=extra)
    return {}


def write(known: Known) -> None:
    """Replace the file. Raises OSError."""
    hosts = [
        {"host_key": host, "accepted": list(keys), "used": round(used)}
        for host, (keys, used) in known.items()
    ]
    path = _path()
    make_folder(path.parent)
    write_whole(path, json.dumps({"version": _VERSION, "hosts": hosts}, indent=1).encode() + b"\n", 0o600)


def remove() -> None:
    """Raises OSError."""
    _path().unlink(missing_ok=True)


def _path() -> Path:
    import platformdirs  # slow

    return platformdirs.user_state_path("replug") / "destinations.json"


def _decoded(values: dict[str, Any]) -> Known:
    if values["version"] != _VERSION:
        raise ValueError(f"version {values['version']}")
    known: Known = {}
    for host in values["hosts"]:
        keys = tuple(host["accepted"])
        for print_ in (host["host_key"], *keys):
            check_fingerprint(print_)
        used = float(host["used"])
        if not used >= 0:  # nor is NaN
            raise ValueError(f"a time is {used}")
        known[host["host_key"]] = keys, min(used, time.time())
    return known
