"""What `replug doctor` finds: one finding a check, with the fix where something is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """How a check went."""

    OK = "ok"
    WARN = "warn"  # it works, or may be meant so, but is worth knowing
    FAIL = "fail"  # something a person wants does not work


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    check: str
    """The check's short name, the same in every release: programs may look for it."""
    outcome: Outcome
    reason: str
    fix: str = ""
    """A command to type or a line to write, and where; empty where nothing is wrong."""


def ok(check: str, reason: str) -> Finding:
    """Nothing is wrong."""
    return Finding(check, Outcome.OK, reason)


def warn(check: str, reason: str, fix: str = "") -> Finding:
    """Worth knowing."""
    return Finding(check, Outcome.WARN, reason, fix)


def fail(check: str, reason: str, fix: str) -> Finding:
    """Wrong."""
    return Finding(check, Outcome.FAIL, reason, fix)
