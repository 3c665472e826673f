"""Where buses are, and what a connection makes of a bus, its services and their messages."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from desktop.waiting import run, until
from jeepney import DBusAddress, HeaderFields, new_signal
from jeepney.bus_messages import message_bus
from jeepney.fds import FileDescriptor
from jeepney.io.blocking import open_dbus_connection
from jeepney.low_level import Array
from rigs.home import Home
from rigs.lingering import lingering
from rigs.logind import Logind
from rigs.message_bus import BusService, MessageBus, RefusedError

from replug.agent.desktop import bus as bus_module
from replug.agent.desktop.bus import Bus, open_bus, session_bus, system_bus
from replug.agent.desktop.bus_connection import BusConnection
from replug.agent.desktop.bus_names import BusError, Remote, Signal
from replug.token.offload import Share

ECHO = Remote("org.example.Echo", "/org/example/Echo", "org.example.Echo")


def bus_at(path: Path) -> Bus:
    return Bus(Share.SESSION_BUS, (os.fsencode(path),))


class Echo(BusService):
    """Returns what it is sent, and refuses or ignores what it is told to."""

    name = ECHO.name

    def answer(self, path, interface, method, arguments):
        match method:
            case "Echo":
                return "s", arguments
            case "Ignore":
                return None
        raise RefusedError(f"no method {method}")


@pytest.fixture
def echo(bus: MessageBus) -> Iterator[Echo]:
    echo = Echo(bus.address)
    yield echo
    echo.stop()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"DBUS_SESSION_BUS_ADDRESS": "unix:path=/run/user/1000/bus"}, [b"/run/user/1000/bus"]),
        (
            {"DBUS_SESSION_BUS_ADDRESS": "unix:path=/a,guid=12", "XDG_RUNTIME_DIR": "/run/user/1000"},
            [b"/a"],
        ),
        ({"DBUS_SESSION_BUS_ADDRESS": "unix:abstract=/tmp/dbus-x1,guid=12"}, [b"\0/tmp/dbus-x1"]),
        ({"DBUS_SESSION_BUS_ADDRESS": "unix:path=/a%20b%c3%bc%2C"}, [b"/a b\xc3\xbc,"]),
        ({"DBUS_SESSION_BUS_ADDRESS": "tcp:host=h,port=1;unix:path=/a;unix:path=/b"}, [b"/a", b"/b"]),
        ({"DBUS_SESSION_BUS_ADDRESS": "nonsense"}, []),
        ({"DBUS_SESSION_BUS_ADDRESS": "autolaunch:"}, []),
        ({"DBUS_SESSION_BUS_ADDRESS": "", "XDG_RUNTIME_DIR": "/run/user/1000"}, [b"/run/user/1000/bus"]),
        ({}, []),
    ],
)
def test_the_sessions_bus(environment: dict[str, str], expected: list[bytes]) -> None:
    assert session_bus(environment) == Bus(Share.SESSION_BUS, tuple(expected))


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, [b"/run/dbus/system_bus_socket"]),
        ({"DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/a"}, [b"/a"]),
    ],
)
def test_the_systems_bus(environment: dict[str, str], expected: list[bytes]) -> None:
    assert system_bus(environment) == Bus(Share.SYSTEM_BUS, tuple(expected))


def test_calls_overlap(bus: MessageBus, echo: Echo) -> None:
    async def main() -> None:
        async with open_bus(Bus(Share.SESSION_BUS, (b"/nowhere", os.fsencode(bus.socket)))) as connection:
            texts = [f"text {number}" for number in range(50)]
            answers = await asyncio.gather(*[connection.call(ECHO, "Echo", "s", text) for text in texts])
            assert answers == [(text,) for text in texts]

    run(main())


def test_what_a_service_does_not_do_is_an_error(bus: MessageBus, echo: Echo) -> None:
    nobody = Remote("org.example.Nobody", "/", "org.example.Nobody")

    async def main() -> None:
        async with open_bus(bus_at(bus.socket)) as connection:
            with pytest.raises(BusError, match=r"^org\.example\.Echo refuses Sing: no method Sing$"):
                await connection.call(ECHO, "Sing")
            with pytest.raises(BusError, match=r"^org\.example\.Echo did not answer Ignore within 0\.05 s$"):
                await connection.call(ECHO, "Ignore", patience=0.05)
            with pytest.raises(BusError, match=r"^org\.example\.Nobody refuses Sing: "):
                await connection.call(nobody, "Sing")
            assert await connection.call(ECHO, "Echo", "s", "still here") == ("still here",)

    run(main())


def test_calls_that_wait_end_with_the_bus(bus: MessageBus, echo: Echo) -> None:
    async def main() -> None:
        async with open_bus(bus_at(bus.socket)) as connection:
            waiting = asyncio.create_task(connection.call(ECHO, "Ignore", patience=3600))
            await until(lambda: echo.arrived)
            bus.stop()
            with pytest.raises(BusError):
                await waiting
            with pytest.raises(BusError):
                await connection.lost
            with pytest.raises(BusError, match="is lost"):
                await connection.call(ECHO, "Echo", "s", "")

    run(main())


def test_signals_that_are_too_long_are_skipped(bus: MessageBus, echo: Echo) -> None:
    heard: list[Signal] = []

    def hear(signal: Signal) -> None:
        if signal.member == "Said":
            heard.append(signal)

    async def main() -> None:
        async with open_bus(bus_at(bus.socket), hear) as connection:
            await connection.owner(ECHO.name)
            await connection.subscribe(interface=ECHO.interface)
            for text in ("one", "x" * 3_000_000, "two", "y" * 2_000_000, "z" * 30_000):
                echo.emit(ECHO.path, ECHO.interface, "Said", "s", text)
            await until(lambda: len(heard) == 3)

    run(main())
    assert [signal.arguments[0][:3] for signal in heard] == ["one", "two", "zzz"]
    assert {(signal.path, signal.interface, signal.member) for signal in heard} == {
        (ECHO.path, ECHO.interface, "Said")
    }


class Stranger:
    """Another program on the bus, which may be another user's; use it before the agent is there."""

    def __init__(self, bus: MessageBus) -> None:
        self._connection = open_dbus_connection(bus.address, enable_fds=True)
        self._before = self.names()

    def names(self) -> set[str]:
        """Who is on the bus; what was sent before has been passed on."""
        reply = self._connection.send_and_get_reply(message_bus.ListNames(), timeout=10)
        return {str(name) for name in reply.body[0]}

    def signal(self, signature: str, *body: object) -> bytes:
        """A signal to the agent alone, which everybody may send."""
        signal = new_signal(DBusAddress("/any", interface="any.body"), "Any", signature, body)
        [signal.header.fields[HeaderFields.destination]] = self.names() - self._before
        return signal.serialise(100)

    def send_descriptor(self, descriptor: int) -> None:
        """With a signal to the agent alone."""
        [to] = self.names() - self._before
        signal = new_signal(DBusAddress("/any", interface="any.body"), "Any", "h", (descriptor,))
        signal.header.fields[HeaderFields.destination] = to
        self._connection.send(signal)
        self.names()

    def send(self, message: bytes) -> None:
        self._connection.sock.sendall(message)
        self.names()

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def stranger(bus: MessageBus, echo: Echo) -> Iterator[Stranger]:
    stranger = Stranger(bus)
    yield stranger
    stranger.close()


def test_strangers_do_not_end_the_connection(bus: MessageBus, stranger: Stranger, echo: Echo) -> None:
    heard: list[Signal] = []

    async def main() -> None:
        async with open_bus(bus_at(bus.socket), heard.append) as connection:
            await connection.owner(ECHO.name)
            await connection.subscribe(interface=ECHO.interface)
            # A descriptor that does not come with it.
            stranger.send(stranger.signal("u", 7).replace(b"\x01u\0", b"\x01h\0"))
            echo.emit(ECHO.path, ECHO.interface, "Said", "s", "still here")
            await until(lambda: "Said" in {one.member for one in heard} or connection.lost.done())
            assert not connection.lost.done()

    run(main())
    assert "any.body" not in {one.interface for one in heard}


def test_what_strangers_say_is_not_decoded(
    bus: MessageBus, stranger: Stranger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a second of the event loop for each megabyte."""
    decoded: list[int] = []
    parse_array = Array.parse_data

    def parse(self: Array, buf: bytes, pos: int, endianness: object, fds: Sequence[object] = ()) -> object:
        decoded.append(int.from_bytes(buf[pos : pos + 4], "little"))
        return parse_array(self, buf, pos, endianness, fds=fds)

    async def main() -> None:
        async with open_bus(bus_at(bus.socket), lambda _: None) as connection:
            stranger.send(stranger.signal("as", ["x"] * 3000))
            monkeypatch.setattr(Array, "parse_data", parse)
            await connection.owner(ECHO.name)  # what came before has been read
            assert max(decoded) < 10_000

    run(main())


def test_a_strangers_descriptor_keeps_nobody_waiting(bus: MessageBus, stranger: Stranger) -> None:
    """The last to close a socket waits for as long as it is said to linger."""

    async def main() -> None:
        async with open_bus(bus_at(bus.socket), lambda _: None, takes_descriptors=True) as connection:
            with lingering() as one:
                stranger.send_descriptor(one.fileno())
                one.close()
                begun = time.monotonic()
                await connection.owner(ECHO.name)
                assert time.monotonic() - begun < 2

    run(main())


class Passing(BusService):
    """Its answer is a descriptor."""

    name = ECHO.name
    descriptor = -1

    def answer(self, path, interface, method, arguments):
        return "h", (FileDescriptor(self.descriptor),)


def test_an_answer_with_a_descriptor_keeps_nobody_waiting(bus: MessageBus) -> None:
    """Any program may be the one that shows notifications."""
    passing = Passing(bus.address)

    async def main() -> None:
        async with open_bus(bus_at(bus.socket)) as connection:
            with lingering() as one:
                passing.descriptor = one.detach()
                answer: object = None
                with suppress(BusError):
                    answer = await connection.call(ECHO, "Echo", patience=0.5)
                await asyncio.sleep(0.2)  # the service has closed its own
                begun = time.monotonic()
                del answer
                await asyncio.sleep(0)
                assert time.monotonic() - begun < 2

    run(main())
    passing.stop()


def test_a_descriptor_that_nobody_takes_is_closed(bus: MessageBus) -> None:
    logind = Logind(bus.address)
    manager = Remote(Logind.name, "/org/freedesktop/login1", "org.freedesktop.login1.Manager")

    async def main() -> None:
        async with open_bus(bus_at(bus.socket), takes_descriptors=True) as connection:
            with logind.slow(), pytest.raises(BusError, match="did not answer"):
                await connection.call(manager, "Inhibit", "ssss", "", "", "", "", patience=0.05)
            await until(lambda: logind.inhibitors)
            await until(lambda: not logind.inhibitors[0].held)

    run(main())
    logind.stop()


def hello_from(answers: list[bytes], folder: Path) -> str:
    """How it ends with a bus that says `answers`, one for each thing it is told."""
    path = folder / "odd"

    async def main() -> str:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for answer in answers:
                await reader.read(1024)
                writer.write(answer)
            await reader.read(1024)
            writer.close()

        async with await asyncio.start_unix_server(serve, path):
            with pytest.raises(BusError) as raised:
                async with open_bus(bus_at(path)):
                    pass
        return str(raised.value)

    return run(main())


@pytest.mark.parametrize(
    "answers",
    [
        [b""],
        [b"REJECTED EXTERNAL\r\n"],
        [b"OK 1234\r\n", b"ERROR\r\n"],
        [b"x" * 10_000],
        [b"OK 1234\r\n", b"AGREE_UNIX_FD\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n"],
        [b"OK 1234\r\n", b"AGREE_UNIX_FD\r\n", b"l\3\1\1" + b"\xff" * 12],
        [b"OK 1234\r\n", b"AGREE_UNIX_FD\r\n", b"l\2\1\1" + bytes(8) + b"\7\0\0\0" + b"\xff" * 8],
    ],
)
def test_what_is_no_bus_is_an_error(
    answers: list[bytes], home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus_module, "_PATIENCE", 0.5)
    assert hello_from(answers, home.folder)


def test_a_bus_that_does_not_read_is_lost() -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        connection = BusConnection(ours, None)
        while not connection.lost.done():
            with suppress(BusError):
                connection.send(ECHO, "Echo", "s", "x" * 1000)
        with pytest.raises(BusError, match="the bus is lost"):
            await connection.lost
        connection.close()
        theirs.close()

    run(main())
