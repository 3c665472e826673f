"""When modules are looked at: slowly, after an event at once and for a while, and never in the way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from typing import Any

import pytest
from doubles.virtual_time import run_in_no_time

from replug.token.errors import ModuleUnreachableError
from replug.token.modules.module import Pace
from replug.token.noticing.watch import Watcher

GLANCE = 1.05
AFTER_EVENT = [0, 0.25, 0.6, 1.15, 2.2, 3.75, 6.3]


class StandInModule:
    """Notes the times of the looks, on the loop's clock, and does at each what it is told to."""

    path = "/usr/lib/module.so"

    def __init__(self, *tokens: StandInToken) -> None:
        self.busy = False
        self.pace = Pace.USUAL
        self.used_at = float("-inf")
        self.uses_pcscd = False
        self.present_tokens: list[StandInToken] = []
        self.left: list[Mapping[str, bool]] = []
        self.left_elsewhere: list[StandInToken] = []
        self.glances: list[float] = []
        self.close_looks: list[float] = []
        self.cancelled = 0
        self.failure: Exception | None = None
        self.hangs = False
        self._arriving = list(tokens)

    @property
    def looks(self) -> list[float]:
        return sorted(self.glances + self.close_looks)

    def cards_changed(self, readers: Mapping[str, bool], *, arrived: bool) -> None:
        self.left.append(readers)

    def tokens_left_elsewhere(self, gone: list[StandInToken]) -> None:
        self.left_elsewhere += gone

    async def look(self, *, closely: bool) -> list[StandInToken]:
        (self.close_looks if closely else self.glances).append(now())
        if self.failure is not None:
            raise self.failure
        if self.hangs:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        arrived, self._arriving = self._arriving, []
        return arrived


class StandInToken:
    def __init__(self, failure: Exception | None = None) -> None:
        self.read_times: list[float] = []
        self.present = True
        self._failure = failure

    async def read(self) -> None:
        self.read_times.append(now())
        if self._failure is not None:
            raise self._failure


def now() -> float:
    return asyncio.get_running_loop().time()


def unreachable() -> ModuleUnreachableError:
    return ModuleUnreachableError("module /usr/lib/module.so failed twice")


@asynccontextmanager
async def watching(*modules: StandInModule) -> AsyncIterator[Watcher]:
    """A watcher that runs from now on; it has to be running still in the end."""
    listed: Any = list(modules)
    watcher = Watcher(lambda: listed)
    task = asyncio.create_task(watcher.run())
    await asyncio.sleep(0)
    yield watcher
    assert not task.done()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def test_without_events_modules_are_glanced_at_about_once_a_second() -> None:
    async def main() -> None:
        one, other = StandInModule(), StandInModule()
        async with watching(one, other):
            await asyncio.sleep(60)

        assert one.glances == pytest.approx([1 + GLANCE * n for n in range(57)])
        assert other.glances == one.glances
        assert one.close_looks == []

    run_in_no_time(main())


def test_a_module_that_misses_a_token_is_glanced_at_more_often() -> None:
    async def main() -> None:
        module = StandInModule()
        module.pace = Pace.QUICK
        async with watching(module):
            await asyncio.sleep(3)
        assert module.glances == pytest.approx([0.25 + 0.3 * n for n in range(10)])

    run_in_no_time(main())


def test_a_module_whose_tokens_stay_is_left_alone_for_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.clock_gettime", lambda _: now())

    async def main() -> None:
        fixed, cards = StandInModule(), StandInModule()
        fixed.pace = Pace.SELDOM
        async with watching(fixed, cards) as watcher:
            await asyncio.sleep(119)
            assert fixed.glances == pytest.approx([1, 61], abs=GLANCE)
            assert len(cards.glances) > 100
            # An event is a reason nevertheless.
            watcher.nudge()
            await asyncio.sleep(0.1)
            assert len(fixed.close_looks) == 1
            # And when it says that it is needed, that is found within a second.
            await asyncio.sleep(10)
            fixed.pace, before = Pace.USUAL, len(fixed.looks)
            await asyncio.sleep(3)
            assert len(fixed.looks) >= before + 2

    run_in_no_time(main())


def test_a_change_that_pcscd_reports_is_followed_by_few_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        module = StandInModule()
        async with watching(module) as watcher:
            watcher.cards_changed({"reader": False}, False)
            await asyncio.sleep(3)
            assert module.close_looks == pytest.approx([0, 0.35, 1.1])
            assert module.left == [{"reader": False}]

    run_in_no_time(main())


def test_a_token_that_one_module_sees_leave_is_reported_to_the_others() -> None:
    async def main() -> None:
        one, other, token = StandInModule(), StandInModule(), StandInToken()
        one.present_tokens = [token]
        async with watching(one, other):
            token.present = False
            await asyncio.sleep(2)
        assert set(other.left_elsewhere) == {token}
        assert one.left_elsewhere == []

    run_in_no_time(main())


def test_a_module_is_watched_while_it_is_in_use() -> None:
    async def main() -> None:
        module, used = StandInModule(), []
        task = asyncio.create_task(Watcher(lambda: used).run())
        await asyncio.sleep(5)
        assert module.looks == []

        used.append(module)
        await asyncio.sleep(5)
        seen = len(module.looks)
        assert seen > 0

        used.clear()
        await asyncio.sleep(5)
        assert len(module.looks) == seen
        task.cancel()

    run_in_no_time(main())


def test_after_an_event_a_module_is_looked_at_at_once_and_again_for_some_seconds() -> None:
    async def main() -> None:
        module = StandInModule()
        async with watching(module) as watcher:
            watcher.nudge()
            await asyncio.sleep(10)

        assert module.close_looks == pytest.approx(AFTER_EVENT)
        assert module.glances == pytest.approx([6.3 + GLANCE * n for n in (1, 2, 3)])

    run_in_no_time(main())


def test_an_event_is_not_held_up_by_a_glance_just_before_it() -> None:
    async def main() -> None:
        module = StandInModule()
        async with watching(module) as watcher:
            await asyncio.sleep(1.001)
            watcher.nudge()
            await asyncio.sleep(0.1)

        assert module.glances == pytest.approx([1])
        assert module.close_looks == pytest.approx([1.05])

    run_in_no_time(main())


def test_many_events_at_a_time_are_one_look_at_once_and_one_for_all_that_came_after_it() -> None:
    async def main() -> None:
        module = StandInModule()
        async with watching(module) as watcher:
            for _ in range(1000):
                watcher.nudge()
                await asyncio.sleep(0.04 / 1000)
            await asyncio.sleep(10)

        assert module.close_looks == pytest.approx([0, *(0.05 + time for time in AFTER_EVENT)])

    run_in_no_time(main())


def test_an_event_begins_the_looks_anew() -> None:
    async def main() -> None:
        module = StandInModule()
        async with watching(module) as watcher:
            watcher.nudge()
            await asyncio.sleep(2.5)
            watcher.nudge()
            await asyncio.sleep(10)

        assert module.close_looks == pytest.approx([*AFTER_EVENT[:5], *(2.5 + time for time in AFTER_EVENT)])

    run_in_no_time(main())


def test_a_storm_of_events_is_a_bounded_number_of_looks() -> None:
    async def main() -> None:
        module = StandInModule()
        async with watching(module) as watcher:
            await storm(watcher, seconds=60)

        assert 60 / 0.05 * 0.8 <= len(module.looks) <= 60 / 0.05

    run_in_no_time(main())


def test_a_module_that_cannot_be_asked_is_asked_less_and_less_often() -> None:
    async def main() -> None:
        module = StandInModule()
        module.failure = unreachable()
        async with watching(module):
            await asyncio.sleep(200)

        assert pauses(module.looks) == pytest.approx([1, 2, 4, 8, 16, 30, 30, 30, 30, 30], abs=GLANCE)

    run_in_no_time(main())


def test_a_module_that_can_be_asked_again_is_asked_as_often_as_before() -> None:
    async def main() -> None:
        module = StandInModule()
        module.failure = unreachable()
        async with watching(module):
            await asyncio.sleep(60)
            module.failure = None
            module.glances.clear()
            await asyncio.sleep(60)

            first, count = module.glances[0], len(module.glances)
            assert first < 60 + 30 + GLANCE
            assert count >= (120 - first) / GLANCE - 1

            # And if it fails again, that begins from the start too.
            module.failure = unreachable()
            await asyncio.sleep(20)
            assert pauses(module.glances[count:]) == pytest.approx([1, 2, 4, 8], abs=GLANCE)

    run_in_no_time(main())


def test_one_module_that_cannot_be_asked_is_no_reason_to_ask_others_less_often() -> None:
    async def main() -> None:
        broken, healthy = StandInModule(), StandInModule()
        broken.failure = unreachable()
        async with watching(broken, healthy):
            await asyncio.sleep(60)

        assert len(broken.looks) <= 6
        assert len(healthy.looks) == 57

    run_in_no_time(main())


def test_an_event_ends_the_rest_of_a_module_that_could_not_be_asked() -> None:
    async def main() -> None:
        module = StandInModule()
        module.failure = unreachable()
        async with watching(module) as watcher:
            await asyncio.sleep(50)  # it was asked about 32 s after the start, and would be 30 s later
            module.failure = None
            watcher.nudge()
            await asyncio.sleep(10)

        assert module.close_looks == pytest.approx([50 + time for time in AFTER_EVENT])

    run_in_no_time(main())


def test_a_storm_does_not_make_a_broken_module_be_asked_all_the_time() -> None:
    """Each attempt starts two processes."""

    async def main() -> None:
        module = StandInModule()
        module.failure = unreachable()
        async with watching(module) as watcher:
            await storm(watcher, seconds=60)

        assert 60 / (1 + 0.06) - 1 <= len(module.looks) <= 60

    run_in_no_time(main())


def test_a_busy_module_is_left_alone_until_it_is_not_and_not_waited_for() -> None:
    async def main() -> None:
        busy, idle = StandInModule(), StandInModule()
        busy.busy = True
        async with watching(busy, idle) as watcher:
            watcher.nudge()
            await asyncio.sleep(2)
            busy.busy = False
            await asyncio.sleep(3)

        assert busy.close_looks == pytest.approx(AFTER_EVENT[4:6])
        assert idle.close_looks == pytest.approx(AFTER_EVENT[:6])

    run_in_no_time(main())


def test_the_module_that_a_client_used_last_is_looked_at_first() -> None:
    """Of two that read the same card the other waits, and a signature would wait for it."""

    async def main() -> None:
        order: list[str] = []

        class Noted(StandInModule):
            def __init__(self, name: str, used_at: float) -> None:
                super().__init__()
                self.name, self.used_at = name, used_at

            async def look(self, *, closely: bool) -> list[StandInToken]:
                order.append(self.name)
                return await super().look(closely=closely)

        async with watching(Noted("never", float("-inf")), Noted("early", 1), Noted("late", 2)) as watcher:
            watcher.nudge()
            await asyncio.sleep(0.1)
        assert order == ["late", "early", "never"]

    run_in_no_time(main())


def test_a_module_leaves_a_card_that_another_misses_to_that_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose look comes first would read it, though nobody wants it there."""
    monkeypatch.setattr("time.clock_gettime", lambda _: now())

    async def main() -> None:
        used, other, without_cards = StandInModule(), StandInModule(), StandInModule()
        used.pace, used.used_at = Pace.QUICK, 1
        used.uses_pcscd = other.uses_pcscd = True
        async with watching(used, other, without_cards) as watcher:
            await asyncio.sleep(30)
            assert len(used.glances) > 90
            assert len(without_cards.glances) > 90
            assert pauses(other.glances)[1:] == pytest.approx([3.0] * 8, abs=0.31)
            # Both are told of a card, and this one has its turn after the other.
            other.glances.clear()
            watcher.cards_changed({}, True)
            await asyncio.sleep(0.1)
            assert len(other.close_looks) == 1

    run_in_no_time(main())


def test_a_look_that_takes_its_time_is_the_only_one_at_that_module_and_delays_no_other() -> None:
    async def main() -> None:
        hung, healthy = StandInModule(), StandInModule()
        hung.hangs = True
        async with watching(hung, healthy) as watcher:
            watcher.nudge()
            await asyncio.sleep(60)

        assert hung.looks == [0]
        assert healthy.close_looks == pytest.approx(AFTER_EVENT)

    run_in_no_time(main())


def test_the_end_of_the_watching_ends_looks_that_are_under_way() -> None:
    async def main() -> None:
        hung = StandInModule()
        hung.hangs = True
        async with watching(hung):
            await asyncio.sleep(2)
        await asyncio.sleep(0)

        assert hung.cancelled == 1

    run_in_no_time(main())


def test_a_token_that_arrived_is_read_at_once() -> None:
    async def main() -> None:
        token = StandInToken()
        async with watching(StandInModule(token)) as watcher:
            watcher.nudge()
            await asyncio.sleep(10)

        assert token.read_times == [0]

    run_in_no_time(main())


def test_a_token_that_cannot_be_read_keeps_no_other_from_being_read() -> None:
    async def main() -> None:
        unreadable, token = StandInToken(unreachable()), StandInToken()
        module = StandInModule(unreadable, token)
        async with watching(module) as watcher:
            watcher.nudge()
            await asyncio.sleep(0.9)

        assert (unreadable.read_times, token.read_times) == ([0], [0])
        assert module.looks == [0], "a look at a module with such a token is a failed one"

    run_in_no_time(main())


@pytest.mark.parametrize("while_reading", [False, True])
def test_an_error_nobody_foresaw_is_logged_and_the_watching_goes_on(
    while_reading: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        surprise = ZeroDivisionError("surprise")
        module = StandInModule(*([StandInToken(surprise)] if while_reading else []))
        if not while_reading:
            module.failure = surprise
        async with watching(module):
            await asyncio.sleep(1.5)
            [record] = [record for record in caplog.records if record.name == "replug.token.noticing.watch"]
            assert record.levelno == logging.ERROR
            assert record.exc_info is not None
            assert record.exc_info[1] is surprise

            module.failure = None
            await asyncio.sleep(5)
            assert len(module.looks) > 3

    run_in_no_time(main())


def test_what_a_module_says_of_itself_is_logged_for_those_who_want_details(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        module = StandInModule()
        module.failure = unreachable()
        async with watching(module):
            await asyncio.sleep(1.5)

    with caplog.at_level(logging.DEBUG, "replug"):
        run_in_no_time(main())

    assert [
        (record.levelno, record.message) for record in caplog.records if record.name.startswith("replug")
    ] == [(logging.DEBUG, "slot scan failed")]


async def storm(watcher: Watcher, *, seconds: float) -> None:
    """An event every 10 ms."""
    for _ in range(round(seconds / 0.01)):
        watcher.nudge()
        await asyncio.sleep(0.01)


def pauses(times: list[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(times)]
