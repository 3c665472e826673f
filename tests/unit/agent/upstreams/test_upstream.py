"""Another agent that hangs, or answers only while nobody waits, keeps few clients waiting."""

from __future__ import annotations

import asyncio
import time

import pytest
from doubles.virtual_time import run_in_no_time

from replug.agent.upstreams.link import Link
from replug.agent.upstreams.upstream import Upstream
from replug.protocol.messages import IdentitiesAnswer, ListedIdentity
from replug.token.offload import Aside

KEYS = IdentitiesAnswer((ListedIdentity(b"\0\0\0\3key", b"comment"),)).encode()


class Scripted(Upstream):
    """One that answers no clients while it `hangs`."""

    def __init__(self, changes: list[float]) -> None:
        super().__init__("/other", (), lambda: False, lambda: changes.append(0.0), Aside())
        self.hangs = False
        self.asked = 0


class ScriptedLink(Link):
    """A connection to it, of a client or in the background."""

    def __init__(self, other: Scripted, *, clients: bool) -> None:
        super().__init__(other.name, asyncio.Future, (), lambda: False)
        self._other = other
        self._clients = clients

    async def ask(self, request: bytes) -> bytearray:
        self._other.asked += 1
        if self._clients and self._other.hangs:
            await asyncio.sleep(1000)
        return bytearray(KEYS)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of the loop for all."""
    monkeypatch.setattr(time, "monotonic", lambda: asyncio.get_running_loop().time())


def test_one_that_answers_only_while_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """In ten minutes of a list each second it keeps few of them waiting."""
    changes: list[float] = []

    async def main() -> tuple[int, int]:
        other = Scripted(changes)
        monkeypatch.setattr(other, "link", lambda _: ScriptedLink(other, clients=False))
        other.hangs = True
        waited = 0
        end = asyncio.get_running_loop().time() + 600
        while asyncio.get_running_loop().time() < end:
            if not other.left_out:
                assert await other.list_for(ScriptedLink(other, clients=True)) is None
                assert other.left_out
                waited += 1
            await asyncio.sleep(1)
        other.end()
        return waited, other.asked

    waited, asked = run_in_no_time(main())
    assert 5 <= waited <= 20
    assert asked <= 2 * waited
    assert len(changes) >= waited - 1  # each time lists are to be made again
