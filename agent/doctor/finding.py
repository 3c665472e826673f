"""The findings of `replug doctor`: each with its reason, and a fix if something is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """The outcome of a check."""

    OK = "ok"
    WARN = "warn"  # it works, or may be intended, but is worth knowing
    FAIL = "fail"  # something that the user needs does not work


@dataclass(frozen=True)
class Finding:
    """One result of a check."""

    check: str
    """The check's short name, the same in every release: programs may rely on it."""
    outcome: Outcome
    reason: str
    fix: str = ""
    """A command to type, or a line to write and where; empty if nothing is wrong."""
    packages: tuple[str, ...] = ()
    """The packages of Debian that `fix` installs."""


def ok(check: str, reason: str) -> Finding:
    """A finding that nothing is wrong."""
    return Finding(check, Outcome.OK, reason)


def warn(check: str, reason: str, fix: str = "") -> Finding:
    """A finding that is worth knowing."""
    return Finding(check, Outcome.WARN, reason, fix)


def fail(check: str, reason: str, fix: str) -> Finding:
    """A finding that something is wrong."""
    return Finding(check, Outcome.FAIL, reason, fix)


def missing(check: str, reason: str, *packages: str, or_else: str = "") -> Finding:
    """A finding that packages are missing; `or_else` is another way."""
    command = f"sudo apt-get install {' '.join(packages)}"
    return Finding(check, Outcome.FAIL, reason, f"{command}, {or_else}" if or_else else command, packages)
