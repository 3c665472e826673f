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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from replug.protocol.secrets import wipe
from replug.token.bytes_only import BytesOnly, Disposal
from replug.token.errors import NobodyAskedError
from replug.token.pins.pin import LONGEST_PIN, Pin
from replug.token.prompts.dialog import readable
from replug.token.prompts.place import Terminal
from replug.token.prompts.request import ConfirmRequest, PinRequest
from replug.token.trusted_file import make_folder

_UCRED = struct.Struct("3i")
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
            with _reply_socket(self._folder) as (reply, address), self._question(request, address):
                async with asyncio.timeout(self._timeout):
                    typed = await _answer(reply)
        except TimeoutError:
            raise request.too_late(self._timeout) from None
        except OSError as error:
            raise NobodyAskedError(f"{self._folder} cannot be used: {error.strerror or error}") from error
        if typed is None:
            raise request.cancelled()
        return request.pin(typed)

    async def confirm(self, request: ConfirmRequest) -> bool:
        """Always NobodyAskedError: password agents ask for passwords only."""
        raise NobodyAskedError("systemd's password agents cannot ask for a yes or no")

    @contextmanager
    def _question(self, request: PinRequest, address: Path) -> Iterator[None]:
        """The file with the question, removed afterwards."""
        name = os.urandom(8).hex()
        draft, final = self._folder / f"tmp.{name}", self._folder / f"ask.{name}"
        token, *rest = request.facts()
        # Agents on a console cut a long line at its end.
        text = ", ".join([token, *(warning.rstrip(".") for warning in request.warnings()), *rest])
        content = (
            "[Ask]\n"
            f"PID={os.getpid()}\n"
            f"Socket={address}\n"
            "AcceptCached=0\n"
            "Echo=0\n"
            f"NotAfter={time.monotonic_ns() // 1000 + round(self._timeout * 1e6)}\n"
            "Icon=dialog-password\n"
            f"Id=replug:{re.sub('[^A-Za-z0-9.-]', '_', request.token.serial)}\n"
            # The colon keeps a token's label from ending the line in a backslash, which would continue it.
            f"Message={text}:\n"
        )
        try:
            draft.write_text(content, encoding="utf-8")
            draft.rename(final)  # agents may only see it complete
            yield
        finally:
            for file in (draft, final):
                with suppress(OSError):
                    file.unlink()


@contextmanager
def _reply_socket(folder: Path) -> Iterator[tuple[BytesOnly, Path]]:
    """A socket that only our own user and root can send to, and that reports the sender."""
    make_folder(folder)
    address = folder / f"sck.{os.urandom(8).hex()}"
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    with BytesOnly.of(made, Disposal().take) as reply:
        reply.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        try:
            reply.bind(str(address))
            address.chmod(0o600)
            yield reply, address
        finally:
            with suppress(OSError):
                address.unlink()


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
