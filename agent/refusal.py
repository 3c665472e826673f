"""Refusals, and the last of them kept for the person: the wire says only FAILURE (RFC 9987 section 5.1)."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from replug.protocol.keys import fingerprint
from replug.token.errors import ExplainedError

_LONGEST_REASON = 500  # characters


class RequestRefusedError(ExplainedError):
    """The agent will not do what was asked."""


def unknown_key(blob: bytes) -> RequestRefusedError:
    """The refusal of what is to be done with a key that is not there, or not for this client to see."""
    return RequestRefusedError(f"key {fingerprint(blob)} is not in the agent")


class ExtensionRefusedError(RequestRefusedError):
    """An extension that the agent knows was refused (RFC 9987 section 5.8)."""


@dataclass(frozen=True)
class Refusal:
    """One refused request."""

    when: float
    """Seconds since the epoch."""
    request: str
    program: str
    reason: str
    next_step: str


class RefusalHistory:
    """The last refusals, oldest first."""

    def __init__(self, length: int = 20) -> None:
        self._refusals: deque[Refusal] = deque(maxlen=length)

    def add(self, request: str, program: str, reason: str, next_step: str) -> None:
        """Note a refusal that happened now."""
        self._refusals.append(Refusal(time.time(), request, program, reason[:_LONGEST_REASON], next_step))

    def __iter__(self) -> Iterator[Refusal]:
        return iter(self._refusals)
