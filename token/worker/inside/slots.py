"""The slots of the module that this process has loaded, and the tokens in them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from pkcs11 import PKCS11Error, SlotFlag

from replug.token.identity import TokenFlag, TokenId, TokenInfo
from replug.token.worker.frames import Header
from replug.token.worker.inside.calls import calling

_KNOWN_FLAGS = sum(TokenFlag)
_MOST_SLOTS = 128


def slots_of(library: Any) -> list[Any]:
    """All slots (C_GetSlotList); only those with tokens where the module cannot list all."""
    try:
        return list(library.get_slots()[:_MOST_SLOTS])
    except PKCS11Error:
        # A slot appeared between the library's two calls, or an empty one answers with an error.
        with calling("C_GetSlotList"):
            return list(library.get_slots(token_present=True)[:_MOST_SLOTS])


def tokens_of(library: Any, progress: Callable[[], None]) -> list[tuple[Any, TokenInfo]]:
    """Every initialised token; a slot that answers with an error has none. `progress` is called for each."""
    found = []
    for slot in slots_of(library):
        progress()
        with contextlib.suppress(PKCS11Error):
            token = slot.get_token()
            info = info_of(token)
            if TokenFlag.TOKEN_INITIALIZED in info.flags:
                found.append((token, info))
    return found


def info_of(token: Any) -> TokenInfo:
    """What the module says about a token (C_GetTokenInfo, when it was got) and its slot."""
    identity = TokenId(
        manufacturer=token.manufacturer_id,
        model=token.model,
        serial=token.serial.rstrip(b"\0 ").decode(errors="replace"),
        label=token.label,
    )
    removable = SlotFlag.REMOVABLE_DEVICE in token.slot.flags
    flags = TokenFlag(int(token.flags) & _KNOWN_FLAGS)
    return TokenInfo(identity, flags, token.slot.slot_id, token.slot.slot_description, removable)


def header_of(info: TokenInfo) -> Header:
    """The same as the fields of an answer."""
    return {
        "token": info.identity.fields,
        "flags": int(info.flags),
        "slot": info.slot,
        "reader": info.reader,
        "removable": info.removable,
    }
