"""What callers and connections of a message bus have in common: errors, addresses of objects, signals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class BusError(Exception):
    """A bus or a service on it cannot be reached, refuses, or does not answer in time."""


@dataclass(frozen=True)
class Remote:
    """An interface of an object of a service."""

    name: str
    path: str
    interface: str


@dataclass(frozen=True)
class Signal:
    """A signal. The bus vouches for `sender`, a unique name such as `:1.7`, and for nothing else."""

    sender: str
    path: str
    interface: str
    member: str
    arguments: tuple[Any, ...]
