"""The one recovery mechanism: a fresh worker and one retry."""

from __future__ import annotations

import asyncio
import errno

import pytest
from doubles.stand_ins import Slots, StandInToken, StandInWorker, lost, refused, run, settle, use_slots

from replug.token.errors import (
    ModuleUnreachableError,
    TokenAbsentError,
    TokenError,
    Verdict,
    WorkerRefusedError,
    WorkerSilentError,
)
from replug.token.requester import Requester, requester
from replug.token.serving.recovery import attempt
from replug.token.worker.card_turns import CardTurns
from replug.token.worker.client import Deadlines
from replug.token.worker.pool import WorkerPool

PATH = "/usr/lib/module.so"


@pytest.fixture
def slots(monkeypatch: pytest.MonkeyPatch) -> Slots:
    slots = Slots(StandInToken())
    use_slots(monkeypatch, slots)
    return slots


@pytest.fixture
def pool(slots: Slots) -> WorkerPool:
    return WorkerPool(PATH, slots.fork_server, Deadlines(), CardTurns())


def silent() -> WorkerSilentError:
    return WorkerSilentError("no answer to scan")


async def scan(worker: StandInWorker) -> int:
    """An operation; its result is the number of the worker."""
    await worker.scan()
    return worker.number


def test_one_worker_serves_until_it_fails(slots: Slots, pool: WorkerPool) -> None:
    async def main() -> None:
        assert [await attempt(pool, scan) for _ in range(3)] == [0, 0, 0]
        assert slots.operations == ["load", "scan", "scan", "scan"]

    run(main())


@pytest.mark.parametrize("fault", [lost(), refused(Verdict.FAILED), refused(Verdict.TOKEN_ABSENT)])
def test_after_a_failure_a_fresh_worker_is_asked_once_more(
    slots: Slots, pool: WorkerPool, fault: Exception
) -> None:
    async def main() -> None:
        slots.fail_next("scan", fault)
        assert await attempt(pool, scan) == 1
        assert slots.alive == [1]
        assert slots.operations == ["load", "scan"] * 2

    run(main())


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        (lost, ModuleUnreachableError, f"module {PATH} failed twice: the worker process ended"),
        (
            lambda: refused(Verdict.FAILED, "C_Sign: CKR_0x30"),
            ModuleUnreachableError,
            f"module {PATH} failed twice: C_Sign: CKR_0x30",
        ),
        (
            lambda: refused(Verdict.TOKEN_ABSENT, "token is in no slot"),
            TokenAbsentError,
            "token is in no slot",
        ),
    ],
)
def test_there_is_never_a_third_attempt(
    slots: Slots, pool: WorkerPool, fault: type, error: type[TokenError], words: str
) -> None:
    async def main() -> None:
        slots.fail_next("scan", fault(), fault())
        with pytest.raises(error) as caught:
            await attempt(pool, scan)
        assert str(caught.value) == words
        assert slots.operations == ["load", "scan"] * 2
        assert slots.alive == []
        # And the next request starts afresh.
        assert await attempt(pool, scan) == 2

    run(main())


def test_the_first_error_is_the_reason(slots: Slots, pool: WorkerPool) -> None:
    """What a module says afterwards may be a consequence."""

    async def main() -> None:
        first = WorkerRefusedError(Verdict.FAILED, "C_OpenSession: CKR_SESSION_COUNT", "CKR_SESSION_COUNT")
        slots.fail_next("scan", first, refused(Verdict.FAILED, "C_Login: CKR_GENERAL_ERROR"))
        with pytest.raises(ModuleUnreachableError) as caught:
            await attempt(pool, scan)
        assert caught.value.reason == (
            f"module {PATH} failed twice: C_OpenSession: CKR_SESSION_COUNT (the token allows no more "
            "sessions), then C_Login: CKR_GENERAL_ERROR"
        )
        assert caught.value.next_step == "end other programs that use the token"

    run(main())


def test_after_silence_the_second_attempt_has_more_time(slots: Slots, pool: WorkerPool) -> None:
    async def main() -> None:
        slots.fail_next("scan", silent())
        await attempt(pool, scan)
        slots.fail_next("scan", lost())
        await attempt(pool, scan)
        given = [worker.deadlines for worker in slots.workers]
        assert given == [Deadlines(), Deadlines().doubled, Deadlines()]

    run(main())


def test_an_error_after_silence_is_not_the_last(slots: Slots, pool: WorkerPool) -> None:
    """pcscd that was stopped resets the card of the worker that was ended once it goes on, under the next."""

    async def main() -> None:
        slots.fail_next("scan", silent(), refused(Verdict.FAILED))
        assert await attempt(pool, scan) == 2
        assert slots.operations == ["load", "scan"] * 3
        # All that are not the first have the second one's patience.
        given = [worker.deadlines for worker in slots.workers]
        assert given == [Deadlines(), Deadlines().doubled, Deadlines().doubled]

    run(main())


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        ([lost(), silent()], "failed twice: the worker process ended, then no answer to scan"),
        ([silent(), silent()], "failed twice: no answer to scan"),
        ([silent(), lost(), lost()], "failed 3 times: no answer to scan, then the worker process ended"),
        ([silent(), lost(), silent()], "failed 3 times: no answer to scan"),
    ],
)
def test_after_that_it_is_and_silence_ends_no_other_series(
    slots: Slots, pool: WorkerPool, faults: list[Exception], words: str
) -> None:
    async def main() -> None:
        slots.fail_next("scan", *faults)
        with pytest.raises(ModuleUnreachableError) as caught:
            await attempt(pool, scan)
        assert caught.value.reason == f"module {PATH} {words}"
        assert slots.operations == ["load", "scan"] * len(faults)

    run(main())


def test_failing_to_load_is_a_failure_like_any_other(slots: Slots, pool: WorkerPool) -> None:
    async def main() -> None:
        slots.fail_next("load", lost())
        assert await attempt(pool, scan) == 1
        slots.fail_next("load", lost(), lost())
        with pytest.raises(ModuleUnreachableError, match="failed twice"):
            await attempt(pool, scan, fresh=True)

    run(main())


def test_while_the_module_is_unreachable_each_request_tries_one_worker(
    slots: Slots, pool: WorkerPool
) -> None:
    async def main() -> None:
        slots.fail_next("scan", *(silent() for _ in range(4)))
        with pytest.raises(ModuleUnreachableError, match="failed twice"):
            await attempt(pool, scan)
        for started in (3, 4):
            with pytest.raises(ModuleUnreachableError, match="fails again: no answer"):
                await attempt(pool, scan)
            assert len(slots.workers) == started
        # It has the patience that a second attempt has, and any answer ends it.
        assert slots.workers[-1].deadlines == Deadlines().doubled
        assert await attempt(pool, scan) == 4
        slots.fail_next("scan", lost())
        assert await attempt(pool, scan) == 5

    run(main())


def test_an_answer_that_is_an_error_ends_it_too(slots: Slots, pool: WorkerPool) -> None:
    async def no_key(_worker: StandInWorker) -> None:
        raise TokenError("no such key")

    async def main() -> None:
        slots.fail_next("scan", lost(), lost())
        with pytest.raises(ModuleUnreachableError):
            await attempt(pool, scan)
        with pytest.raises(TokenError, match="no such key"):
            await attempt(pool, no_key)
        slots.fail_next("scan", lost())
        await attempt(pool, scan)

    run(main())


def test_those_who_waited_while_it_was_tried_in_vain_are_refused_with_it(
    slots: Slots, pool: WorkerPool
) -> None:
    async def main() -> None:
        gate = slots.hold_next("load")
        slots.fail_next("scan", lost(), lost())
        requests = [asyncio.create_task(attempt(pool, scan)) for _ in range(3)]
        await gate.entered.wait()
        gate.opened.set()
        outcomes = await asyncio.gather(*requests, return_exceptions=True)
        assert [str(outcome) for outcome in outcomes] == [
            f"module {PATH} failed twice: the worker process ended"
        ] * 3
        assert len(slots.workers) == 2
        assert await attempt(pool, scan) == 2

    run(main())


def test_the_second_attempt_comes_a_moment_later_if_the_first_worker_was_fresh(
    slots: Slots, pool: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async def main() -> None:
        monkeypatch.setattr("replug.token.serving.recovery.asyncio.sleep", sleep)
        await attempt(pool, scan)
        slots.fail_next("scan", lost())
        await attempt(pool, scan)
        assert pauses == []
        slots.fail_next("load", lost())
        await attempt(pool, scan, fresh=True)
        assert pauses == [0.3]

    run(main())


def test_what_ends_a_worker_may_end_the_spare_so_the_second_attempt_takes_none(
    slots: Slots, pool: WorkerPool
) -> None:
    async def main() -> None:
        slots.fail_next("scan", lost())
        assert await attempt(pool, scan) == 1
        assert slots.fork_server.spares_asked_for == 1

    run(main())


def test_what_is_no_module_is_not_tried_twice(slots: Slots, pool: WorkerPool) -> None:
    async def main() -> None:
        slots.fail_next("load", refused(Verdict.NOT_A_MODULE, "file too short"))
        with pytest.raises(TokenError, match=f"{PATH} is not a PKCS#11 module: file too short"):
            await attempt(pool, scan)
        assert slots.operations == ["load"]
        assert slots.alive == []

    run(main())


def test_what_the_operation_itself_raises_passes_and_costs_no_worker(slots: Slots, pool: WorkerPool) -> None:
    async def refuse(_worker: StandInWorker) -> None:
        raise TokenError("the PIN is locked")

    async def main() -> None:
        await attempt(pool, scan)
        with pytest.raises(TokenError, match="the PIN is locked"):
            await attempt(pool, refuse)
        assert slots.alive == [0]

    run(main())


def test_fresh_means_a_new_worker_first(slots: Slots, pool: WorkerPool) -> None:
    async def main() -> None:
        await attempt(pool, scan)
        assert await attempt(pool, scan, fresh=True) == 1
        assert slots.alive == [1]

    run(main())


def test_a_worker_that_died_idle_costs_no_attempt(slots: Slots, pool: WorkerPool) -> None:
    async def main() -> None:
        await attempt(pool, scan)
        slots.workers[0].kill()
        slots.fail_next("scan", lost())
        assert await attempt(pool, scan) == 2

    run(main())


def test_operations_go_one_at_a_time_in_the_order_of_arrival(slots: Slots, pool: WorkerPool) -> None:
    order: list[int] = []

    async def numbered(number: int, worker: StandInWorker) -> None:
        await worker.scan()
        order.append(number)

    async def main() -> None:
        gate = slots.hold_next("scan")
        tasks = [
            asyncio.create_task(attempt(pool, lambda worker, number=number: numbered(number, worker)))
            for number in range(5)
        ]
        await gate.entered.wait()
        await settle()
        assert slots.operations.count("scan") == 1
        gate.opened.set()
        await asyncio.gather(*tasks)
        assert order == [0, 1, 2, 3, 4]

    run(main())


def test_a_neighbour_with_many_requests_costs_another_one_place(slots: Slots, pool: WorkerPool) -> None:
    order: list[int] = []

    async def numbered(number: int, worker: StandInWorker) -> None:
        await worker.scan()
        order.append(number)

    async def ask(number: int, program: int) -> None:
        requester.set(Requester((1, program), program))
        await attempt(pool, lambda worker: numbered(number, worker))

    async def main() -> None:
        gate = slots.hold_next("scan")
        flood = [asyncio.create_task(ask(number, 1)) for number in range(100)]
        await gate.entered.wait()
        flood += [asyncio.create_task(ask(number, 2)) for number in (100, 101)]
        await settle()
        gate.opened.set()
        await asyncio.gather(*flood)
        assert order == [0, 100, 1, 101, *range(2, 100)]

    run(main())


def test_after_a_restart_the_next_operation_has_a_fresh_worker(slots: Slots, pool: WorkerPool) -> None:
    async def main() -> None:
        pool.restart()
        await attempt(pool, scan)
        pool.restart()
        assert slots.alive == []
        assert await attempt(pool, scan) == 1

    run(main())


def test_an_operation_under_way_at_a_restart_goes_on_to_its_end(slots: Slots, pool: WorkerPool) -> None:
    async def main() -> None:
        gate = slots.hold_next("scan")
        scanning = asyncio.create_task(attempt(pool, scan))
        await gate.entered.wait()
        assert pool.busy
        pool.restart()
        gate.opened.set()
        assert await scanning == 0
        await settle()
        assert not pool.busy
        assert slots.alive == []
        assert await attempt(pool, scan) == 1
        assert await attempt(pool, scan) == 1

    run(main())


def test_a_restart_while_a_process_loads_is_not_put_off_until_it_has_read_a_card(
    slots: Slots, pool: WorkerPool
) -> None:
    """pcscd reports a removal a moment after a signature failed by it; the card may be back by then."""

    async def main() -> None:
        gate = slots.hold_next("load")
        scanning = asyncio.create_task(attempt(pool, scan))
        await gate.entered.wait()
        pool.restart()
        gate.opened.set()
        assert await scanning == 1
        assert await attempt(pool, scan) == 1
        assert slots.operations == ["load", "load", "scan", "scan"]

    run(main())


def test_nor_is_one_between_two_attempts_when_there_is_no_process(
    slots: Slots, pool: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def restart_meanwhile(_seconds: float) -> None:
        pool.restart()

    async def main() -> None:
        monkeypatch.setattr("replug.token.serving.recovery.asyncio.sleep", restart_meanwhile)
        slots.fail_next("scan", lost())
        assert await attempt(pool, scan) == 1
        assert await attempt(pool, scan) == 1
        assert slots.operations == ["load", "scan"] * 2 + ["scan"]

    run(main())


def test_who_is_cancelled_leaves_the_queue_and_what_has_begun_goes_on(slots: Slots, pool: WorkerPool) -> None:
    async def main() -> None:
        gate = slots.hold_next("scan")
        tasks = [asyncio.create_task(attempt(pool, scan)) for _ in range(3)]
        await gate.entered.wait()
        await settle()
        tasks[0].cancel()
        tasks[1].cancel()
        await settle()
        assert slots.operations.count("scan") == 1
        gate.opened.set()
        assert await tasks[2] == 0
        assert slots.operations.count("scan") == 2
        assert slots.alive == [0]

    run(main())


def test_a_process_that_cannot_be_forked(slots: Slots, pool: WorkerPool) -> None:
    async def main() -> None:
        slots.fork_server.failure = BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        with pytest.raises(ModuleUnreachableError, match="no worker process can be started: Resource"):
            await attempt(pool, scan)
        slots.fork_server.failure = None
        assert await attempt(pool, scan) == 0

    run(main())


def test_closing_ends_all_processes_and_refuses_what_waits(slots: Slots, pool: WorkerPool) -> None:
    async def main() -> None:
        gate = slots.hold_next("scan")
        waiting = [asyncio.create_task(attempt(pool, scan)) for _ in range(3)]
        await gate.entered.wait()
        pool.close()
        gate.opened.set()
        refusals = await asyncio.gather(*waiting, return_exceptions=True)
        assert [str(refusal) for refusal in refusals] == [f"{PATH} was removed from the agent"] * 3
        assert [process.alive for process in slots.processes] == [False] * len(slots.processes)

    run(main())


def test_closing_while_a_worker_loads_leaves_no_process(slots: Slots, pool: WorkerPool) -> None:
    async def main() -> None:
        gate = slots.hold_next("load")
        waiting = asyncio.create_task(attempt(pool, scan))
        await gate.entered.wait()
        pool.close()
        gate.opened.set()
        with pytest.raises(TokenError, match="was removed from the agent"):
            await waiting
        assert [process.alive for process in slots.processes] == [False] * len(slots.processes)

    run(main())


@pytest.mark.parametrize(
    "fault",
    [lost(), refused(Verdict.FAILED, "GeneralError"), refused(Verdict.NOT_A_MODULE, "file too short")],
)
def test_a_worker_that_fails_to_load_leaves_no_process(
    slots: Slots, pool: WorkerPool, fault: Exception
) -> None:
    async def main() -> None:
        slots.fail_next("load", fault, fault)
        with pytest.raises(TokenError):
            await attempt(pool, scan)
        assert [process.alive for process in slots.processes] == [False] * len(slots.processes)

    run(main())


def test_a_caller_that_is_at_work_with_the_last_answer_shows_life_too(slots: Slots, pool: WorkerPool) -> None:
    """The first listing waits while a card is being read, also between two requests."""

    async def main() -> None:
        signs: list[float | None] = []

        async def read(worker: StandInWorker) -> None:
            await worker.scan()
            worker.last_sign = 1e9
            signs.append(pool.last_sign)

        gate = slots.hold_next("load")
        reading = asyncio.create_task(attempt(pool, read))
        await gate.entered.wait()
        now = asyncio.get_running_loop().time()
        assert pool.last_sign is not None
        assert now - pool.last_sign < 60
        gate.opened.set()
        await reading
        assert signs == [1e9]
        assert pool.last_sign is None

    run(main())
