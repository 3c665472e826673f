"""The worker process for real, on SoftHSM: loading, keys of every kind, login, signatures, and its end."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import socket
import struct
import subprocess
from pathlib import Path

import pytest
from doubles.softhsm_bench import DATA, Session
from doubles.stand_ins import reaped, run
from doubles.started import TOKEN_WORKER, Started
from rigs.softhsm import KINDS, MODULE, PIN, Token

from replug.protocol.keys import RsaPublicKey
from replug.token.errors import Verdict, WorkerLostError, WorkerRefusedError
from replug.token.identity import TokenFlag, TokenId
from replug.token.serving.signing import finish_signature, signing_algorithm, signing_steps
from replug.token.worker.client import Deadlines, WorkerClient
from replug.token.worker.frames import Header

# Loading.


@pytest.mark.parametrize("content", [None, b"", b"#!/bin/sh\n", b"\x7fELF" + bytes(100)])
def test_a_file_that_is_no_module(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "module.so"
    if content is not None:
        path.write_bytes(content)

    async def main() -> None:
        worker = WorkerClient(Deadlines(), Started())
        with pytest.raises(WorkerRefusedError) as caught:
            await worker.load(str(path))
        assert caught.value.verdict is Verdict.NOT_A_MODULE
        worker.kill()
        await reaped(worker)

    run(main())


def test_a_library_that_is_no_module() -> None:
    [library] = Path("/usr/lib").glob("*/libc.so.6")

    async def main() -> None:
        worker = WorkerClient(Deadlines(), Started())
        with pytest.raises(WorkerRefusedError) as caught:
            await worker.load(str(library))
        assert caught.value.verdict is Verdict.NOT_A_MODULE
        assert "C_GetFunctionList" in caught.value.reason
        worker.kill()
        await reaped(worker)

    run(main())


def test_slots_and_tokens(all_kinds: Token) -> None:
    async def main() -> None:
        worker = WorkerClient(Deadlines(), Started())
        assert "SoftHSM" in await worker.load(str(MODULE))
        # SoftHSM always has one more slot, with a token that nobody has initialised.
        assert [(present, removable) for _, present, removable in await worker.slots()] == [(True, False)] * 2
        [info] = await worker.scan()
        assert (info.identity.label, info.identity.manufacturer) == ("work", "SoftHSM project")
        assert len(info.identity.serial) == 16
        assert info.flags == (
            TokenFlag.TOKEN_INITIALIZED | TokenFlag.USER_PIN_INITIALIZED | TokenFlag.LOGIN_REQUIRED
        )
        worker.kill()
        await reaped(worker)

    run(main())


def test_a_token_that_is_not_there(all_kinds: Token) -> None:
    async def main() -> None:
        session = await Session.start()
        with pytest.raises(WorkerRefusedError) as caught:
            await session.worker.open(TokenId("SoftHSM project", "SoftHSM v2", "0", "work"), None)
        assert caught.value.verdict is Verdict.TOKEN_ABSENT
        assert caught.value.reason == 'token "work" (serial 0) is in no slot'
        await session.end()

    run(main())


# Keys of every kind.


def test_every_kind_of_key_is_found_and_signs(all_kinds: Token) -> None:
    async def main() -> None:
        session = await Session.start()
        before = {key.label: key for key in await session.keys()}
        assert sorted(before) == sorted(KINDS)
        assert [key.signs for key in before.values()] == [False] * len(KINDS)
        after = {key.label: key for key in await session.log_in()}
        assert [key.signs for key in after.values()] == [True] * len(KINDS)
        for kind in KINDS:
            algorithm, blob, _ = all_kinds.public(kind).read_text().split()
            assert after[kind].public.algorithm == algorithm
            assert before[kind].blob == after[kind].blob == base64.b64decode(blob)
            is_rsa = isinstance(after[kind].public, RsaPublicKey)
            for flags in (0, 2, 4) if is_rsa else (0,):
                await session.sign(after[kind], flags)
        await session.end()

    run(main())


async def sign_by_the_substitute(session: Session, label: str) -> None:
    """Sign by the mechanism that hashes by itself."""
    await session.keys()
    [key] = [key for key in await session.log_in() if key.label == label]
    algorithm = signing_algorithm(key.public, 2 if isinstance(key.public, RsaPublicKey) else 0)
    _, step = signing_steps(key.public, algorithm, DATA)
    size = key.signature_size
    raw = await session.worker.sign(
        session.identity, key.reference, key.key_id, step.mechanism, step.data, size, None, keypad=False
    )
    finish_signature(key.public, algorithm, raw.value, DATA)


def test_a_mechanism_that_hashes_by_itself(all_kinds: Token) -> None:
    async def main() -> None:
        session = await Session.start()
        await sign_by_the_substitute(session, "rsa2048")
        await session.end()

    run(main())


def test_a_mechanism_that_the_module_lacks(all_kinds: Token) -> None:
    """Debian's SoftHSM hashes for RSA only."""

    async def main() -> None:
        session = await Session.start()
        with pytest.raises(WorkerRefusedError) as caught:
            await sign_by_the_substitute(session, "p256")
        assert caught.value.verdict is Verdict.MECHANISM
        await session.end()

    run(main())


def test_nothing_is_signed_before_login(all_kinds: Token) -> None:
    async def main() -> None:
        session = await Session.start()
        key = (await session.keys())[0]
        with pytest.raises(WorkerRefusedError) as caught:
            await session.sign(key)
        assert caught.value.verdict is Verdict.NOT_LOGGED_IN
        await session.end()

    run(main())


def test_a_wrong_pin_counts_and_the_flags_say_so_at_once(token: Token) -> None:
    token.add("p256")

    async def main() -> None:
        session = await Session.start()
        before = await session.worker.open(session.identity, None)
        assert TokenFlag.USER_PIN_COUNT_LOW not in before.flags
        with pytest.raises(WorkerRefusedError) as caught:
            await session.log_in("654321")
        assert caught.value.verdict is Verdict.PIN_INCORRECT
        assert "654321" not in caught.value.reason
        assert session.identity not in session.worker.ready
        after = await session.worker.open(session.identity, None)
        assert TokenFlag.USER_PIN_COUNT_LOW in after.flags
        await session.end()

    run(main())


def test_a_careful_key_needs_the_pin_at_every_use(token: Token) -> None:
    token.generate("EC:prime256v1", "careful", "--always-auth")

    async def main() -> None:
        session = await Session.start()
        await session.keys()
        [key] = await session.log_in()
        assert (key.signs, key.always_authenticate) == (True, True)
        for _ in range(2):
            await session.sign(key, pin=bytearray(PIN.encode()))
        with pytest.raises(WorkerRefusedError) as caught:
            await session.sign(key, pin=bytearray(b"654321"))
        assert caught.value.verdict is Verdict.PIN_INCORRECT
        await session.end()

    run(main())


# Its end.


def test_a_worker_killed_during_a_request(all_kinds: Token) -> None:
    async def main() -> None:
        session = await Session.start()
        os.kill(session.worker.pid, signal.SIGSTOP)
        scanning = asyncio.create_task(session.worker.scan())
        await asyncio.sleep(0.01)
        os.kill(session.worker.pid, signal.SIGKILL)
        with pytest.raises(WorkerLostError, match="ended during scan"):
            await scanning
        await reaped(session.worker)

    run(main())


def test_a_worker_that_hangs_is_killed_at_its_deadline(all_kinds: Token) -> None:
    async def main() -> None:
        session = await Session.start()
        session.worker._deadlines = Deadlines(operation=0.1)
        os.kill(session.worker.pid, signal.SIGSTOP)
        with pytest.raises(WorkerLostError, match=r"no answer to scan within 0\.1 s"):
            await session.worker.scan()
        await reaped(session.worker)

    run(main())


class RawWorker:
    """A worker process at the other end of a socket, without the client."""

    def __init__(self) -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(10)
        with theirs:
            self.process = subprocess.Popen([*TOKEN_WORKER, str(theirs.fileno())], pass_fds=[theirs.fileno()])

    def send(self, header: bytes, body: bytes = b"") -> None:
        self.socket.sendall(struct.pack(">II", len(header), len(body)) + header + body)

    def receive(self) -> Header:
        lengths = struct.unpack(">II", self.socket.recv(8, socket.MSG_WAITALL))
        reply: Header = json.loads(self.socket.recv(lengths[0], socket.MSG_WAITALL))
        return reply

    def status(self) -> int:
        return self.process.wait(timeout=10)


@pytest.mark.parametrize(
    "garbage",
    [
        struct.pack(">II", 2**31, 0),
        struct.pack(">II", 2, 2**31),
        struct.pack(">II", 4, 0) + b"{{{{",
        struct.pack(">II", 2, 0) + b"[]",
        b"\0\0",
    ],
)
def test_a_worker_ends_when_the_agent_does_not_speak_its_frames(garbage: bytes) -> None:
    raw = RawWorker()
    raw.socket.sendall(garbage)
    raw.socket.shutdown(socket.SHUT_WR)
    assert raw.socket.recv(1) == b""
    assert raw.status() == 0


def test_a_worker_ends_when_the_agents_end_closes() -> None:
    raw = RawWorker()
    raw.socket.close()
    assert raw.status() == 0


@pytest.mark.parametrize(
    "header",
    [
        b"{}",
        b'{"operation": "explode"}',
        b'{"operation": "scan"}',
        b'{"operation": "open", "token": {"label": "work"}}',
        b'{"operation": "sign", "token": {"manufacturer": "", "model": "", "serial": "", "label": ""}}',
    ],
)
def test_a_request_that_cannot_be_met_is_answered_with_failed(header: bytes) -> None:
    raw = RawWorker()
    raw.send(header, b"body")
    assert raw.receive()["verdict"] == "failed"
    raw.socket.close()
    assert raw.status() == 0
