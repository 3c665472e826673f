"""Asking through systemd's password agents (https://systemd.io/PASSWORD_AGENTS/).

A question is a file in a folder that the agents watch, with the address of a socket for the answer. It cannot
be found out whether an agent is watching.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from replug.protocol.secrets import wipe
from replug.token.bytes_only import BytesOnly, Disposal
from replug.token.errors import NobodyAskedError
from replug.token.offload import Share, TooManyThreadsError, in_daemon_thread
from replug.token.pins.pin import LONGEST_PIN, Pin
from replug.token.prompts.dialog import readable
from replug.token.prompts.place import Terminal
from replug.token.prompts.request import ConfirmRequest, PinRequest
from replug.token.trusted_file import make_folder

_UCRED = struct.Struct("3i")
_PATIENCE = 5.0  # seconds for the folder to take a question
_PARTING = 1.0  # seconds for it to let go of one
_ANSWER, _REFUSAL = ord("+"), ord("-")


class PasswordAgentPrompter:
    """Any password agent that is running: on a console, a desktop, another terminal."""

    def __init__(self, folder: Path, timeout: float) -> None:
        """The agents watch `folder`; a question stays there for at most `timeout` seconds."""
        self._folder = folder
        self._timeout = timeout
        self.terminal: Terminal | None = None

    def __str__(self) -> str:
        return "systemd's password agents"

    def check(self) -> None:
        """Raise NobodyAskedError if nothing has made the folder: then no agent has run."""
        if not self._folder.is_dir():
            raise NobodyAskedError(f"no password agent has made {self._folder}")

    async def ask(self, request: PinRequest) -> Pin:
        """Write the question; the first answer counts."""
        try:
            async with _standing(_Question(self._folder, self._timeout, request)) as reply:
                async with asyncio.timeout(self._timeout):
                    typed = await _answer(reply)
        except TimeoutError:
            raise request.too_late(self._timeout) from None
        except TooManyThreadsError as error:
            raise NobodyAskedError(error.reason) from error
        except OSError as error:
            raise NobodyAskedError(f"{self._folder} cannot be used: {error.strerror or error}") from error
        if typed is None:
            raise request.cancelled()
        return request.pin(typed)

    async def confirm(self, request: ConfirmRequest) -> bool:
        """Always NobodyAskedError: password agents ask for passwords only."""
        raise NobodyAskedError("systemd's password agents cannot ask for a yes or no")


class _Question:
    """The files of one question. All that it does can block: any program may mount something there."""

    def __init__(self, folder: Path, timeout: float, request: PinRequest) -> None:
        self.folder = folder
        self._timeout = timeout
        self._request = request
        name = os.urandom(8).hex()
        self._draft, self._final = folder / f"tmp.{name}", folder / f"ask.{name}"
        self._address = folder / f"sck.{name}"

    def post(self) -> socket.socket:
        """Put it up; returns the socket for the answer, which only our own user and root can send to."""
        make_folder(self.folder)
        reply = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            os.fchmod(reply.fileno(), 0o600)  # which the file then has from its beginning
            reply.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            reply.bind(str(self._address))
            self._draft.write_text(self._content(), encoding="utf-8")
            self._draft.rename(self._final)  # agents may only see it complete
        except BaseException:
            reply.close()
            self.withdraw()
            raise
        return reply

    def withdraw(self) -> None:
        """Remove its files."""
        for file in (self._draft, self._final, self._address):
            with suppress(OSError):
                file.unlink()

    def _content(self) -> str:
        token, *rest = self._request.facts()
        # Agents on a console cut a long line at its end.
        text = ", ".join([token, *(warning.rstrip(".") for warning in self._request.warnings()), *rest])
        return (
            "[Ask]\n"
            f"PID={os.getpid()}\n"
            f"Socket={self._address}\n"
            "AcceptCached=0\n"
            "Echo=0\n"
            f"NotAfter={time.monotonic_ns() // 1000 + round(self._timeout * 1e6)}\n"
            "Icon=dialog-password\n"
            f"Id=replug:{re.sub('[^A-Za-z0-9.-]', '_', self._request.token.serial)}\n"
            # The colon keeps a token's label from ending the line in a backslash, which would continue it.
            f"Message={text}:\n"
        )


@asynccontextmanager
async def _standing(question: _Question) -> AsyncIterator[BytesOnly]:
    """The socket for the answer, while the question is put up. NobodyAskedError, TooManyThreadsError."""

    def give_up(posted: socket.socket) -> None:
        posted.close()
        question.withdraw()

    try:
        async with asyncio.timeout(_PATIENCE):
            posted = await in_daemon_thread(Share.PROMPT_FOLDER, question.post, give_up)
    except TimeoutError:
        raise NobodyAskedError(f"{question.folder} does not answer") from None
    with BytesOnly.of(posted, Disposal().take) as reply:
        try:
            yield reply
        finally:
            # One that cannot be removed in time is over by what is written in it.
            with suppress(TimeoutError, TooManyThreadsError):
                async with asyncio.timeout(_PARTING):
                    await in_daemon_thread(Share.PROMPT_FOLDER, question.withdraw)


async def _answer(reply: BytesOnly) -> bytearray | None:
    """The first answer of a permitted sender; None for a refusal."""
    buffer = bytearray(1 + LONGEST_PIN + 2)  # the kind of answer, a PIN too long by one byte, a terminator
    while True:
        await readable(reply.fileno())
        try:
            reply.check()
            size, ancillary, _, _ = reply.recvmsg_into([buffer], socket.CMSG_SPACE(_UCRED.size))
        except BlockingIOError:
            continue
        try:
            if size == 0 or not _from_our_user(ancillary):
                continue
            if buffer[0] == _REFUSAL:
                return None
            if buffer[0] == _ANSWER:
                end = buffer.find(b"\0", 1, size)
                typed = bytearray(LONGEST_PIN + 1)
                length = min((end if end >= 0 else size) - 1, len(typed))
                memoryview(typed)[:length] = memoryview(buffer)[1 : 1 + length]
                del typed[length:]
                return typed
        finally:
            wipe(buffer)


def _from_our_user(ancillary: list[tuple[int, int, bytes]]) -> bool:
    """Whether the kernel says that our own user or root sent it (unix(7), SCM_CREDENTIALS)."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS) and len(data) == _UCRED.size:
            _pid, uid, _gid = _UCRED.unpack(data)
            return uid in (0, os.getuid())
    return False
