"""Names any keys of a list, by comment and fingerprint: `match` of a `[[key]]`, `keys` of a `[[socket]]`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from replug.agent.config.key_choice import check_fingerprint
from replug.agent.config.key_rule import KeyRule
from replug.protocol.keys import fingerprint
from replug.protocol.patterns import matches
from replug.token.names.uri import is_uri

_FINGERPRINT = "SHA256:"


def check_match(text: str) -> str:
    """Return `text` if it is a fingerprint or a pattern for comments; ValueError."""
    if text.startswith(_FINGERPRINT):
        check_fingerprint(text)
    elif is_uri(text):
        raise ValueError("a URI chooses keys of one token only: use their comment, or their fingerprint")
    elif not text:
        raise ValueError('must not be empty; "*" is every key')
    return text


def fits(match: Sequence[str], key_blob: bytes, comment: bytes) -> bool:
    """Whether one of `match` names the key; a certificate has the fingerprint of its key.

    A pattern stands for a whole comment, with the wildcards `*` and `?`, and case counts.
    """
    text = comment.decode(errors="replace")
    # Most rules name no fingerprint, and most keys are named by their comment.
    return any(not _is_fingerprint(one) and matches(text, one) for one in match) or (
        any(map(_is_fingerprint, match)) and fingerprint(key_blob) in match
    )


def rules_of(rules: Sequence[KeyRule], key_blob: bytes, comment: bytes) -> Iterator[KeyRule]:
    """Those of the rules that are about this key, in their order."""
    return (rule for rule in rules if fits(rule.match, key_blob, comment))


def _is_fingerprint(one: str) -> bool:
    return one.startswith(_FINGERPRINT)
