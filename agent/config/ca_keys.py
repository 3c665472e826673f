"""The keys of a `[[ca]]`, and what cannot be meant by them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from replug.agent.config.ca_entry import (
    ANY_NAME,
    CRITICAL_OPTIONS,
    SSH_KEYGEN_EXTENSIONS,
    TYPES,
    USER,
    CaEntry,
)
from replug.agent.config.key_choice import check_fingerprint
from replug.agent.config.keys import Key
from replug.agent.config.kinds import Choice, ListOf, Text, Time, YesOrNo

_BRACES = re.compile(r"\{[^{}]*\}|[{}]")


def _fingerprint(text: str) -> str:
    check_fingerprint(text)
    return text


def _principal(text: str) -> str:
    if not text:
        raise ValueError(f'must not be empty; "{ANY_NAME}" allows every name')
    if not text.isprintable():
        raise ValueError("must be printable")
    if any(brace[0] != USER for brace in _BRACES.finditer(text)):
        raise ValueError(f"the only field in braces is {USER}")
    if ANY_NAME in text and text != ANY_NAME:
        raise ValueError(f'"{ANY_NAME}" stands alone, for every name; there are no patterns')
    return text


def _extension(text: str) -> str:
    if text in CRITICAL_OPTIONS:
        raise ValueError(f"{text} is a critical option, which restricts: no rule is needed to allow it")
    if not text.isascii() or not text.isprintable() or not text:
        raise ValueError("not the name of an extension")
    return text


CA_KEYS = (
    Key(
        "key",
        Text(_fingerprint, what="a fingerprint"),
        "The CA key, on a token or in memory, by its fingerprint as ssh-add -l shows it. It is required.",
        sample=f'"SHA256:{"A" * 43}"',
    ),
    Key(
        "max_validity",
        Time(),
        "How long a certificate may be valid, counted from the request. It is required.",
        sample='"1h"',
    ),
    Key(
        "principals",
        ListOf(Text(_principal, what="a name")),
        'The names that a certificate may be for; {user} is the name of the user who asks, "*" allows every '
        "name. It is required.",
        sample='["root", "{user}"]',
    ),
    Key(
        "types",
        ListOf(Choice(TYPES)),
        'The types of certificates: "user", "host".',
    ),
    Key(
        "extensions",
        ListOf(Text(_extension, what="the name of an extension")),
        "The extensions that a user certificate may have.",
    ),
    Key(
        "required_options",
        ListOf(Choice(CRITICAL_OPTIONS)),
        'The critical options that a user certificate must have, such as "source-address".',
    ),
    Key(
        "confirm",
        YesOrNo(),
        "Whether each certificate has to be confirmed; the question shows for whom it is and until when.",
    ),
)


def contradictions(entry: CaEntry) -> Iterator[tuple[str, str]]:
    """What in `entry` can never apply: the name of a key, and why."""
    if not entry.principals:
        yield "principals", 'allows no certificate: name one, or "*" for every name'
    if ANY_NAME in entry.principals and len(entry.principals) > 1:
        yield "principals", f'"{ANY_NAME}" allows every name: leave out the others, or it'
    if not entry.types:
        yield "types", 'allows no certificate: name "user", "host" or both'
    for name in ("principals", "types", "extensions", "required_options"):
        values = getattr(entry, name)
        repeated = next((value for value in values if values.count(value) > 1), None)
        if repeated is not None:
            yield name, f'"{repeated}" is there twice'
    if entry.types == ("host",):
        if entry.required_options:
            yield "required_options", "never met: host certificates have no critical options"
        if entry.extensions not in ((), SSH_KEYGEN_EXTENSIONS):
            yield "extensions", "never apply: host certificates have none"
        if any(USER in principal for principal in entry.principals):
            yield "principals", f"{USER} is no name of a host"
