"""A CA key as `replug ca` knows it: from the agent's answer, or from the journal while the agent has none."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from replug.agent.ca.journal import Issued
from replug.agent.config.ca_entry import ANY_NAME, USER
from replug.protocol.keys import blob_algorithm, fingerprint
from replug.protocol.wire import ProtocolError
from replug.token.identity import printable


@dataclass(frozen=True)
class Authority:
    """A CA key; the agent may not have seen it yet, and then its blob is empty."""

    fingerprint: str
    blob: bytes
    place: str
    """The token that it is on, for display."""
    present: bool
    """Whether it can sign now."""
    types: tuple[str, ...] = ()
    principals: tuple[str, ...] = ()
    max_validity: int = 0

    @property
    def line(self) -> str:
        """The public key as a line of an authorized_keys file, with the token for a comment."""
        return f"{blob_algorithm(self.blob)} {base64.b64encode(self.blob).decode()} {printable(self.place)}"

    def names_for(self, user: str) -> tuple[str, ...]:
        """The principals that it certifies for this user; `ANY_NAME` is every name."""
        return tuple(principal.replace(USER, user) for principal in self.principals)

    def allows(self, names: Sequence[str], user: str) -> bool:
        """Whether it certifies all these names for this user."""
        allowed = self.names_for(user)
        return ANY_NAME in allowed or set(names) <= set(allowed)


def of_agent(answer: Mapping[str, Any]) -> list[Authority]:
    """Those in the agent's answer to `ca`, in the order of the configuration."""
    return [
        Authority(
            fingerprint=one["fingerprint"],
            blob=base64.b64decode(one["key"]),
            place=one["place"],
            present=one["present"],
            types=tuple(one["types"]),
            principals=tuple(one["principals"]),
            max_validity=one["max_validity"],
        )
        for one in answer["authorities"]
    ]


def of_journal(lines: Iterable[Issued]) -> list[Authority]:
    """Those that have signed a certificate on record, each once."""
    found: dict[str, Authority] = {}
    for line in lines:
        try:
            blob = base64.b64decode(line.ca_key, validate=True)
            blob_algorithm(blob)
        except (ValueError, ProtocolError):
            continue
        key = fingerprint(blob)
        found[key] = Authority(key, blob, line.ca_place, present=False)
    return list(found.values())
