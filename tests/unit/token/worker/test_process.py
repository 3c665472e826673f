"""The agent's side of the conversation with a worker process, which may be slow, talkative or gone."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Awaitable, Callable

import pytest
from doubles.stand_ins import run

from replug.token.errors import Verdict, WorkerLostError, WorkerRefusedError
from replug.token.worker import process as process_module
from replug.token.worker.deadlines import Patience
from replug.token.worker.forking import Forked
from replug.token.worker.frames import MAX_BODY, SIGN_OF_LIFE, FrameReader, Header, Request, encode
from replug.token.worker.process import WorkerProcess

DEADLINE = 10.0  # seconds; nothing here takes a second
SOON = 0.05


class Scripted:
    """A process that only waits to be killed, and its end of the conversation, which is the test's."""

    def __init__(self) -> None:
        ours, self.connection = socket.socketpair()
        ours.setblocking(False)
        self.connection.setblocking(False)
        self.program = subprocess.Popen(["sleep", "600"])
        self.asked = FrameReader()
        self.worker = WorkerProcess(Forked(self.program.pid, os.pidfd_open(self.program.pid), ours))

    async def request(self) -> tuple[Header, bytearray]:
        """The next request, as it arrives."""
        while (request := self.asked.take()) is None:
            with self.asked.writable() as space:
                try:
                    self.asked.received(self.connection.recv_into(space))
                except BlockingIOError:
                    await asyncio.sleep(0.001)
        return request

    def ask(self, body: bytes | bytearray = b"", deadline: float = DEADLINE) -> asyncio.Task[object]:
        """Have the agent's side ask something."""

        async def ask() -> object:
            patience = Patience(deadline, 10 * deadline)
            request = Request("sign", {})
            return await self.worker.ask(request, patience, lambda reply, content: (reply, content), body)

        return asyncio.create_task(ask())

    async def ended(self) -> None:
        """Wait until the process has been killed."""
        await asyncio.wait_for(asyncio.to_thread(self.program.wait), DEADLINE)


def with_one(talk: Callable[[Scripted], Awaitable[None]]) -> None:
    """Run `talk` with a scripted process, and clean up."""

    async def main() -> None:
        scripted = Scripted()
        try:
            await talk(scripted)
        finally:
            scripted.worker.kill()
            await scripted.ended()
            scripted.connection.close()

    run(main())


def test_a_question_and_its_answer_in_pieces() -> None:
    async def talk(scripted: Scripted) -> None:
        asking = scripted.ask(bytearray(b"data"))
        assert await scripted.request() == ({"operation": "sign"}, b"data")
        for byte in encode({"a": 1}, b"signature"):
            scripted.connection.send(bytes([byte]))
            await asyncio.sleep(0)
        assert await asking == ({"a": 1}, b"signature")
        assert scripted.worker.alive

    with_one(talk)


def test_a_refusal_is_an_answer() -> None:
    async def talk(scripted: Scripted) -> None:
        asking = scripted.ask()
        await scripted.request()
        scripted.connection.send(encode({"verdict": "pin-locked", "reason": "too often", "value": ""}))
        with pytest.raises(WorkerRefusedError, match="too often") as refused:
            await asking
        assert refused.value.verdict is Verdict.PIN_LOCKED
        assert scripted.worker.alive

    with_one(talk)


def test_one_that_reads_slowly_gets_it_all() -> None:
    async def talk(scripted: Scripted) -> None:
        body = bytearray(os.urandom(MAX_BODY))
        asking = scripted.ask(body)
        await asyncio.sleep(SOON)  # by now the socket's buffer is full
        assert await scripted.request() == ({"operation": "sign"}, body)
        scripted.connection.send(encode({}, b"signature"))
        assert await asking == ({}, b"signature")

    with_one(talk)


@pytest.mark.parametrize("size", [0, MAX_BODY])
def test_one_that_says_nothing_is_killed_in_time(size: int) -> None:
    async def talk(scripted: Scripted) -> None:
        with pytest.raises(WorkerLostError, match=r"no answer to sign within 0\.05 s"):
            await scripted.ask(bytearray(size), deadline=SOON)
        await scripted.ended()

    with_one(talk)


@pytest.mark.parametrize(
    "answer",
    [
        encode({}, b"one") + encode({}, b"another"),
        b"\xff" * 100,
        encode({})[:4] + b"\xff\xff\xff\xff",
        b"\0\0\0\2\0\0\0\0[]",
        b"\0\0\x0f\xa0\0\0\0\0" + b"[" * 4000,
        encode({"verdict": "nonsense", "reason": "", "value": ""}),
        encode({"verdict": "failed"}),
    ],
    ids=["two", "no frame", "too long", "no header", "too deep", "no verdict", "no reason"],
)
def test_what_makes_no_sense_ends_it(answer: bytes) -> None:
    async def talk(scripted: Scripted) -> None:
        asking = scripted.ask()
        await scripted.request()
        scripted.connection.send(answer)
        with pytest.raises(WorkerLostError, match="answer to sign makes no sense"):
            await asking
        await scripted.ended()

    with_one(talk)


def test_an_answer_before_the_question_is_whole_makes_no_sense() -> None:
    async def talk(scripted: Scripted) -> None:
        asking = scripted.ask(bytearray(MAX_BODY))
        await asyncio.sleep(SOON)
        scripted.connection.send(encode({}, b"signature"))
        with pytest.raises(WorkerLostError, match="makes no sense"):
            await asking
        await scripted.ended()

    with_one(talk)


def test_one_that_speaks_unasked_is_killed() -> None:
    async def talk(scripted: Scripted) -> None:
        scripted.connection.send(encode({}, b"signature"))
        await scripted.ended()
        with pytest.raises(WorkerLostError, match="had ended"):
            await scripted.ask()

    with_one(talk)


@pytest.mark.parametrize("how", ["killed", "closed", "closed in the middle"])
def test_its_end_is_told_at_once(how: str) -> None:
    async def talk(scripted: Scripted) -> None:
        asking = scripted.ask()
        await scripted.request()
        if how == "killed":
            scripted.program.kill()
        else:
            scripted.connection.send(encode({}, b"signature")[: 9 if "middle" in how else 0])
            scripted.connection.close()
        with pytest.raises(WorkerLostError, match="ended during sign"):
            await asking
        await scripted.ended()

    with_one(talk)


def test_who_hangs_up_ends_it() -> None:
    async def talk(scripted: Scripted) -> None:
        asking = scripted.ask()
        await scripted.request()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await scripted.ended()

    with_one(talk)


def test_the_last_words_of_one_that_ends_are_an_answer() -> None:
    async def talk(scripted: Scripted) -> None:
        asking = scripted.ask()
        await scripted.request()
        scripted.connection.send(encode({}, b"x" * 10_000))
        scripted.program.kill()
        scripted.program.wait()  # and only then has the loop time to look
        assert await asking == ({}, b"x" * 10_000)

    with_one(talk)


def test_it_is_asked_one_thing_at_a_time() -> None:
    async def talk(scripted: Scripted) -> None:
        first = scripted.ask(b"first")
        await scripted.request()
        with pytest.raises(RuntimeError):
            await scripted.ask(b"second")
        scripted.connection.send(encode({}, b"to the first"))
        assert await first == ({}, b"to the first")

    with_one(talk)


@pytest.mark.parametrize("size", [6, MAX_BODY])
@pytest.mark.parametrize("answered", [True, False])
def test_nothing_of_a_request_is_kept(monkeypatch: pytest.MonkeyPatch, size: int, answered: bool) -> None:
    async def talk(scripted: Scripted) -> None:
        sent: list[bytearray] = []

        def kept(header: Header, *body: bytearray) -> bytearray:
            sent.append(encode(header, *body))
            return sent[-1]

        monkeypatch.setattr(process_module, "encode", kept)
        asking = scripted.ask(bytearray(b"1" * size), deadline=DEADLINE if answered else 2 * SOON)
        await asyncio.sleep(SOON)
        assert not any(sent[0][:100])  # the PIN comes first, and the rest may wait
        if answered:
            await scripted.request()
            await asyncio.sleep(SOON)
            # A lock does not wait for what the worker makes of a PIN.
            assert not any(sent[0])
            scripted.connection.send(encode({}))
            await asking
        else:
            with pytest.raises(WorkerLostError):
                await asking
        assert len(sent[0]) > size
        assert not any(sent[0])

    with_one(talk)


def test_a_sign_of_life_is_no_answer_and_gives_more_time() -> None:
    async def talk(scripted: Scripted) -> None:
        asking = scripted.ask(deadline=1.0)
        await scripted.request()
        begin = scripted.worker.last_sign
        for _ in range(4):
            await asyncio.sleep(0.5)
            scripted.connection.send(SIGN_OF_LIFE)
        assert not asking.done()
        assert scripted.worker.asked
        assert scripted.worker.last_sign > begin
        scripted.connection.send(encode({}, b"signature"))
        assert await asking == ({}, b"signature")
        assert not scripted.worker.asked
        assert scripted.worker.last_sign > begin

    with_one(talk)


def test_a_stopped_process_is_not_waited_for() -> None:
    async def talk(scripted: Scripted) -> None:
        scripted.program.send_signal(signal.SIGSTOP)
        with pytest.raises(WorkerLostError, match="the worker process was stopped during sign"):
            await scripted.ask(deadline=600)

    with_one(talk)


def test_what_was_removed_gets_a_moment_to_say_so() -> None:
    async def talk(scripted: Scripted) -> None:
        asking = scripted.ask()
        await scripted.request()
        scripted.worker.end_unless_answered(SOON)
        scripted.connection.send(encode({}, b"in time"))
        assert await asking == ({}, b"in time")
        again = scripted.ask()
        await scripted.request()
        await asyncio.sleep(2 * SOON)
        assert not again.done()  # that was for the request before
        scripted.worker.end_unless_answered(SOON)
        with pytest.raises(WorkerLostError, match="the token was removed during sign"):
            await again

    with_one(talk)
