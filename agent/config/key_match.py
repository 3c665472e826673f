"""Names any keys of a list, by comment and fingerprint: `match` of a `[[key]]`, `keys` of a `[[socket]]`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from replug.agent.config.key_choice import check_fingerprint
from replug.agent.config.key_rule import KeyRule
from replug.protocol.keys import fingerprint
from replug.protocol.patterns import matches
from replug.token.names.uri import is_uri

_FINGERPRINT = "SHA256:"
_MOST_SORTED = 256
"""More than the configuration has of them."""


def check_match(text: str) -> str:
    """Return `text` if it is a fingerprint or a pattern for comments; ValueError."""
    if text.startswith(_FINGERPRINT):
        check_fingerprint(text)
    elif is_uri(text):
        raise ValueError("a URI chooses keys of one token only: use their comment, or their fingerprint")
    elif text.startswith("~/"):
        raise ValueError("is a path: name keys by comment or fingerprint, as ssh-add -l shows them")
    elif not text:
        raise ValueError('must not be empty; "*" is every key')
    return text


def fits(match: Sequence[str], key_blob: bytes, comment: bytes) -> bool:
    """Whether one of `match` names the key; a certificate has the fingerprint of its key.

    A pattern stands for a whole comment, with the wildcards `*` and `?`, and case counts.
    """
    text, said = comment.decode(errors="replace"), _sorted(tuple(match))
    if text in said.comments or any(matches(text, one) for one in said.patterns):
        return True
    # Most rules name no fingerprint, and most keys are named by their comment.
    return bool(said.fingerprints) and fingerprint(key_blob) in said.fingerprints


def rules_of(rules: Sequence[KeyRule], key_blob: bytes, comment: bytes) -> Iterator[KeyRule]:
    """Those of the rules that are about this key, in their order."""
    return (rule for rule in rules if fits(rule.match, key_blob, comment))


class _Sorted(NamedTuple):
    fingerprints: frozenset[str]
    comments: frozenset[str]
    patterns: tuple[str, ...]


@lru_cache(maxsize=_MOST_SORTED)
def _sorted(match: tuple[str, ...]) -> _Sorted:
    fingerprints = frozenset(one for one in match if one.startswith(_FINGERPRINT))
    patterns = tuple(one for one in match if one not in fingerprints and set(one) & set("*?"))
    return _Sorted(fingerprints, frozenset(match) - fingerprints - {*patterns}, patterns)
