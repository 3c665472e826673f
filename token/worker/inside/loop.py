"""The worker's side of the conversation with the agent: one request at a time, until the agent is gone."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from collections.abc import Callable

from replug.protocol.secrets import wipe
from replug.token.errors import Verdict
from replug.token.worker.frames import SIGN_OF_LIFE, FrameError, FrameReader, Header, encode

_DESCRIPTOR_SIZE = 4  # bytes; a C int
_ONE_DESCRIPTOR = socket.CMSG_SPACE(_DESCRIPTOR_SIZE)
_QUIET = 0.5  # seconds between signs of life at least


Meaning = tuple[Verdict, str]
"""Of an error, with the CKR_ name of one that is a module's."""


class RefusedError(Exception):
    """The answer to a request that cannot be met."""

    def __init__(self, verdict: Verdict, reason: str) -> None:
        self.verdict = verdict
        super().__init__(reason)


class Progress:
    """Lets the agent know, while an operation takes long, that it goes on."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._said = time.monotonic()

    def __call__(self) -> None:
        """One more step is done."""
        now = time.monotonic()
        if now - self._said >= _QUIET:
            self._said = now
            self._connection.sendall(SIGN_OF_LIFE)


def answer_requests(
    connection: socket.socket, operations: object, meaning: Callable[[Exception], Meaning]
) -> None:
    """Serve `connection` until the agent closes its end; the caller ends the process.

    Each operation is a method that takes the request's header and body and returns the reply's; `meaning`
    says what an error means that is no RefusedError.
    """
    frames = FrameReader()
    with contextlib.suppress(ConnectionError, FrameError):
        while True:
            with frames.writable() as space:
                count, ancillary, _, _ = connection.recvmsg_into([space], _ONE_DESCRIPTOR)
            _print_to(ancillary)
            if count == 0:
                break
            frames.received(count)
            request = frames.take()
            if request is not None:
                connection.sendall(encode(*_answer(operations, meaning, *request)))


def _print_to(ancillary: list[tuple[int, int, bytes]]) -> None:
    """Let what this process prints go where the agent says, if it does."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptor = int.from_bytes(data[:_DESCRIPTOR_SIZE], sys.byteorder)
            for standard in (1, 2):
                os.dup2(descriptor, standard)
            os.close(descriptor)


def _answer(
    operations: object, meaning: Callable[[Exception], Meaning], header: Header, body: bytearray
) -> tuple[Header, bytes]:
    try:
        return getattr(operations, header["operation"])(header, body)  # type: ignore[no-any-return]
    except RefusedError as refusal:
        return {"verdict": refusal.verdict, "reason": str(refusal), "value": ""}, b""
    except Exception as error:
        notes = getattr(error, "__notes__", [])
        reason = notes[0] if notes else f"{type(error).__name__}: {error}".rstrip(": ")
        verdict, value = meaning(error)
        return {"verdict": verdict, "reason": reason, "value": value}, b""
    finally:
        wipe(body)
