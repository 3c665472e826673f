"""One client over a real socket pair: framing, order, and clients that do not behave."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable
from typing import Any

import pytest
from doubles.link import Answer, Link, echo
from doubles.stand_ins import run, settle

from replug.protocol.constants import MAX_MESSAGE
from replug.protocol.framing import frame
from replug.protocol.messages import RequestIdentities


@pytest.fixture(autouse=True)
def _nothing_unexpected(caplog: pytest.LogCaptureFixture) -> Any:
    """No test may end with an exception that only the loop saw."""
    yield
    assert [record for record in caplog.records if record.name == "asyncio"] == []


def test_a_request_is_answered() -> None:
    async def main() -> None:
        link = Link()
        await link.send(frame(b"one"))
        assert await link.reply() == b"reply to one"
        await link.send(frame(b"two"))
        assert await link.reply() == b"reply to two"
        link.client.close()
        await link.finished()

    run(main())


def test_pipelined_requests_are_answered_in_their_order() -> None:
    async def main() -> None:
        link = Link()
        await link.send(b"".join(frame(b"%d" % number) for number in range(1000)))
        assert [await link.reply() for _ in range(1000)] == [
            b"reply to %d" % number for number in range(1000)
        ]
        link.client.close()
        await link.finished()

    run(main())


def test_a_request_may_come_one_byte_at_a_time() -> None:
    async def main() -> None:
        link = Link()
        for byte in frame(b"one") + frame(b"two"):
            await link.send(bytes([byte]))
            await settle()
        assert [await link.reply(), await link.reply()] == [b"reply to one", b"reply to two"]
        link.client.close()
        await link.finished()

    run(main())


def test_the_longest_message() -> None:
    async def main() -> None:
        link = Link(lambda message: message)
        message = b"x" * MAX_MESSAGE
        sending = asyncio.create_task(link.send(frame(message)))
        assert await link.reply() == message
        await sending
        assert MAX_MESSAGE == 262144
        link.client.close()
        await link.finished()

    run(main())


@pytest.mark.parametrize("length", [262145, 2**31, 2**32 - 1, 0])
def test_a_length_that_cannot_be_ends_the_connection(length: int) -> None:
    async def main() -> None:
        link = Link()
        await link.send(frame(b"one") + length.to_bytes(4, "big") + frame(b"two"))
        assert await link.reply() == b"reply to one"
        assert await link.read(1) == b""
        await link.finished()
        assert [str(error) for error in link.script.errors] == [f"message of {length} bytes"]

    run(main())


def gated(gate: asyncio.Event, served: list[bytes] | None = None) -> Answer:
    """Answers wait for the gate when the message says "slow"."""

    async def later(message: bytes) -> bytes:
        await gate.wait()
        return echo(message)

    def answer(message: bytes) -> bytes | Awaitable[bytes]:
        if served is not None:
            served.append(message)
        return later(message) if message.startswith(b"slow") else echo(message)

    return answer


LISTING = frame(RequestIdentities().encode())


def test_a_list_at_hand_is_sent_without_a_question() -> None:
    """In its order all the same, and until it is not at hand any more."""

    async def main() -> None:
        gate = asyncio.Event()
        served: list[bytes] = []
        link = Link(gated(gate, served))
        link.script.at_hand = frame(b"keys" * 100_000)
        for _ in range(3):
            await link.send(LISTING)
            assert await link.reply() == b"keys" * 100_000
        assert served == []
        await link.send(LISTING + frame(b"slow") + LISTING)
        await settle()
        await link.send(LISTING)
        gate.set()
        assert await link.reply() == b"reply to \x0b"
        assert await link.reply() == b"reply to slow"
        assert [await link.reply() for _ in range(2)] == [b"reply to \x0b", b"keys" * 100_000]
        link.script.at_hand = b""
        await link.send(LISTING)
        assert await link.reply() == b"reply to \x0b"
        link.script.at_hand = frame(b"keys")
        await link.send(LISTING)
        link.client.shutdown(socket.SHUT_WR)
        assert await link.reply() == b"keys"
        assert await link.read(1) == b""
        await link.finished()

    run(main())


@pytest.mark.parametrize("message", [b"fast", b"slow"])
def test_a_client_that_half_closes_gets_its_reply(message: bytes) -> None:
    async def main() -> None:
        gate = asyncio.Event()
        link = Link(gated(gate))
        await link.send(frame(b"before") + frame(message))
        link.client.shutdown(socket.SHUT_WR)
        await settle()
        gate.set()
        assert [await link.reply(), await link.reply()] == [b"reply to before", b"reply to " + message]
        assert await link.read(1) == b""
        await link.finished()

    run(main())


@pytest.mark.parametrize("rest", [b"", b"\0", b"\0\0\0\5", b"\0\0\0\5four"])
def test_a_client_that_ends_in_the_middle_of_a_request(rest: bytes) -> None:
    async def main() -> None:
        link = Link()
        await link.send(rest)
        link.client.shutdown(socket.SHUT_WR)
        assert await link.read(1) == b""
        await link.finished()

    run(main())


def test_a_request_whose_client_is_gone_is_cancelled() -> None:
    """Nobody shall be asked for a PIN, or a touch, for one who does not wait for it any more."""

    async def main() -> None:
        cancelled = asyncio.Event()

        async def wait() -> bytes:
            try:
                return await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                cancelled.set()
                raise

        link = Link(lambda _message: wait())
        await link.send(frame(b"slow") + frame(b"two"))
        await settle()
        link.client.close()
        await link.finished()
        async with asyncio.timeout(10):
            await cancelled.wait()

    run(main())


def test_a_client_that_leaves_with_replies_unread() -> None:
    """To the agent's socket that is ECONNRESET, not an end of file."""

    async def main() -> None:
        gate = asyncio.Event()
        link = Link(gated(gate))
        await link.send(frame(b"one") + frame(b"slow"))
        await settle()
        link.client.close()
        await settle()
        gate.set()
        await link.finished()

    run(main())


def test_no_reply_overtakes_a_slow_one() -> None:
    async def main() -> None:
        gate, served = asyncio.Event(), list[bytes]()
        link = Link(gated(gate, served))
        await link.send(frame(b"slow 1") + frame(b"fast") + frame(b"slow 2") + frame(b"last"))
        await settle()
        # One request at a time, so that their effects are in their order too.
        assert served == [b"slow 1"]
        gate.set()
        assert [await link.reply() for _ in range(4)] == [
            b"reply to slow 1",
            b"reply to fast",
            b"reply to slow 2",
            b"reply to last",
        ]
        link.client.close()
        await link.finished()

    run(main())


def test_a_slow_request_holds_up_no_other_client() -> None:
    async def main() -> None:
        gate = asyncio.Event()
        waiting = Link(gated(gate))
        other = Link(rounds=waiting.rounds)
        await waiting.send(frame(b"slow"))
        await settle()
        await other.send(frame(b"one"))
        assert await other.reply() == b"reply to one"
        gate.set()
        assert await waiting.reply() == b"reply to slow"
        waiting.client.close()
        other.client.close()
        await waiting.finished()
        await other.finished()

    run(main())


def test_a_client_that_pipelines_does_not_keep_others_waiting() -> None:
    async def main() -> None:
        served: list[bytes] = []

        def answer(message: bytes) -> bytes:
            served.append(message)
            return b""

        greedy = Link(answer)
        modest = Link(answer, greedy.rounds)
        # More of it fits into one read than any turn may serve.
        greedy.send_what_fits(frame(b"g") * 10_000)
        modest.send_what_fits(frame(b"m"))
        assert await modest.reply() == b""
        assert served.index(b"m") < 500
        for link in (greedy, modest):
            link.client.close()
            await link.finished()

    run(main())


def test_a_client_that_never_reads_is_served_no_further_until_it_does() -> None:
    async def main() -> None:
        served: list[bytes] = []
        size = 10_000

        def answer(message: bytes) -> bytes:
            served.append(message)
            return message.rjust(size, b".")

        link = Link(answer)
        await link.send(b"".join(frame(b"%d" % number) for number in range(1000)))
        await settle()
        unread = len(served) * size
        in_the_socket = link.client.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        assert unread < MAX_MESSAGE + 2 * in_the_socket
        # When it reads after all, nothing is lost.
        for number in range(1000):
            assert await link.reply() == (b"%d" % number).rjust(size, b".")
        link.client.close()
        await link.finished()

    run(main())


def test_what_is_kept_of_a_client_that_only_sends_is_bounded() -> None:
    async def main() -> None:
        gate, served = asyncio.Event(), list[bytes]()
        link = Link(gated(gate, served))
        await link.send(frame(b"slow"))
        flood = frame(b"x" * 1000) * 3000
        sent = await link.send_until_stuck(flood)
        in_the_socket = link.client.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        assert MAX_MESSAGE <= sent <= 2 * MAX_MESSAGE + in_the_socket
        # And it is served when its slow request is done.
        gate.set()
        assert await link.reply() == b"reply to slow"
        rest = asyncio.create_task(link.send(flood[sent:]))
        for _ in range(3000):
            assert await link.reply() == b"reply to " + b"x" * 1000
        await rest
        link.client.close()
        await link.finished()

    run(main())


def test_a_client_that_sends_a_byte_and_stops_is_kept() -> None:
    async def main() -> None:
        link = Link()
        await link.send(b"\0")
        await settle()
        assert link.times_closed == 0
        await link.send(frame(b"one")[1:])
        assert await link.reply() == b"reply to one"
        link.client.close()
        await link.finished()

    run(main())


def test_closing_drops_the_reply_that_is_under_way() -> None:
    async def main() -> None:
        gate = asyncio.Event()
        link = Link(gated(gate))
        await link.send(frame(b"slow"))
        await settle()
        link.connection.close()
        link.connection.close()
        gate.set()
        assert await link.read(1) == b""
        await settle()
        assert link.times_closed == 1

    run(main())


def test_a_request_that_has_not_begun_when_its_client_leaves_is_wiped() -> None:
    """What it holds, a PIN perhaps, is wiped at its end, so it has to have one."""

    async def main() -> None:
        request = bytearray(b"secret")

        async def answer_later() -> bytes:
            try:
                return await asyncio.get_running_loop().create_future()
            finally:
                request.clear()

        def answer(_message: bytes) -> Awaitable[bytes]:
            asyncio.get_running_loop().call_soon(link.connection.close)
            return answer_later()

        link = Link(answer)
        await link.send(frame(b"slow"))
        await link.finished()
        await settle()
        assert not request

    run(main())


def test_closing_between_two_turns() -> None:
    async def main() -> None:
        served: list[bytes] = []

        def answer(message: bytes) -> bytes:
            served.append(message)
            if len(served) == 40:
                link.connection.close()
            return b"reply"

        link = Link(answer)
        link.send_what_fits(frame(b"x") * 200)
        await link.finished()
        await settle()
        assert len(served) == 40

    run(main())


def test_nothing_of_it_is_logged_as_an_error(caplog: pytest.LogCaptureFixture) -> None:
    """A client that comes and goes is no event."""

    async def main() -> None:
        link = Link()
        await link.send(frame(b"one"))
        await link.reply()
        link.client.close()
        await link.finished()

    with caplog.at_level(logging.INFO):
        run(main())
    assert caplog.records == []
