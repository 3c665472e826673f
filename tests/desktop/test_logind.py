"""Suspend and screen lock, told by a logind that is not the machine's, on a real bus."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import pytest
from desktop.waiting import run, until
from rigs.home import Home
from rigs.logind import MANAGER, SESSION, Logind
from rigs.message_bus import BusService, MessageBus, SilentBus

from replug.agent.desktop import bus as bus_module
from replug.agent.desktop import logind as logind_module
from replug.agent.desktop.logind import SessionEvents


@pytest.fixture
def logind(bus: MessageBus) -> Iterator[Logind]:
    logind = Logind(bus.address)
    yield logind
    logind.stop()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logind_module, "_FIRST_PAUSE", 0.05)


class Listener:
    """Remembers what it was told; `logind` lets it see at each time how many locks are held."""

    def __init__(self, logind: Logind | None = None) -> None:
        self.events: list[str] = []
        self.held: list[int] = []
        self._logind = logind

    def _hear(self, event: str) -> None:
        self.events.append(event)
        if self._logind is not None:
            self.held.append(self._logind.held)

    def suspend(self) -> None:
        self._hear("suspend")

    def screen_lock(self) -> None:
        self._hear("screen lock")


@asynccontextmanager
async def listening(bus: MessageBus | SilentBus, listener: Listener) -> AsyncIterator[asyncio.Task[None]]:
    """`listener` hears of events, once they are listened for."""
    events = session_events(bus, listener)
    task = asyncio.create_task(events.run())
    try:
        await until(lambda: events._established or task.done())
        yield task
        assert not task.done()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def session_events(bus: MessageBus | SilentBus, listener: Listener) -> SessionEvents:
    return SessionEvents(
        {"DBUS_SYSTEM_BUS_ADDRESS": bus.address},
        on_suspend=listener.suspend,
        on_screen_lock=listener.screen_lock,
    )


def test_sleep_waits_until_the_pins_are_forgotten(bus: MessageBus, logind: Logind) -> None:
    listener = Listener(logind)

    async def main() -> None:
        async with listening(bus, listener):
            assert logind.held == 1
            logind.prepare_for_sleep(True)
            await until(lambda: logind.held == 0)

    run(main())
    assert (listener.events, listener.held) == (["suspend"], [1])
    assert [inhibitor.arguments for inhibitor in logind.inhibitors] == [
        ("sleep", "replug", "PINs are forgotten before the machine sleeps", "delay")
    ]


def test_after_sleep_a_new_lock_is_taken(bus: MessageBus, logind: Logind) -> None:
    listener = Listener(logind)

    async def main() -> None:
        async with listening(bus, listener):
            for night in (1, 2):
                logind.prepare_for_sleep(True)
                await until(lambda: logind.held == 0)
                logind.prepare_for_sleep(False)
                await until(lambda night=night: len(logind.inhibitors) == night + 1)
                await until(lambda: logind.held == 1)
        # One that is under way just then is closed a moment later, by another process.
        await until(lambda: logind.held == 0)

    run(main())
    assert listener.events == ["suspend"] * 2
    assert listener.held == [1] * 2


def test_a_lock_that_comes_too_late_is_let_go(bus: MessageBus, logind: Logind) -> None:
    listener = Listener()

    async def main() -> None:
        async with listening(bus, listener):
            logind.prepare_for_sleep(True)
            await until(lambda: logind.held == 0)
            before = logind.arrived
            with logind.slow():
                logind.prepare_for_sleep(False)
                await until(lambda: logind.arrived == before + 1)
                logind.prepare_for_sleep(True)
                await until(lambda: listener.events == ["suspend", "suspend"])
                logind.about_to_sleep = False  # it had decided before
            await until(lambda: len(logind.inhibitors) == 2)
            await until(lambda: logind.held == 0)

    run(main())


def test_a_callback_that_fails_keeps_nobody_awake(
    bus: MessageBus, logind: Logind, caplog: pytest.LogCaptureFixture
) -> None:
    listener = Listener()

    def fail() -> None:
        raise ZeroDivisionError

    listener.suspend = fail

    async def main() -> None:
        async with listening(bus, listener):
            logind.prepare_for_sleep(True)
            await until(lambda: logind.held == 0)
            logind.tell(logind.mine, "Lock")
            await until(lambda: listener.events == ["screen lock"])

    run(main())
    assert "handler for suspend failed" in caplog.text


def test_no_worker_inherits_the_lock(bus: MessageBus, logind: Logind) -> None:
    """A copy of it in another process would keep the machine awake."""

    async def main() -> None:
        async with listening(bus, Listener()):
            child = subprocess.Popen(
                [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False
            )
            logind.prepare_for_sleep(True)
            await until(lambda: logind.held == 0)
            child.communicate(b"\n")

    run(main())


def test_without_a_lock_it_listens_all_the_same(
    bus: MessageBus, logind: Logind, caplog: pytest.LogCaptureFixture
) -> None:
    logind.refusing_locks = True
    listener = Listener()

    async def main() -> None:
        async with listening(bus, listener):
            logind.prepare_for_sleep(True)
            await until(lambda: listener.events == ["suspend"])

    run(main())
    assert "cannot delay sleep until PINs are forgotten" in caplog.text
    assert "Access denied" in caplog.text


def test_sleep_that_began_before_is_caught_up_with(bus: MessageBus, logind: Logind) -> None:
    logind.about_to_sleep = True
    listener = Listener()

    async def main() -> None:
        async with listening(bus, listener):
            assert listener.events == ["suspend"]
            logind.prepare_for_sleep(False)
            await until(lambda: logind.held == 1)

    run(main())
    assert listener.events == ["suspend"]


def test_the_screen_is_that_of_any_session_of_ours(bus: MessageBus, logind: Logind) -> None:
    listener = Listener()

    async def main() -> None:
        async with listening(bus, listener):
            for count, session in enumerate((logind.mine, logind.another_of_mine), 1):
                logind.tell(session, "Lock")
                await until(lambda count=count: len(listener.events) == count)
            logind.hint(logind.mine, True)  # what GNOME does, without a Lock
            await until(lambda: len(listener.events) == 3)

    run(main())
    assert listener.events == ["screen lock"] * 3


def test_other_signals_are_no_lock(bus: MessageBus, logind: Logind) -> None:
    listener = Listener()

    async def main() -> None:
        async with listening(bus, listener):
            logind.tell(logind.mine, "Unlock")
            logind.hint(logind.mine, False)
            logind.tell(logind.others, "Lock")
            logind.hint(logind.others, True)
            await until(lambda: logind.asked.count("User") == 2)
            logind.prepare_for_sleep(True)  # comes after them
            await until(lambda: listener.events)

    run(main())
    assert listener.events == ["suspend"]


def test_a_session_that_is_gone_counts(bus: MessageBus, logind: Logind) -> None:
    """Whose it was cannot be told any more, and to ask for a PIN once too often does no harm."""
    listener = Listener()

    async def main() -> None:
        async with listening(bus, listener):
            del logind.sessions[logind.mine]
            logind.tell(logind.mine, "Lock")
            await until(lambda: listener.events)

    run(main())
    assert listener.events == ["screen lock"]


def test_a_screen_that_was_locked_before_is_noticed(bus: MessageBus, logind: Logind) -> None:
    logind.sessions[logind.others].locked = True
    listener = Listener()

    async def main() -> None:
        async with listening(bus, listener):
            assert listener.events == []
        logind.sessions[logind.mine].locked = True
        async with listening(bus, listener):
            assert listener.events == ["screen lock"]

    run(main())


class Impostor(BusService):
    """Another program on the same bus."""

    name = "org.example.Impostor"


def test_nobody_else_speaks_for_logind(bus: MessageBus, logind: Logind) -> None:
    listener = Listener()
    impostor = Impostor(bus.address)
    everybody = [f":1.{number}" for number in range(10)]

    async def main() -> None:
        async with listening(bus, listener):
            for name in everybody:
                impostor.emit_to(name, logind.mine, SESSION, "Lock", "")
                impostor.emit_to(
                    name, MANAGER, "org.freedesktop.login1.Manager", "PrepareForSleep", "b", True
                )
                impostor.emit_to(
                    name,
                    "/org/freedesktop/DBus",
                    "org.freedesktop.DBus",
                    "NameOwnerChanged",
                    "sss",
                    Logind.name,
                    ":1.1",
                    "",
                )
                impostor.emit_to(name, logind.mine, SESSION, "Lock", "s", "x" * 3_000_000)
            impostor.emit("/", "org.example.Impostor", "Done", "")
            await asyncio.to_thread(impostor.settle)
            logind.tell(logind.mine, "Lock")
            await until(lambda: listener.events)
            assert listener.events == ["screen lock"]
            assert logind.held == 1
            assert len(logind.inhibitors) == 1

    run(main())
    impostor.stop()


def test_a_logind_that_is_restarted_is_followed_again(
    bus: MessageBus, caplog: pytest.LogCaptureFixture
) -> None:
    logind = Logind(bus.address)
    listener = Listener()

    async def main() -> None:
        async with listening(bus, listener):
            logind.stop()
            await until(lambda: "cannot watch for screen lock" in caplog.text)
            again = Logind(bus.address)
            await until(lambda: again.held == 1)
            await until(lambda: "LockedHint" in again.asked)
            again.prepare_for_sleep(True)
            await until(lambda: listener.events == ["suspend"])
            again.stop()

    with caplog.at_level(logging.INFO):
        run(main())


def test_a_bus_that_is_restarted_is_healed(
    bus: MessageBus, logind: Logind, caplog: pytest.LogCaptureFixture
) -> None:
    listener = Listener()

    async def main() -> Logind:
        async with listening(bus, listener):
            bus.stop()
            await until(lambda: logind.held == 0)
            await until(lambda: "cannot watch for screen lock" in caplog.text)
            bus.start()
            again = Logind(bus.address)
            again.sessions[again.mine].locked = True  # meanwhile
            await until(lambda: listener.events == ["screen lock"])
            again.prepare_for_sleep(True)
            await until(lambda: listener.events == ["screen lock", "suspend"])
            await until(lambda: again.held == 0)
        return again

    with caplog.at_level(logging.INFO):
        run(main()).stop()
    complaints = [line for line in caplog.messages if line.startswith("cannot watch")]
    assert len(complaints) == 1


@pytest.mark.parametrize("there_is_a_bus", [True, False], ids=["no logind", "no bus"])
def test_it_says_once_that_there_is_nobody_to_listen_to(
    there_is_a_bus: bool, home: Home, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = MessageBus(home.folder)
    if not there_is_a_bus:
        bus.stop()
    attempts = []
    listen = SessionEvents._listen

    async def counted(self: SessionEvents) -> None:
        attempts.append(1)
        await listen(self)

    monkeypatch.setattr(SessionEvents, "_listen", counted)

    async def main() -> None:
        events = session_events(bus, Listener())
        task = asyncio.create_task(events.run())
        await until(lambda: len(attempts) == 4)
        assert not task.done()
        task.cancel()

    run(main())
    if there_is_a_bus:
        bus.stop()
    (line,) = caplog.messages
    assert line.startswith("cannot watch for screen lock and suspend; PINs will be kept on those events: ")
    assert line.endswith("no such name" if there_is_a_bus else "No such file or directory")


def test_a_bus_and_a_logind_that_hang_end_nothing(
    home: Home,
    bus: MessageBus,
    logind: Logind,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(bus_module, "_PATIENCE", 0.1)
    silent = SilentBus(home.folder / "silent")
    listener = Listener()

    async def main() -> None:
        events = session_events(silent, listener)
        task = asyncio.create_task(events.run())
        await until(lambda: "the bus did not answer within 0.1 s" in caplog.text)
        assert not task.done()
        task.cancel()

        async with listening(bus, listener):
            with logind.slow():
                logind.tell(logind.others, "Lock")
                await until(lambda: logind.arrived > len(logind.asked))
                logind.prepare_for_sleep(True)
                await until(lambda: logind.held == 0)  # it does not wait behind the lookup
                assert listener.events == ["suspend"]

    run(main())
    silent.stop()


def test_dbus_code_is_imported_only_when_there_is_a_bus() -> None:
    program = """
import asyncio, sys
import replug.agent.service
from replug.agent.desktop.logind import SessionEvents

async def main():
    environment = {"DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/nowhere/bus"}
    events = SessionEvents(environment, on_suspend=print, on_screen_lock=print)
    task = asyncio.create_task(events.run())
    while not events._complained:
        await asyncio.sleep(0.01)
    task.cancel()

asyncio.run(main())
print([name for name in sys.modules if name.startswith("jeepney")])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr
