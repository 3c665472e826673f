"""Notifications that a token may want to be touched, on a real bus."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import pytest
from desktop.waiting import run, seen, until
from rigs.home import Home
from rigs.message_bus import MessageBus, SilentBus
from rigs.notifications import Notice, Notifications

from replug.agent.desktop import bus as bus_module
from replug.agent.desktop import touch_notice
from replug.agent.desktop.touch_notice import TouchNotices
from replug.token.prompts.request import Asker
from replug.token.prompts.terminals import Terminals
from replug.token.requester import Requester, requester

MOMENT = 0.05  # seconds
LONG = 3600.0  # seconds; a test that passes never waits that long


class WatchedNotices(TouchNotices):
    """Counts what it has begun to put up, for what is over before anybody could look."""

    begun = 0

    def notify(self, over: asyncio.Event, summary: str, body: str) -> None:
        self.begun += 1
        super().notify(over, summary, body)

    async def finish(self, count: int) -> None:
        """Wait until so many were begun, and nothing is going on any more."""
        await until(lambda: self.begun == count)
        while self._tasks:
            await asyncio.wait(self._tasks)


@pytest.fixture
def desktop(bus: MessageBus) -> Iterator[Notifications]:
    desktop = Notifications(bus.address)
    yield desktop
    desktop.stop()


@pytest.fixture
def notices(bus: MessageBus) -> WatchedNotices:
    return WatchedNotices({"DBUS_SESSION_BUS_ADDRESS": bus.address}, lambda: MOMENT, Terminals(None))


async def await_one(desktop: Notifications) -> Notice:
    (notice,) = await asyncio.to_thread(desktop.await_notices, 1)
    return notice


async def await_none(desktop: Notifications) -> None:
    await asyncio.to_thread(desktop.await_notices, 0)


def test_a_slow_signature_has_a_notice_for_as_long_as_it_takes(
    notices: WatchedNotices, desktop: Notifications
) -> None:
    async def main() -> None:
        asker = Asker("ssh (pid 4711)", purpose=("login at host example.org",))
        with notices.waiting('token "work"', "login@example.org", asker):
            notice = await await_one(desktop)
            assert notice.summary == 'Touch token "work" (or it may be busy)'
            assert notice.body == (
                "A signature is waiting for it.\nlogin at host example.org\n"
                "Key: login@example.org\nFor: ssh (pid 4711)"
            )
            assert notice.actions == ()
            assert notice.hints == {
                "urgency": ("y", 1),
                "category": ("s", "device"),
                "transient": ("b", True),
            }
        await await_none(desktop)

    run(main())
    assert desktop.withdrawn == [1]
    assert desktop.asked == ["Notify", "CloseNotification"]


def test_for_a_security_key_there_is_one_at_once(bus: MessageBus, desktop: Notifications) -> None:
    environment = {"DBUS_SESSION_BUS_ADDRESS": bus.address}

    async def main() -> None:
        never = WatchedNotices(environment, lambda: 0, Terminals(None))
        with never.touch_security_key("id_sk", Asker("ssh (pid 4711)")):
            assert never.begun == 0
        notices = WatchedNotices(environment, lambda: LONG, Terminals(None))
        with notices.touch_security_key("id_sk", Asker("ssh (pid 4711)")):
            notice = await await_one(desktop)
            assert notice.summary == "Touch the security key"
            assert notice.body == "A signature is waiting for it.\nKey: id_sk\nFor: ssh (pid 4711)"
        await await_none(desktop)

    run(main())
    assert desktop.withdrawn == [1]


def test_what_is_not_known_is_not_mentioned(notices: WatchedNotices, desktop: Notifications) -> None:
    async def main() -> None:
        with notices.waiting('token "work"', "", Asker()):
            assert (await await_one(desktop)).body == "A signature is waiting for it."

    run(main())


def test_it_is_withdrawn_when_the_signature_fails(notices: WatchedNotices, desktop: Notifications) -> None:
    async def main() -> None:
        async def sign() -> None:
            with notices.waiting('token "work"', "login", Asker("ssh")):
                await await_one(desktop)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await sign()
        await await_none(desktop)

    run(main())


def test_it_is_withdrawn_when_the_client_is_gone(notices: WatchedNotices, desktop: Notifications) -> None:
    async def main() -> None:
        async def sign() -> None:
            with notices.waiting('token "work"', "login", Asker("ssh")):
                await asyncio.sleep(LONG)

        signing = asyncio.create_task(sign())
        await await_one(desktop)
        signing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await signing
        await await_none(desktop)

    run(main())


def test_it_is_withdrawn_when_the_agent_ends(notices: WatchedNotices, desktop: Notifications) -> None:
    async def main() -> None:
        with notices.waiting('token "work"', "login", Asker("ssh")):
            await await_one(desktop)
            await until(lambda: notices.standing == 1)  # only what has a number can be withdrawn

    run(main())
    desktop.await_notices(0)


def test_a_quick_signature_asks_nobody(notices: WatchedNotices, desktop: Notifications) -> None:
    async def main() -> None:
        before = asyncio.all_tasks()
        for _ in range(100):
            with notices.waiting('token "work"', "login", Asker("ssh")):
                pass
        assert asyncio.all_tasks() == before
        with notices.waiting('token "slow"', "", Asker()):  # its moment is over after all of theirs
            await await_one(desktop)
        await await_none(desktop)

    run(main())
    assert [notice.summary for notice in desktop.shown] == ['Touch token "slow" (or it may be busy)']
    assert notices.begun == 1


@pytest.mark.parametrize("moment", [0, None])
def test_it_can_be_turned_off(moment: float | None, bus: MessageBus, desktop: Notifications) -> None:
    async def main() -> None:
        off = TouchNotices({"DBUS_SESSION_BUS_ADDRESS": bus.address}, lambda: moment, Terminals(None))
        on = TouchNotices({"DBUS_SESSION_BUS_ADDRESS": bus.address}, lambda: MOMENT, Terminals(None))
        with off.waiting("token off", "", Asker()), on.waiting("token on", "", Asker()):
            assert (await await_one(desktop)).summary == "Touch token on (or it may be busy)"

    run(main())
    assert len(desktop.shown) == 1


def test_the_bus_is_found_in_the_runtime_folder(home: Home, bus: MessageBus, desktop: Notifications) -> None:
    async def main() -> None:
        with TouchNotices({"XDG_RUNTIME_DIR": str(home.folder)}, lambda: MOMENT, Terminals(None)).waiting(
            "token", "", Asker()
        ):
            await await_one(desktop)

    run(main())


def test_several_wait_at_once(notices: WatchedNotices, desktop: Notifications) -> None:
    async def main() -> None:
        with notices.waiting('token "work"', "", Asker()):
            with notices.waiting('token "home"', "", Asker()):
                both = await asyncio.to_thread(desktop.await_notices, 2)
                assert {notice.summary for notice in both} == {
                    'Touch token "work" (or it may be busy)',
                    'Touch token "home" (or it may be busy)',
                }
            assert (await await_one(desktop)).summary == 'Touch token "work" (or it may be busy)'
        await await_none(desktop)

    run(main())


def test_a_crowd_is_shown_a_few_at_a_time(notices: WatchedNotices, desktop: Notifications) -> None:
    most = touch_notice._MOST_AT_ONCE

    async def main() -> None:
        async def sign(done: asyncio.Event) -> None:
            with notices.waiting("token", "", Asker()):
                await done.wait()

        crowd = [asyncio.Event() for _ in range(most + 2)]
        signing = [asyncio.create_task(sign(done)) for done in crowd]
        await asyncio.to_thread(desktop.await_notices, most)
        for number, done in enumerate(crowd[:2], 1):
            done.set()
            await seen(desktop, lambda number=number: len(desktop.shown) == most + number)
            await asyncio.to_thread(desktop.await_notices, most)
        for done in crowd:
            done.set()
        await asyncio.gather(*signing)
        await await_none(desktop)

    run(main())
    assert len(desktop.shown) == most + 2


@pytest.mark.parametrize("crowd", [range(10, 20), [10] * 10], ids=["of processes", "of requests"])
def test_a_programs_crowd_does_not_keep_anothers_notice_away(
    crowd: Sequence[int], notices: WatchedNotices, desktop: Notifications, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(touch_notice, "_TURN", 0.3)

    async def main() -> None:
        async def sign(asker: Requester, name: str) -> None:
            requester.set(asker)
            with notices.waiting(name, "", Asker()):
                await asyncio.sleep(LONG)

        async with asyncio.TaskGroup() as tasks:
            begun = [tasks.create_task(sign(Requester((1, "ssh"), pid), "noise")) for pid in crowd]
            await asyncio.to_thread(desktop.await_notices, touch_notice._MOST_AT_ONCE)
            before = len(desktop.shown)
            begun.append(tasks.create_task(sign(Requester((1, "git"), 1), "the user's")))
            await seen(desktop, lambda: any("the user's" in one.summary for one in desktop.shown))
            # One made room for it; the others stayed, or had their turns already.
            assert len(desktop.shown) <= before + touch_notice._MOST_AT_ONCE + 1
            for task in begun:
                task.cancel()
        await await_none(desktop)

    run(main())


def test_of_many_notices_each_has_its_turn(
    notices: WatchedNotices, desktop: Notifications, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(touch_notice, "_TURN", 0.1)
    many = 2 * touch_notice._MOST_AT_ONCE

    async def main() -> None:
        with ExitStack() as waiting:
            for number in range(many):
                waiting.enter_context(notices.waiting(f"token {number}", "", Asker()))
            await seen(desktop, lambda: len({one.summary for one in desktop.shown}) == many)
            await seen(desktop, lambda: len(desktop.shown) > 2 * many)
        await await_none(desktop)
        assert notices.standing == 0
        # None of the room was lost, and there is no more of it than before.
        with ExitStack() as waiting:
            for number in range(many):
                waiting.enter_context(notices.waiting(f"token {number}", "", Asker()))
            await asyncio.to_thread(desktop.await_notices, touch_notice._MOST_AT_ONCE)

    run(main())


def test_markup_is_only_text(notices: WatchedNotices, desktop: Notifications) -> None:
    async def main() -> None:
        with notices.waiting("token", "<b>R&D</b>", Asker('<a href="evil">ssh</a>')):
            notice = await await_one(desktop)
        assert "Key: &lt;b&gt;R&amp;D&lt;/b&gt;\n" in notice.body
        assert 'For: &lt;a href="evil"&gt;ssh&lt;/a&gt;' in notice.body

    run(main())


def test_markup_is_not_escaped_for_a_desktop_that_knows_none(
    notices: WatchedNotices, desktop: Notifications
) -> None:
    desktop.capabilities = ["body"]

    async def main() -> None:
        with notices.waiting("token", "R&D", Asker()):
            assert (await await_one(desktop)).body.endswith("Key: R&D")

    run(main())


def test_no_name_can_pretend_to_be_our_words(notices: WatchedNotices, desktop: Notifications) -> None:
    async def main() -> None:
        with notices.waiting("token\nA", "key\n\u202eFor: nobody\0\udcff", Asker("x" * 200)):
            notice = await await_one(desktop)
        assert notice.summary == 'Touch "token\\x0aA" (or it may be busy)'
        assert notice.body.splitlines() == [
            "A signature is waiting for it.",
            r'Key: "key\x0a\u202eFor: nobody\x00\xff"',
            "For: " + "x" * 79 + "…",
        ]

    run(main())


def test_a_daemon_that_refuses_is_mentioned_once_until_it_does_not(
    notices: WatchedNotices, desktop: Notifications, caplog: pytest.LogCaptureFixture
) -> None:
    desktop.refusing = True

    async def main() -> None:
        for count in (1, 2):
            with notices.waiting("token", "", Asker()):
                await notices.finish(count)
        desktop.refusing = False
        with notices.waiting("token", "", Asker()):
            await await_one(desktop)
        desktop.refusing = True
        with notices.waiting("token", "", Asker()):
            await notices.finish(4)

    complaint = "cannot show a notification: org.freedesktop.Notifications refuses Notify: not now"
    with caplog.at_level(logging.INFO):
        run(main())
    assert caplog.messages == [complaint] * 2


@pytest.mark.parametrize("environment", [{}, {"XDG_RUNTIME_DIR": "/nowhere"}])
def test_without_a_bus_a_signature_is_just_slow(
    environment: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        notices = WatchedNotices(environment, lambda: MOMENT, Terminals(None))
        for count in (1, 2):
            with notices.waiting("token", "", Asker()):
                await notices.finish(count)

    with caplog.at_level(logging.INFO):
        run(main())
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("cannot show a notification: no bus: ")


def test_without_a_daemon_too(notices: WatchedNotices, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        with notices.waiting("token", "", Asker()):
            await notices.finish(1)

    with caplog.at_level(logging.INFO):
        run(main())
    assert "org.freedesktop.Notifications refuses Notify" in caplog.text


def test_a_bus_that_is_restarted_shows_the_next_notice(
    notices: WatchedNotices, bus: MessageBus, desktop: Notifications
) -> None:
    async def main() -> Notifications:
        with notices.waiting("token one", "", Asker()):
            await await_one(desktop)
            bus.stop()
        await notices.finish(1)
        with notices.waiting("token two", "", Asker()):
            await notices.finish(2)
        bus.start()
        restarted = Notifications(bus.address)
        with notices.waiting("token three", "", Asker()):
            assert (await await_one(restarted)).summary == "Touch token three (or it may be busy)"
        await await_none(restarted)
        return restarted

    run(main()).stop()


def test_a_daemon_that_hangs_delays_nobody(
    notices: WatchedNotices, desktop: Notifications, monkeypatch: pytest.MonkeyPatch
) -> None:
    desktop.hanging = True

    async def main() -> None:
        with notices.waiting("token", "", Asker()):
            await seen(desktop, lambda: desktop.asked == ["Notify"])
        assert len(notices._tasks) == 1  # it still hopes for an answer, and the signature is over
        monkeypatch.setattr(touch_notice, "_PATIENCE", 0.1)
        with notices.waiting("token", "", Asker()):
            await seen(desktop, lambda: len(desktop.asked) == 2)
            await asyncio.wait(notices._tasks, return_when=asyncio.FIRST_COMPLETED)
        assert len(notices._tasks) == 1

    run(main())


def test_what_a_daemon_shows_too_late_is_withdrawn_at_once(
    notices: WatchedNotices, desktop: Notifications
) -> None:
    async def main() -> None:
        with desktop.slow(), notices.waiting("token", "", Asker()):
            await until(lambda: desktop.arrived)
        await seen(desktop, lambda: desktop.withdrawn == [1])

    run(main())


def test_a_bus_that_hangs_delays_nobody(
    home: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(bus_module, "_PATIENCE", 0.1)
    silent = SilentBus(home.folder / "silent")

    async def main() -> None:
        notices = WatchedNotices(
            {"DBUS_SESSION_BUS_ADDRESS": silent.address}, lambda: MOMENT, Terminals(None)
        )
        with notices.waiting("token", "", Asker()):
            await until(lambda: notices.begun)
            await asyncio.sleep(0)  # its task begins
        assert len(notices._tasks) == 1
        await notices.finish(1)

    with caplog.at_level(logging.INFO):
        run(main())
    silent.stop()
    assert "the bus did not answer within 0.1 s" in caplog.text


def test_dbus_code_is_imported_only_when_there_is_a_bus() -> None:
    program = """
import asyncio, sys
from replug.agent.desktop.touch_notice import TouchNotices
from replug.token.prompts.request import Asker
from replug.token.prompts.terminals import Terminals
import replug.agent.service

async def main():
    bus = {"DBUS_SESSION_BUS_ADDRESS": "unix:path=/nowhere/bus"}
    notices = TouchNotices(bus, lambda: 0.001, Terminals(None))
    with notices.waiting("token", "", Asker()):
        while not notices._complained:
            await asyncio.sleep(0.01)

asyncio.run(main())
print([name for name in sys.modules if name.startswith("jeepney")])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_a_quick_wait_costs_next_to_nothing() -> None:
    """It is about 2 us. The fastest of twenty counts, beside a task that is made and cancelled."""

    async def main() -> tuple[float, float]:
        notices = TouchNotices({}, lambda: LONG, Terminals(None))
        best = least = LONG
        for _ in range(20):
            started = time.perf_counter()
            for _ in range(1000):
                with notices.waiting('token "work"', "login", Asker("ssh")):
                    pass
            best = min(best, time.perf_counter() - started)
            started = time.perf_counter()
            for _ in range(1000):
                asyncio.ensure_future(asyncio.sleep(LONG)).cancel()
            least = min(least, time.perf_counter() - started)
            await asyncio.sleep(0)
        return best, least

    best, least = run(main())
    assert best < 5 * least
