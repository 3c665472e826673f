"""Chooses and orders the keys that are offered of a token: the `keys` of a `[[token]]`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from replug.protocol.keys import fingerprint
from replug.protocol.patterns import matches
from replug.token.names.uri import is_uri, parse_uri

if TYPE_CHECKING:
    from replug.token.keys import TokenKey

_FINGERPRINT = "SHA256:"
_WHOLE_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}", re.ASCII)


def check_choice(choice: str) -> None:
    """Raise ValueError unless `choice` is the URI of a key, a fingerprint, or a pattern for labels."""
    if is_uri(choice):
        uri = parse_uri(choice)
        if uri.key_id is None and uri.object is None:
            raise ValueError("the URI does not choose a key: add id= or object=")
        if any((uri.token, uri.manufacturer, uri.serial, uri.model, uri.module_path, uri.module_name)):
            raise ValueError("the URI may have only id=, object= and type=: the token is chosen with uri")
    elif choice.startswith(_FINGERPRINT):
        check_fingerprint(choice)
    elif not choice:
        raise ValueError('must not be empty; "*" chooses every key')


def is_fingerprint(text: str) -> bool:
    """Whether `text` is a fingerprint as `ssh-add -l` shows it."""
    return _WHOLE_FINGERPRINT.fullmatch(text) is not None


def check_fingerprint(text: str) -> None:
    """Raise ValueError unless `text` is a fingerprint."""
    if not is_fingerprint(text):
        raise ValueError("not a fingerprint: ssh-add -l shows them, SHA256: and 43 characters")


def chosen_keys(keys: Iterable[TokenKey], choices: Sequence[str]) -> list[TokenKey]:
    """Those of `keys` that `choices` match: in the order of the choices, then in their own.

    A choice is a URI (`pkcs11:id=%01`), a fingerprint (`SHA256:...`), or a pattern for the label in which `*`
    and `?` are wildcards.
    """
    left = list(keys)
    chosen = []
    for choice in choices:
        chosen += [key for key in left if _matches(choice, key)]
        left = [key for key in left if not _matches(choice, key)]
    return chosen


def _matches(choice: str, key: TokenKey) -> bool:
    if is_uri(choice):
        return parse_uri(choice).matches_key(key)
    if choice.startswith(_FINGERPRINT):
        return fingerprint(key.blob) == choice
    return matches(key.label, choice)
