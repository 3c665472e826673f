"""pcscd's readers: which versions of it we talk to, and what its reports mean."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from doubles.stand_ins import run

from replug.token.noticing import readers as readers_module
from replug.token.noticing.readers import CardReaders

ABSENT, PRESENT = 0x2, 0x34
LONG_NAME = "R" * 127
SERVICE_STOPPED = 0x8010001E

State = tuple[str, int, int]
"""A reader's name, its count of changes, and its state."""


class StandInPcscd:
    """Speaks one version of the protocol; reports the `states` when it is told to."""

    def __init__(self, path: Path, version: tuple[int, int] = (4, 4)) -> None:
        self.path = path
        self.version = version
        self.states: list[State] = []
        self.connections = 0
        self.refuses = False
        self.told = False
        """Whether the newest client was told the states."""
        self.left = asyncio.Event()
        self._changed = asyncio.Event()
        self._server: asyncio.Server
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    def change(self, *states: State) -> None:
        self.states = list(states)
        self._changed.set()

    def stop(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.told = False
        self._writers.append(writer)
        if self.refuses:
            writer.transport.abort()
            return
        length, command, *theirs, _ = struct.unpack("=IIiiI", await reader.readexactly(20))
        assert (length, command) == (12, 0x11)
        fits = tuple(theirs) == self.version
        writer.write(struct.pack("=iiI", *self.version, 0 if fits else SERVICE_STOPPED))
        while fits and (request := await reader.read(8)):
            assert struct.unpack("=II", request) == (0, 0x13)
            entries = [struct.pack("=128sII48x", name.encode(), *rest) for name, *rest in self.states]
            writer.write(b"".join(entries).ljust(16 * 184, b"\0"))
            self.told = True
            changed = asyncio.create_task(self._changed.wait())
            gone = asyncio.create_task(reader.read(1))
            await asyncio.wait({changed, gone}, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                break
            gone.cancel()
            await asyncio.wait({gone})
            self._changed.clear()
            writer.write(bytes(8))
        writer.close()
        self.left.set()


class Follower:
    """What was reported."""

    def __init__(self, needed: bool) -> None:
        self.reports: asyncio.Queue[Mapping[str, bool]] = asyncio.Queue()
        self.arrivals: list[bool] = []
        """Whether a card was inserted, for each report."""
        self.needed = needed

    def changed(self, left: Mapping[str, bool], arrived: bool) -> None:
        self.reports.put_nowait(left)
        self.arrivals.append(arrived)

    async def report(self) -> Mapping[str, bool]:
        return await asyncio.wait_for(self.reports.get(), 10)


@pytest.fixture
def pcscd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandInPcscd:
    monkeypatch.setattr(readers_module, "_PAUSE", 0.02)
    monkeypatch.setattr(readers_module, "_NOTHING_NEW", 0.02)
    monkeypatch.setattr(readers_module, "_STILL_NEEDED", 0.1)
    monkeypatch.setenv("PCSCLITE_CSOCK_NAME", str(tmp_path / "pcscd.comm"))
    return StandInPcscd(tmp_path / "pcscd.comm")


@asynccontextmanager
async def following(pcscd: StandInPcscd, *, needed: bool = True) -> AsyncIterator[Follower]:
    follower = Follower(needed)
    task = asyncio.create_task(CardReaders(lambda: follower.needed, follower.changed).run())
    await pcscd.start()
    yield follower
    assert not task.done()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    pcscd.stop()


async def connected(pcscd: StandInPcscd, times: int = 1, *, told: bool = True) -> None:
    """The client has connected so many times, and knows the states unless it is never `told`."""
    async with asyncio.timeout(10):
        while pcscd.connections < times or pcscd.told != told:  # noqa: ASYNC110 - nobody announces it
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("after", "report"),
    [
        ([("one", 2, ABSENT), ("two", 0, ABSENT)], {"one": False}),
        ([("one", 3, PRESENT), ("two", 0, ABSENT)], {"one": True}),
        ([("two", 0, ABSENT)], {"one": False}),
        ([("one", 1, PRESENT), ("two", 1, PRESENT)], {}),
        ([("one", 1, PRESENT), ("two", 0, ABSENT), (LONG_NAME, 1, PRESENT)], {}),
    ],
    ids=["removed", "exchanged", "reader gone", "inserted", "reader new"],
)
def test_what_a_change_means(pcscd: StandInPcscd, after: list[State], report: dict[str, bool]) -> None:
    async def main() -> None:
        pcscd.states = [("one", 1, PRESENT), ("two", 0, ABSENT)]
        async with following(pcscd) as follower:
            await connected(pcscd)
            pcscd.change(*after)
            assert await follower.report() == report
            now = {name: (changes, state) for name, changes, state in after if state == PRESENT}
            assert follower.arrivals == [now.get("one", (1,))[0] != 1 or len(now) > 1]

    run(main())


def test_the_end_of_pcscd_is_the_end_of_all_it_did_and_it_is_found_again(pcscd: StandInPcscd) -> None:
    async def main() -> None:
        pcscd.states = [("one", 1, PRESENT)]
        async with following(pcscd) as follower:
            await connected(pcscd)
            pcscd.change(("one", 1, PRESENT), ("two", 0, ABSENT))
            assert await follower.report() == {}
            pcscd.stop()
            assert await follower.report() == {"one": False}
            pcscd.path.unlink(missing_ok=True)
            await pcscd.start()
            await connected(pcscd, 2)

    run(main())


def test_a_newer_protocol_is_asked_for_in_its_own_version(pcscd: StandInPcscd) -> None:
    async def main() -> None:
        pcscd.version, pcscd.states = (4, 5), [("one", 1, PRESENT)]
        async with following(pcscd) as follower:
            await connected(pcscd, 2)
            pcscd.change()
            assert await follower.report() == {"one": False}

    run(main())


@pytest.mark.parametrize("version", [(4, 3), (5, 0)])
def test_a_protocol_that_nobody_knows_is_left_alone_and_said_once(
    pcscd: StandInPcscd, version: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    async def main() -> None:
        pcscd.version = version
        async with following(pcscd):
            await connected(pcscd, 3, told=False)

    run(main())
    assert caplog.text.count("pcscd speaks protocol") == 1


def test_a_pcscd_that_turns_its_clients_away(pcscd: StandInPcscd, caplog: pytest.LogCaptureFixture) -> None:
    """By polkit (winscard_svc.c, ContextThread)."""
    caplog.set_level("INFO")

    async def main() -> None:
        pcscd.refuses = True
        async with following(pcscd):
            await connected(pcscd, 3, told=False)

    run(main())
    assert caplog.text.count("as where polkit denies it (see replug doctor)") == 1


def test_without_a_module_that_uses_it_pcscd_is_not_started(pcscd: StandInPcscd) -> None:
    async def main() -> None:
        async with following(pcscd, needed=False) as follower:
            await asyncio.sleep(0.2)
            assert pcscd.connections == 0
            follower.needed = True
            await connected(pcscd)
            # And once it is no longer needed it may end.
            follower.needed = False
            await asyncio.wait_for(pcscd.left.wait(), 10)

    run(main())
