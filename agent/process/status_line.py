"""The agent's status in one line, as `systemctl --user status` shows it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from replug.agent.process.service_manager import ServiceManager
from replug.token.identity import printable
from replug.token.modules.module import Module
from replug.token.serving.presence import TokenState

_BETWEEN = 2.0  # seconds between changes, which a card with a bad contact makes all the time
_WORDS = {TokenState.ABSENT: "out", TokenState.LOCKED: "locked", TokenState.UNREACHABLE: "unreachable"}


@dataclass(frozen=True)
class TokenLine:
    """One token in the status line."""

    label: str
    state: TokenState
    keys: int
    """How many of its keys are served while it is in."""


def status_line(tokens: Iterable[TokenLine], *, locked: bool) -> str:
    """The line, such as `Serving 2 keys on token "work"; token "home" is out`."""
    if locked:
        return "Locked; unlock with ssh-add -X"
    tokens = list(tokens)
    if not tokens:
        return "No token yet; plug one in, or add one with ssh-add -s"
    served = [token for token in tokens if token.state not in _WORDS]
    clauses = [f"{_count(token.keys)} on token {_name(token)}" for token in served]
    serving = [f"Serving {' and '.join(clauses)}"] if clauses else []
    missing = [f"token {_name(token)} is {_WORDS[token.state]}" for token in tokens if token.state in _WORDS]
    line = "; ".join(serving + missing)
    return line[0].upper() + line[1:]


async def keep_status(
    manager: ServiceManager,
    modules: Callable[[], list[Module]],
    locked: Callable[[], bool],
    refused: Callable[[], str],
) -> None:
    """Send `manager` the status whenever it has changed, at most every two seconds.

    `modules` are those served, `locked` says whether the agent is, and `refused` why the configuration is, if
    it is. Runs until cancelled; returns at once if there is no service manager.
    """
    told = ""
    while manager.listens:
        line = status_line(_tokens(modules()), locked=locked())
        if reason := refused():
            line += f"; config.toml is refused, what it said before holds: {printable(reason)}"
        if line != told:
            manager.tell(f"STATUS={line}")
            told = line
        await asyncio.sleep(_BETWEEN)


def _tokens(modules: Iterable[Module]) -> list[TokenLine]:
    return [
        TokenLine(token.identity.label, token.state, len(token.keys))
        for module in modules
        for token in module.tokens.values()
    ]


def _count(keys: int) -> str:
    return f"{keys} key{'' if keys == 1 else 's'}"


def _name(token: TokenLine) -> str:
    return f'"{printable(token.label)}"'
