"""Turns of connections: each process has its share, whatever the others do and however many they have."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import pytest
from doubles.stand_ins import run, settle, waiting

from replug.agent.clients import rounds as rounds_module
from replug.agent.clients.rounds import READING, WRITING, Rounds
from replug.token.requester import Requester


class Greedy:
    """A connection of `process` that always has more to do."""

    def __init__(self, process: int, served: list[int], seconds: float = 0.0, program: int = 1) -> None:
        self.process, self.has_turn, self.events = process, False, 0
        self.asker = Requester((1, f"program {program}"), process)
        self._served, self._seconds = served, seconds

    def fileno(self) -> int:
        return -1

    def serve(self, until: float) -> bool:
        self._served.append(self.process)
        end = time.monotonic() + self._seconds
        while time.monotonic() < end:
            pass
        return True


class Watched:
    """A connection that says what happened, and reads nothing."""

    asker, has_turn, events = Requester(None, 1), False, 0

    def __init__(self, end: socket.socket | BinaryIO) -> None:
        self._end = end
        self.seen: list[int] = []
        self.turns = 0
        self.fails = False

    def fileno(self) -> int:
        return self._end.fileno()

    def serve(self, until: float) -> bool:
        self.turns += 1
        self.seen.append(self.events)
        self.events = 0
        if self.fails:
            raise ZeroDivisionError
        return False


Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pairs() -> Iterator[list[Pair]]:
    """Two connections: our end, and the client's."""
    with ExitStack() as stack:
        made = [socket.socketpair() for _ in range(2)]
        for end in (end for pair in made for end in pair):
            end.setblocking(False)
            stack.enter_context(end)
        yield made


def test_one_that_cannot_be_watched_can_be_closed(tmp_path: Path) -> None:
    """As where the kernel has no room for one more: max_user_watches in epoll(7), or no memory."""

    async def main() -> None:
        rounds = Rounds(waiting())
        with (tmp_path / "file").open("wb") as file:
            connection = Watched(file)  # epoll takes no files
            with pytest.raises(PermissionError):
                rounds.watch(connection, READING)
            rounds.forget(connection)

    run(main())


def test_a_process_with_many_connections_has_as_many_turns_as_one_with_one() -> None:
    async def main() -> None:
        rounds, served = Rounds(waiting()), list[int]()
        for process in (*[1] * 50, 2, 3, *[1] * 50):
            rounds.give_turn(Greedy(process, served))
        while len(served) < 300:
            rounds.serve()
        assert [served[:300].count(process) for process in (1, 2, 3)] == [100, 100, 100]
        rounds.close()

    run(main())


def test_a_program_with_many_processes_has_as_many_turns_as_one_with_one() -> None:
    async def main() -> None:
        rounds, served = Rounds(waiting()), list[int]()
        for process in range(100, 200):
            rounds.give_turn(Greedy(process, served))
        rounds.give_turn(Greedy(2, served, program=2))
        while len(served) < 200:
            rounds.serve()
        assert served[:200].count(2) == 100
        rounds.close()

    run(main())


def test_the_loop_has_its_turn_though_everybody_wants_more() -> None:
    async def main() -> None:
        rounds, served = Rounds(waiting()), list[int]()
        for process in range(200):
            rounds.give_turn(Greedy(process, served, seconds=rounds_module._ROUND / 4))
        counts = []
        for _ in range(20):
            await asyncio.sleep(0)
            counts.append(len(served))
        steps = [after - before for before, after in pairwise(counts)]
        assert max(steps) <= 5, steps
        rounds.close()

    run(main())


def test_a_connection_waits_for_one_turn_at_a_time() -> None:
    """However often it is given one: else those that ask most would be served most."""

    async def main() -> None:
        rounds, served = Rounds(waiting()), list[int]()
        pushy = Greedy(1, served)
        for _ in range(100):
            rounds.give_turn(pushy)
        rounds.give_turn(Greedy(2, served))
        rounds.serve()
        assert served[:4] == [1, 2, 1, 2]
        rounds.close()

    run(main())


def test_each_event_is_a_turn_and_no_more(pairs: list[Pair]) -> None:
    async def main() -> None:
        rounds, (ours, theirs) = Rounds(waiting()), pairs[0]
        watched, other = Watched(ours), Watched(pairs[1][0])
        rounds.watch(watched, READING)
        rounds.watch(other, READING)
        await settle()
        assert watched.turns == 0
        theirs.send(b"x")
        await settle()
        assert watched.turns == 1
        assert watched.seen[0] & READING
        rounds.watch(watched, READING | WRITING)
        await settle()
        assert watched.turns == 2
        assert watched.seen[1] & WRITING
        rounds.forget(watched)
        rounds.forget(watched)
        theirs.send(b"x")
        await settle()
        assert (watched.turns, other.turns) == (2, 0)
        rounds.close()

    run(main())


class Insatiable(Watched):
    """One that has always more to do, and notes its turns where others do."""

    def __init__(self, end: socket.socket, asker: Requester, served: list[Requester]) -> None:
        super().__init__(end)
        self.asker, self._served = asker, served
        self.untils: list[float] = []

    def serve(self, until: float) -> bool:
        super().serve(until)
        self._served.append(self.asker)
        self.untils.append(until)
        return self.turns < 10


def test_a_lone_connection_has_its_turn_at_once_and_goes_on_in_its_rounds(pairs: list[Pair]) -> None:
    async def main() -> None:
        rounds, served = Rounds(waiting()), list[Requester]()
        lone = Insatiable(pairs[0][0], Requester((1, "lone"), 1), served)
        rounds.watch(lone, READING)
        begin = time.monotonic()
        rounds._happened([(lone.fileno(), READING)])
        assert (lone.turns, lone.has_turn) == (1, True)  # the loop's other work comes before the next
        assert lone.untils[0] <= time.monotonic() + rounds_module._ROUND
        assert lone.untils[0] >= begin + rounds_module._ROUND
        await settle()
        assert (lone.turns, lone.has_turn) == (10, False)
        rounds.close()

    run(main())


def test_who_had_a_turn_alone_comes_last_when_others_want_one(
    pairs: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a busy machine a round would end between two turns.
    monkeypatch.setattr(rounds_module, "_ROUND", 10.0)

    async def main() -> None:
        rounds, served = Rounds(waiting()), list[Requester]()
        first, second = (
            Insatiable(ours, Requester((1, name), 1), served)
            for name, (ours, _) in zip(("first", "second"), pairs, strict=True)
        )
        for one in (first, second):
            rounds.watch(one, READING)
            one.turns = 10
        rounds._happened([(first.fileno(), READING)])
        rounds._happened([(first.fileno(), READING), (second.fileno(), READING)])
        assert served == [first.asker, second.asker, first.asker]
        # Nor does it overtake who is waiting.
        rounds.enqueue(second)
        rounds._happened([(first.fileno(), READING)])
        assert served[3:] == [second.asker, first.asker]
        rounds.close()

    run(main())


def test_one_turn_that_fails_harms_no_other(pairs: list[Pair], caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        rounds, watched = Rounds(waiting()), [Watched(ours) for ours, _ in pairs]
        watched[0].fails = True
        for one, (_, theirs) in zip(watched, pairs, strict=True):
            rounds.watch(one, READING)
            theirs.send(b"x")
        await settle()
        assert [one.turns for one in watched] == [1, 1]
        assert "a connection's turn failed" in caplog.text
        rounds._happened([(watched[0].fileno(), READING)])  # alone, it harms nobody either
        assert watched[0].turns == 2
        rounds.close()

    run(main())


def test_closing_leaves_no_descriptor_and_serves_nobody(pairs: list[Pair]) -> None:
    async def main() -> None:
        await asyncio.sleep(0)
        before, watched = os.listdir("/proc/self/fd"), Watched(pairs[0][0])
        rounds = Rounds(waiting())
        rounds.watch(watched, READING)
        pairs[0][1].send(b"x")
        rounds.give_turn(watched)
        rounds.close()
        rounds.forget(watched)
        await settle()
        assert watched.turns == 0
        assert len(os.listdir("/proc/self/fd")) == len(before)

    run(main())
