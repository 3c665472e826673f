"""The comment of a token's keys, as `ssh-add -l` shows it: a template with fields in braces."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from replug.token.identity import TokenId, printable

if TYPE_CHECKING:
    from replug.token.keys import TokenKey

FIELDS = ("label", "id", "token", "serial", "manufacturer", "model")
"""The fields: the key's label, its id in hexadecimal, and the token's label and other attributes."""

_BRACE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def check_template(template: str) -> None:
    """Raise ValueError if `template` has an unknown field, a single brace, or more than one line."""
    for brace in _BRACE.finditer(template):
        if brace[0] in "{}":
            raise ValueError(f"a single {brace[0]} is not allowed; write {brace[0] * 2} for the character")
        if brace[1] is not None and brace[1] not in FIELDS:
            raise ValueError(
                f"{brace[0]} is not a field; the fields are {', '.join(f'{{{name}}}' for name in FIELDS)}"
            )
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

    def filled(brace: re.Match[str]) -> str:
        return brace[0][0] if brace[1] is None else values[brace[1]]

    return printable(_BRACE.sub(filled, template)).strip()
