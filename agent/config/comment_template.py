"""Templates with fields in braces: the comment of a token's keys, and what a certificate says."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from replug.token.identity import TokenId, printable

if TYPE_CHECKING:
    from replug.token.keys import TokenKey

FIELDS = ("label", "id", "token", "serial", "manufacturer", "model")
"""The fields: the key's label, its id in hexadecimal, and the token's label and other attributes."""

_BRACE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def check_template(template: str, fields: Sequence[str] = FIELDS) -> None:
    """Raise ValueError if `template` has an unknown field, a single brace, or more than one line."""
    for brace in _BRACE.finditer(template):
        if brace[0] in "{}":
            raise ValueError(f"a single {brace[0]} is not allowed; write {brace[0] * 2} for the character")
        if brace[1] is not None and brace[1] not in fields:
            known = ", ".join(f"{{{name}}}" for name in fields)
            raise ValueError(f"{brace[0]} is not a field; the fields are {known}")
    if not template.isprintable():
        raise ValueError("must be one line")


def fill_template(template: str, key: TokenKey, token: TokenId) -> str:
    """The comment of `key` on `token`; empty if all its fields are empty."""
    values = {
        "label": key.label,
        "id": key.key_id.hex(),
        "token": token.label,
        "serial": token.serial,
        "manufacturer": token.manufacturer,
        "model": token.model,
    }
    return printable(filled(template, values)).strip()


def filled(template: str, values: Mapping[str, str]) -> str:
    """`template`, which has been checked, with `values` in place of its fields."""

    def value(brace: re.Match[str]) -> str:
        return brace[0][0] if brace[1] is None else values[brace[1]]

    return _BRACE.sub(value, template)
