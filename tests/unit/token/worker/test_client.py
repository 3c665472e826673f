"""The agent's side of a worker: whatever the process does, the request ends, and with it the process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from doubles.stand_ins import reaped, run
from doubles.started import Started

from replug.token.errors import Verdict, WorkerLostError, WorkerRefusedError
from replug.token.identity import TokenFlag, TokenId, TokenInfo
from replug.token.worker.client import Deadlines, LoggedIn, RawSignature, WorkerClient

TOKEN = TokenId("Maker", "Model", "1", "work")
HEADER = {"manufacturer": "Maker", "model": "Model", "serial": "1", "label": "work"}

PRELUDE = f"""#!{sys.executable} -IS
import json, os, signal, socket, struct, sys, time
agent = socket.socket(fileno=int(sys.argv[-1]))

def receive(length):
    data = b""
    while len(data) < length:
        data += agent.recv(length - len(data))
    return data

def request():
    header, body = struct.unpack(">II", receive(8))
    return json.loads(receive(header)), receive(body)

def frame(reply, body=b""):
    text = json.dumps(reply).encode()
    return struct.pack(">II", len(text), len(body)) + text + body

"""


class Script:
    """What workers are instead: Python that has `agent`, `receive`, `request` and `frame`."""

    def __init__(self, program: Path) -> None:
        self._program = program

    def __call__(self, body: str) -> None:
        self._program.write_text(PRELUDE + body)
        self._program.chmod(0o700)

    def process(self) -> Started:
        return Started(str(self._program))


@pytest.fixture
def script(tmp_path: Path) -> Script:
    return Script(tmp_path / "worker")


def test_requests_and_replies(script: Script) -> None:
    script(f"""
tokens = [{{"token": {HEADER!r}, "flags": 0x40C, "slot": 7, "reader": "Reader", "removable": True}}]
replies = {{
    "load": {{"library": "Maker Module", "pcscd": True}},
    "slots": {{"slots": [[7, True, True], [8, False, False]]}},
    "scan": {{"tokens": tokens}},
    "open": tokens[0] | {{
        "flags": 4, "twin": False, "keys": [{{"label": "1"}}, {{"label": "2"}}], "more": True
    }},
    "flags": {{"flags": 0x10004}},
    "more": {{"keys": [{{"label": "3"}}], "more": False}},
    "login": {{"keys": [{{"label": "after"}}], "more": False, "proven": True}},
    "sign": {{"candidates": 2}},
}}
while True:
    header, body = request()
    agent.sendall(frame(replies[header["operation"]], body[::-1]))
""")

    async def main() -> None:
        worker = WorkerClient(Deadlines(), script.process())
        assert await worker.load("/module.so") == "Maker Module"
        assert worker.uses_pcscd
        assert await worker.slots() == [(7, True, True), (8, False, False)]
        assert await worker.scan() == [TokenInfo(TOKEN, TokenFlag(0x40C), 7, "Reader", True)]
        opened = await worker.open(TOKEN, None)
        assert (opened.flags, opened.records) == (
            TokenFlag.LOGIN_REQUIRED,
            [{"label": "1"}, {"label": "2"}, {"label": "3"}],
        )
        assert (worker.opened, worker.ready) == ({TOKEN}, set())
        assert await worker.flags(TOKEN) == TokenFlag.LOGIN_REQUIRED | TokenFlag.USER_PIN_COUNT_LOW
        assert await worker.login(TOKEN, bytearray(b"123456")) == LoggedIn([{"label": "after"}], True)
        assert worker.ready == {TOKEN}
        signature = await worker.sign(TOKEN, "key", b"1", "EDDSA", b"data", 64, None, keypad=False)
        assert signature == RawSignature(b"atad", 2)
        worker.kill()
        await reaped(worker)

    run(main())


def test_pins_travel_in_the_body_and_never_as_text(script: Script, tmp_path: Path) -> None:
    record = tmp_path / "record"
    script(f"""
with open({str(record)!r}, "w") as file:
    for _ in range(4):
        header, body = request()
        print(json.dumps([header, body.hex()]), file=file, flush=True)
        agent.sendall(frame({{"keys": [], "more": False, "proven": True, "candidates": 1}}))
""")

    async def main() -> None:
        worker = WorkerClient(Deadlines(), script.process())
        pin = bytearray(b"12\xff56")
        await worker.login(TOKEN, pin)
        await worker.login(TOKEN, None)
        await worker.sign(TOKEN, "key", b"1", "EDDSA", b"data", 64, pin, keypad=False)
        await worker.sign(TOKEN, "key", b"1", "EDDSA", b"data", 64, None, keypad=True)
        # The buffer is its owner's, who may need it again.
        assert pin == b"12\xff56"
        worker.kill()
        await reaped(worker)

    run(main())
    sent: list[tuple[dict[str, Any], str]] = [json.loads(line) for line in record.read_text().splitlines()]
    assert [(header["operation"], bytes.fromhex(body)) for header, body in sent] == [
        ("login", b"12\xff56"),
        ("login", b""),
        ("sign", b"12\xff56data"),
        ("sign", b"data"),
    ]
    assert [header["keypad"] for header, _ in sent[:2]] == [False, True]
    assert [header["pin_length"] for header, _ in sent[2:]] == [5, 0]


def test_an_answer_may_come_byte_by_byte(script: Script) -> None:
    script("""
request()
for byte in frame({"slots": [[1, True, True]]}, bytes(3)):
    agent.send(bytes([byte]))
    time.sleep(0.001)
receive(1)
""")

    async def main() -> None:
        worker = WorkerClient(Deadlines(), script.process())
        assert await worker.slots() == [(1, True, True)]
        worker.kill()
        await reaped(worker)

    run(main())


def test_a_refusal_is_an_answer(script: Script) -> None:
    script("""
request()
agent.sendall(frame({"verdict": "pin-incorrect", "reason": "PinIncorrect", "value": "CKR_PIN_INCORRECT"}))
request()
agent.sendall(frame({"tokens": []}))
receive(1)
""")

    async def main() -> None:
        worker = WorkerClient(Deadlines(), script.process())
        with pytest.raises(WorkerRefusedError) as caught:
            await worker.login(TOKEN, bytearray(b"1"))
        assert (caught.value.verdict, caught.value.reason) == (Verdict.PIN_INCORRECT, "PinIncorrect")
        assert worker.ready == set()
        assert await worker.scan() == []
        worker.kill()
        await reaped(worker)

    run(main())


def test_flags_that_have_no_name_are_not_kept(script: Script) -> None:
    """An IntFlag remembers each value that it was ever asked for, and a module may think of many."""
    script("""
request()
agent.sendall(frame({"flags": 0x404 | 1 << 3000}))
receive(1)
""")

    async def main() -> None:
        worker = WorkerClient(Deadlines(), script.process())
        before = len(TokenFlag._value2member_map_)
        assert await worker.flags(TOKEN) == TokenFlag.LOGIN_REQUIRED | TokenFlag.TOKEN_INITIALIZED
        assert max(TokenFlag._value2member_map_) < 1 << 32
        assert len(TokenFlag._value2member_map_) <= before + 1
        worker.kill()
        await reaped(worker)

    run(main())


NONSENSE = {
    "a frame that is too large": "struct.pack('>II', 2**31, 0)",
    "a body that is too large": "struct.pack('>II', 2, 2**31)",
    "text that is not JSON": "struct.pack('>II', 4, 0) + b'{{{{'",
    "bytes that are not text": "struct.pack('>II', 2, 0) + bytes([0xff, 0xfe])",
    "JSON that is no object": "struct.pack('>II', 2, 0) + b'[]'",
    "a verdict that does not exist": "frame({'verdict': 'perhaps', 'reason': ''})",
    "a reply without what was asked for": "frame({})",
    "a reply of another form": "frame({'tokens': [1]})",
    "a number that is none": "frame({'tokens': [{'token': {}, 'flags': float('inf')}]})",
    "a list in place of fields": "frame({'tokens': [{'token': []}]})",
    "numbers in place of a list": "frame({'tokens': 1})",
    "a verdict that is no text": "frame({'verdict': {}, 'reason': ''})",
}


@pytest.mark.parametrize("nonsense", NONSENSE)
def test_an_answer_that_makes_no_sense_ends_the_worker(script: Script, nonsense: str) -> None:
    script(f"request()\nagent.sendall({NONSENSE[nonsense]})\nsignal.pause()\n")

    async def main() -> None:
        worker = WorkerClient(Deadlines(), script.process())
        try:
            with pytest.raises(WorkerLostError, match="answer to scan makes no sense"):
                await worker.scan()
            assert not worker.alive
        finally:
            worker.kill()
            await reaped(worker)

    run(main())


@pytest.mark.parametrize(
    "death",
    [
        "os._exit(0)",
        "os.abort()",
        "agent.sendall(frame({'tokens': []})[:5])",
        "agent.close(); signal.pause()",
    ],
)
def test_a_worker_that_ends_during_a_request(script: Script, death: str) -> None:
    script(f"import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\nrequest()\n{death}\n")

    async def main() -> None:
        worker = WorkerClient(Deadlines(), script.process())
        with pytest.raises(WorkerLostError, match="the worker process ended during scan"):
            await worker.scan()
        assert not worker.alive
        with pytest.raises(WorkerLostError, match="the worker process had ended"):
            await worker.scan()
        await reaped(worker)

    run(main())


def test_a_worker_that_ends_idle_is_known_to_be_dead(script: Script) -> None:
    script("signal.pause()")

    async def main() -> None:
        worker = WorkerClient(Deadlines(), script.process())
        os.kill(worker.pid, signal.SIGKILL)
        await reaped(worker)
        assert not worker.alive

    run(main())


DEADLINES = Deadlines(operation=0.11, touch=0.12, keypad=0.13)
WAITS: dict[str, tuple[Callable[[WorkerClient], Any], str]] = {
    "load": (lambda worker: worker.load("/module.so"), "0.11"),
    "slots": (lambda worker: worker.slots(), "0.11"),
    "scan": (lambda worker: worker.scan(), "0.11"),
    "open": (lambda worker: worker.open(TOKEN, None), "0.11"),
    "login": (lambda worker: worker.login(TOKEN, bytearray(b"1")), "0.11"),
    "login at the keypad": (lambda worker: worker.login(TOKEN, None), "0.13"),
    "sign": (lambda worker: worker.sign(TOKEN, "key", b"1", "EDDSA", b"", 64, None, keypad=False), "0.12"),
    "sign at the keypad": (
        lambda worker: worker.sign(TOKEN, "key", b"1", "EDDSA", b"", 64, None, keypad=True),
        "0.25",
    ),
}


@pytest.mark.parametrize("request_", WAITS)
def test_a_worker_that_does_not_answer_in_time_is_killed(script: Script, request_: str) -> None:
    script("signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: signal.pause()")
    call, seconds = WAITS[request_]

    async def main() -> None:
        worker = WorkerClient(DEADLINES, script.process())
        with pytest.raises(WorkerLostError) as caught:
            await call(worker)
        assert str(caught.value) == f"no answer to {request_.split()[0]} within {seconds} s"
        assert not worker.alive
        await reaped(worker)

    run(main())


def test_a_request_that_nobody_waits_for_ends_the_worker(script: Script) -> None:
    """Else the next request would get its answer."""
    script("signal.pause()")

    async def main() -> None:
        worker = WorkerClient(Deadlines(), script.process())
        scanning = asyncio.create_task(worker.scan())
        await asyncio.sleep(0)
        scanning.cancel()
        await asyncio.wait([scanning])
        assert not worker.alive
        await reaped(worker)

    run(main())


def test_killing_wakes_who_waits(script: Script) -> None:
    """Even if a helper of the vendor's library lives on with the socket, so that it does not close."""
    script("""
request()
if os.fork() == 0:
    while agent.recv(4096): pass
    os._exit(0)
agent.sendall(frame({"slots": []}))
signal.pause()
""")

    async def main() -> None:
        worker = WorkerClient(Deadlines(operation=15), script.process())
        await worker.slots()
        scanning = asyncio.create_task(worker.scan())
        await asyncio.sleep(0)
        worker.kill()
        with pytest.raises(WorkerLostError):
            await asyncio.wait_for(scanning, 5)
        await reaped(worker)

    run(main())


def test_a_killed_workers_descriptor_is_free_again(script: Script) -> None:
    """A client that gets its number must not inherit what the loop knew of it."""
    script("signal.pause()")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        worker = WorkerClient(Deadlines(operation=0.2), script.process())
        scanning = asyncio.create_task(worker.scan())
        await asyncio.sleep(0.01)
        worker.kill()
        await reaped(worker)
        pairs = [socket.socketpair() for _ in range(4)]
        arrived = [asyncio.Event() for _ in pairs]
        try:
            for (ours, _), event in zip(pairs, arrived, strict=True):
                loop.add_reader(ours, event.set)
            await asyncio.wait([scanning])
            for _, theirs in pairs:
                theirs.send(b"x")
            async with asyncio.timeout(5):
                for event in arrived:
                    await event.wait()
        finally:
            for ours, theirs in pairs:
                loop.remove_reader(ours)
                ours.close()
                theirs.close()

    run(main())


def test_killing_twice_is_killing(script: Script) -> None:
    script("signal.pause()")

    async def main() -> None:
        worker = WorkerClient(Deadlines(), script.process())
        worker.kill()
        worker.kill()
        await reaped(worker)

    run(main())
