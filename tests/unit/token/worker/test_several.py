"""Several workers for one module: signatures at the same time, and no more PIN tries than with one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from doubles.fork_servers import running_fork_server
from doubles.stand_ins import PIN, Key, Person, Slots, StandInToken, StandInWorker, run, settle, use_slots
from doubles.token_bench import Bench, bench
from rigs.faulty import Faulty
from rigs.home import Home

from replug.token.modules.module import Module
from replug.token.names.uri import Uri
from replug.token.pins.pin import Pin, PinCache
from replug.token.pins.policy import PinPolicy
from replug.token.prompts.request import Asker
from replug.token.serving.recovery import attempt
from replug.token.worker.card_turns import CardTurns
from replug.token.worker.deadlines import Deadlines
from replug.token.worker.forking import ForkServer
from replug.token.worker.pool import WorkerPool

NEW_PIN = b"999999"


async def scan(worker: StandInWorker) -> int:
    """An operation; its result is the number of the worker."""
    await worker.scan()
    return worker.number


@pytest.fixture
def slots(monkeypatch: pytest.MonkeyPatch) -> Slots:
    slots = Slots(StandInToken())
    use_slots(monkeypatch, slots)
    return slots


@pytest.mark.parametrize("workers", [0, -1])
def test_a_module_has_a_worker(workers: int, slots: Slots) -> None:
    with pytest.raises(ValueError, match="needs a worker"):
        WorkerPool("/usr/lib/module.so", slots.fork_server, Deadlines(), CardTurns(), workers)


@pytest.mark.parametrize(("workers", "at_once"), [(1, 1), (2, 2), (3, 3)])
def test_as_many_operations_at_once_as_there_are_workers(slots: Slots, workers: int, at_once: int) -> None:
    async def main() -> None:
        pool = WorkerPool("/usr/lib/module.so", slots.fork_server, Deadlines(), CardTurns(), workers)
        gates = [slots.hold_next("scan") for _ in range(4)]
        tasks = [asyncio.create_task(attempt(pool, scan, anywhere=True)) for _ in range(4)]
        await settle()
        assert [gate.entered.is_set() for gate in gates] == [number < at_once for number in range(4)]
        for gate in gates:
            gate.opened.set()
        assert set(await asyncio.gather(*tasks)) == set(range(at_once))

    run(main())


def test_workers_beyond_the_first_start_when_they_are_needed(slots: Slots) -> None:
    async def main() -> None:
        pool = WorkerPool("/usr/lib/module.so", slots.fork_server, Deadlines(), CardTurns(), 3)
        for _ in range(5):
            assert await attempt(pool, scan, anywhere=True) == 0
        assert len(slots.workers) == 1

    run(main())


def test_what_is_not_for_any_worker_waits_for_the_first(slots: Slots) -> None:
    async def main() -> None:
        pool = WorkerPool("/usr/lib/module.so", slots.fork_server, Deadlines(), CardTurns(), 2)
        gate = slots.hold_next("scan")
        held = asyncio.create_task(attempt(pool, scan))
        await gate.entered.wait()
        waiting = asyncio.create_task(attempt(pool, scan))
        assert pool.busy
        assert await attempt(pool, scan, anywhere=True) == 1
        assert not waiting.done()
        gate.opened.set()
        assert await asyncio.gather(held, waiting) == [0, 0]

    run(main())


def test_a_worker_goes_to_the_first_in_the_queue_who_can_use_it(slots: Slots) -> None:
    order: list[str] = []

    async def noted(name: str, worker: StandInWorker) -> None:
        order.append(f"{name} {await scan(worker)}")

    async def main() -> None:
        pool = WorkerPool("/usr/lib/module.so", slots.fork_server, Deadlines(), CardTurns(), 2)
        gates = [slots.hold_next("scan") for _ in range(2)]
        tasks = [asyncio.create_task(attempt(pool, scan, anywhere=True)) for _ in range(2)]
        await settle()
        for name, anywhere in (("cancelled", True), ("first only", False), ("any", True), ("last", True)):
            operation = lambda worker, name=name: noted(name, worker)  # noqa: E731
            tasks.append(asyncio.create_task(attempt(pool, operation, anywhere=anywhere)))
        await settle()
        tasks[2].cancel()
        await settle()
        gates[1].opened.set()
        await settle()
        assert order == ["any 1", "last 1"]
        gates[0].opened.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert order == ["any 1", "last 1", "first only 0"]

    run(main())


def test_who_is_cancelled_with_a_worker_in_hand_gives_it_to_the_next(slots: Slots) -> None:
    async def main() -> None:
        pool = WorkerPool("/usr/lib/module.so", slots.fork_server, Deadlines(), CardTurns())
        gate = slots.hold_next("scan")
        tasks = [asyncio.create_task(attempt(pool, scan)) for _ in range(3)]
        await gate.entered.wait()
        gate.opened.set()
        await tasks[0]
        # The second has been given the worker, but has not run since.
        tasks[1].cancel()
        assert await tasks[2] == 0

    run(main())


def test_a_restart_and_the_end_are_for_all_workers(slots: Slots) -> None:
    async def main() -> None:
        pool = WorkerPool("/usr/lib/module.so", slots.fork_server, Deadlines(), CardTurns(), 2)
        await asyncio.gather(*(attempt(pool, scan, anywhere=True) for _ in range(2)))
        assert slots.alive == [0, 1]
        pool.restart()
        assert slots.alive == []
        await asyncio.gather(*(attempt(pool, scan, anywhere=True) for _ in range(2)))
        pool.close()
        assert not any(process.alive for process in slots.processes)

    run(main())


def test_each_worker_logs_in_with_the_remembered_pin(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        one = bench(monkeypatch, workers=2)
        await one.remember()
        await asyncio.gather(*(one.sign() for _ in range(6)))
        assert one.slots.logins == [PIN, PIN]
        assert {call.worker for call in one.slots.calls if call.operation == "sign"} == {0, 1}

    run(main())


def test_a_remembered_pin_that_is_wrong_now_is_tried_once_by_one_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        one = bench(monkeypatch, person=Person(NEW_PIN), workers=3)
        await one.remember()
        one.lose_worker()
        one.token.pin = NEW_PIN
        login = one.slots.hold_next("login")
        signing = [asyncio.create_task(one.sign()) for _ in range(6)]
        await login.entered.wait()
        await settle()
        assert one.slots.logins == [PIN, PIN]
        login.opened.set()
        await asyncio.gather(*signing)
        assert one.slots.logins.count(PIN) == 2
        assert len(one.person.requests) == 1

    run(main())


def test_a_wrong_pin_ends_what_was_logged_in_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is still logged in would not try the new PIN, and nobody would know that it is right."""

    async def main() -> None:
        one = bench(monkeypatch, person=Person(NEW_PIN), workers=2)
        await one.remember()
        one.token.pin = NEW_PIN
        await asyncio.gather(one.sign(), one.sign())
        assert one.slots.logins[:2] == [PIN, PIN]
        assert one.slots.logins.count(PIN) == 2
        assert one.pin is not None
        assert bytes(one.pin.value) == NEW_PIN

    run(main())


async def signed_at_once(one: Bench) -> list[bytes]:
    """The PINs sent for two signatures, of which the first is held until the second can do no more."""
    before = len(one.slots.pins_sent)
    gate = one.slots.hold_next("sign")
    signing = [asyncio.create_task(one.sign()) for _ in range(2)]
    await gate.entered.wait()
    await settle()
    gate.opened.set()
    await asyncio.gather(*signing)
    return one.slots.pins_sent[before:]


def test_a_pin_for_every_signature_is_sent_by_one_worker_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        token = StandInToken(Key("9c", always_authenticate=True))
        one = bench(monkeypatch, token, Person(NEW_PIN), workers=2)
        await one.remember()
        assert await signed_at_once(one) == [PIN, PIN, PIN]  # the second worker logs in, too
        one.token.pin = NEW_PIN
        assert (await signed_at_once(one))[:1] == [PIN]
        assert one.slots.pins_sent.count(PIN) == 5

    run(main())


@pytest.fixture
def faulty(faulty_built: Path) -> Iterator[Faulty]:
    """SoftHSM that is slow when it is told to be."""
    home = Home()
    yield Faulty(home, faulty_built)
    home.remove()


def test_two_real_signatures_overlap(faulty: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in faulty.env.items():
        monkeypatch.setenv(name, value)

    async def main(fork_server: ForkServer) -> None:
        module = Module(
            str(faulty.module),
            PinCache(lambda: None),
            Person(),
            Deadlines(),
            2,
            lambda _: PinPolicy(),
            lambda: None,
            fork_server,
            CardTurns(),
        )
        module.serve([Uri()])
        [token] = await module.look()
        await token.log_in(Pin(faulty.token.pin.encode()))
        [key] = token.keys.values()
        asker = Asker("ssh (pid 4711)")
        # While one worker is in its first C_Sign, the other starts and is there too.
        faulty.tell("C_Sign", "sleep 3")
        signing = [asyncio.create_task(token.sign(key, b"data", 0, asker)) for _ in range(2)]
        await asyncio.to_thread(faulty.await_calls, "C_Sign", 2)
        assert faulty.returns("C_Sign") == [], "the second began when the first had ended"
        faulty.tell("C_Sign", None)
        await asyncio.gather(*signing)
        module.serve([])

    with running_fork_server() as fork_server:
        run(main(fork_server))
