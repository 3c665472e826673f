"""The identity of a token, and what it reports about itself (PKCS#11 v2.40, C_GetTokenInfo)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntFlag
from functools import cached_property
from typing import Any

from replug.protocol.visible_text import BLANK


@dataclass(frozen=True, order=True)
class TokenId:
    """Identifies a token in whatever slot it is: four fields of CK_TOKEN_INFO, without their padding."""

    manufacturer: str
    model: str
    serial: str
    label: str
    copy: int = 0
    """Tells tokens apart that are alike in all these: 0 is the one that was seen first."""

    @cached_property
    def fields(self) -> dict[str, Any]:
        """The fields by name, as in `TokenId(**fields)`; not to be changed."""
        return {
            "manufacturer": self.manufacturer,
            "model": self.model,
            "serial": self.serial,
            "label": self.label,
            "copy": self.copy,
        }

    @cached_property
    def original(self) -> TokenId:
        """What its twins have in common with it: the identity of the first of them."""
        return replace(self, copy=0) if self.copy else self

    @property
    def has_serial(self) -> bool:
        """Whether its serial tells it from others of its kind; some cards and TPMs have zeros or none."""
        return bool(self.serial.strip("0 "))

    def __str__(self) -> str:
        name = f'token "{self.label}"' if self.label else f"token {self.model}"
        name = f"{name} (serial {self.serial})" if self.serial else name
        return printable(f"{name} #{self.copy + 1}" if self.copy else name)


LONGEST_LABEL = 256
"""Characters of a key's label; the rest is left out. A list of keys must have room for all."""


def printable(text: str) -> str:
    """`text` without control characters, so that a token's or program's name cannot fake lines of ours.

    Nor with what shows as nothing, which could move the rest of a line out of sight.
    """
    if text.isprintable() and BLANK.isdisjoint(text):
        return text
    return "".join(
        character if character.isprintable() and character not in BLANK else "\N{REPLACEMENT CHARACTER}"
        for character in text
    )


class TokenFlag(IntFlag):
    """The CKF_* bits of CK_TOKEN_INFO that concern the login."""

    LOGIN_REQUIRED = 0x00000004
    USER_PIN_INITIALIZED = 0x00000008
    PROTECTED_AUTHENTICATION_PATH = 0x00000100
    TOKEN_INITIALIZED = 0x00000400
    USER_PIN_COUNT_LOW = 0x00010000
    USER_PIN_FINAL_TRY = 0x00020000
    USER_PIN_LOCKED = 0x00040000


@dataclass(frozen=True)
class TokenInfo:
    """A token as seen in a slot; the flags may have changed since."""

    identity: TokenId
    flags: TokenFlag
    slot: int
    """The number of its slot."""
    reader: str
    """The description of that slot, which for cards is the reader's name."""
    removable: bool
    """Whether its slot is one that tokens can be removed from (CKF_REMOVABLE_DEVICE)."""
