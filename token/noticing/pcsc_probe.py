"""Asks pcscd for its readers through libpcsclite, in a process of its own.

`python -m replug.token.noticing.pcsc_probe` prints one JSON object. The library may wait for pcscd for ever,
so that process has a deadline. No command is sent to a card: one that another program uses is not disturbed.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

# From pcsclite's pcsclite.h and winscard.h.
_SCOPE_SYSTEM = 2
_SHARE_SHARED = 2
_ANY_PROTOCOL = 3
_LEAVE_CARD = 0
_STATE_PRESENT = 0x0020
_STATE_EXCLUSIVE = 0x0080
_STATE_MUTE = 0x0200
_LONGEST_LIST = 16 * 128  # bytes: MAX_READERNAME for each of pcscd's readers

_PATIENCE = 8.0  # seconds, less than a client of the control socket waits

_DWORD = ctypes.c_ulong


def ask_pcscd(environment: Mapping[str, str]) -> dict[str, Any]:
    """What pcscd answers to a program that this process starts, with its rights; see `main`.

    `hung` is true if the answer did not come in time. Raises OSError if the program cannot be started.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-m", "replug.token.noticing.pcsc_probe"],
            env=dict(environment), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, timeout=_PATIENCE,
        )  # fmt: skip
        answer = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError):  # ValueError: the library crashed the process
        return {"library": True, "code": 0, "readers": [], "hung": True}
    return {"code": 0, "readers": [], "hung": False} | dict(answer)


class _ReaderState(ctypes.Structure):
    """SCARD_READERSTATE."""

    _fields_ = (
        ("reader", ctypes.c_char_p),
        ("user_data", ctypes.c_void_p),
        ("current", _DWORD),
        ("event", _DWORD),
        ("atr_length", _DWORD),
        ("atr", ctypes.c_ubyte * 33),
    )


def main() -> None:
    """Print pcscd's answers; `library` is false if libpcsclite is not installed."""
    try:
        library = ctypes.CDLL("libpcsclite.so.1")
    except OSError:
        answer: dict[str, object] = {"library": False}
    else:
        answer = {"library": True, **_ask(library)}
    sys.stdout.write(json.dumps(answer))


def _ask(library: ctypes.CDLL) -> dict[str, object]:
    context = ctypes.c_long()
    code = _code(
        library.SCardEstablishContext(_DWORD(_SCOPE_SYSTEM), None, None, ctypes.byref(context)),
    )
    if code:
        return {"code": code, "readers": []}
    names, length = ctypes.create_string_buffer(_LONGEST_LIST), _DWORD(_LONGEST_LIST)
    code = _code(library.SCardListReaders(context, None, names, ctypes.byref(length)))
    found = names.raw[: length.value].split(b"\0") if not code else []
    return {"code": 0, "readers": list(_readers(library, context, [name for name in found if name]))}


def _readers(library: ctypes.CDLL, context: ctypes.c_long, names: list[bytes]) -> Iterator[dict[str, object]]:
    for name in names:
        state = _ReaderState(reader=name)
        library.SCardGetStatusChange(context, _DWORD(0), ctypes.byref(state), _DWORD(1))
        card = bool(state.event & _STATE_PRESENT)
        yield {
            "name": name.decode(errors="replace"),
            "card": card,
            "exclusive": bool(state.event & _STATE_EXCLUSIVE),
            "mute": bool(state.event & _STATE_MUTE),
            "connect": _connect(library, context, name) if card else 0,
        }


def _connect(library: ctypes.CDLL, context: ctypes.c_long, name: bytes) -> int:
    """The result of connecting to the card in shared mode."""
    card, protocol = ctypes.c_long(), _DWORD()
    code = _code(
        library.SCardConnect(
            context,
            name,
            _DWORD(_SHARE_SHARED),
            _DWORD(_ANY_PROTOCOL),
            ctypes.byref(card),
            ctypes.byref(protocol),
        )
    )
    if not code:
        library.SCardDisconnect(card, _DWORD(_LEAVE_CARD))
    return code


def _code(returned: int) -> int:
    return returned & 0xFFFFFFFF


if __name__ == "__main__":
    main()
