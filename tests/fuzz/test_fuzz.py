"""A short run of what `make fuzz` does for as long as you like: the same examples each time."""

from __future__ import annotations

import asyncio

import pytest
from fuzz import connection
from fuzz.authority import REQUESTS
from fuzz.campaign import connections, parsers
from fuzz.connection import Agent, attack
from fuzz.targets import TARGETS

from replug.agent.clients.waiting import ClientLoop
from replug.agent.config.options import Options
from replug.protocol.wire import ProtocolError


@pytest.mark.parametrize("name", TARGETS)
def test_a_parser_minds_nothing(name: str) -> None:
    parsers(200, name, derandomize=True)()


def test_a_connection_minds_nothing() -> None:
    connections(60, derandomize=True)()


def test_what_is_sent_to_the_ca_key_reaches_it() -> None:
    """Else nothing that it signs would be looked at."""
    assert signed_of(REQUESTS) == 3


def test_a_ca_key_that_signs_anything_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "OPTIONS", Options())
    for request in REQUESTS[3:9]:
        with pytest.raises((AssertionError, ProtocolError)):
            signed_of([request])


def signed_of(requests: list[bytes]) -> int:
    """How many of the requests, to one new agent, reach its CA key."""

    async def main() -> int:
        agent = Agent()
        agent.ca_key.signed = signed = Counted()
        try:
            await attack(agent, requests, [], b"")
        finally:
            await agent.close()
            agent.fork_server.end()
        return signed.count

    with asyncio.Runner(loop_factory=ClientLoop) as runner:
        return runner.run(main())


class Counted(list[bytes]):
    """A list that remembers how much was ever put into it."""

    count = 0

    def append(self, value: bytes) -> None:
        self.count += 1
        super().append(value)


def test_a_fault_is_found() -> None:
    """A target that minds something, to see that it would come out."""
    target = TARGETS["requests"]
    with pytest.MonkeyPatch.context() as patch:

        def fails(data: bytes) -> None:
            if data[:1] == b"\x0d" and len(data) > 40 and b"\xff" in data:
                raise ZeroDivisionError

        patch.setitem(TARGETS, "requests", type(target)(target.seeds, fails))
        with pytest.raises(ZeroDivisionError):
            parsers(2000, "requests", derandomize=True)()
