"""OpenSSH's ssh-sk-helper: a process for one signature by a FIDO authenticator, ended when that is over.

The code of authenticators' makers runs there, and no key but the one in use is known to it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

from replug.protocol.constants import MAX_MESSAGE
from replug.protocol.visible_text import visible
from replug.token.errors import TokenError, WorkerLostError, WorkerSilentError
from replug.token.offload import Share, TooManyThreadsError, in_daemon_thread
from replug.token.prompts.dialog import end_late, end_program, exit_status

_PLACES = (
    "/usr/lib/openssh/ssh-sk-helper",
    "/usr/libexec/openssh/ssh-sk-helper",
    "/usr/libexec/ssh-sk-helper",
    "/usr/lib/ssh/ssh-sk-helper",
    "/usr/local/libexec/ssh-sk-helper",
)
"""Of Debian, Fedora, Alpine and the BSDs, Arch, and OpenSSH's own."""
_PASSED_ON = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "PATH", "USER", "XDG_RUNTIME_DIR")
"""What of the agent's environment is the helper's: a library is not told what is none of its business."""
_TIME_TO_START = 10.0  # seconds
_TIME_TO_END = 1.0  # seconds after its last word
_LONGEST_COMPLAINT = 200  # characters
_OTHER_HELPER = "install OpenSSH's client, or set SSH_SK_HELPER where the agent is started"


class _Running(NamedTuple):
    process: subprocess.Popen[bytes]
    connection: socket.socket
    """Its standard input and output."""
    errors: int
    """Where its standard error can be read."""


class Answer(NamedTuple):
    """What the helper has answered, and the last line it has written to standard error, if any."""

    message: bytes
    complaint: str


class SkHelper:
    """The program as `environment` has it: SSH_SK_HELPER names it, as for ssh-agent."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._named = environment.get("SSH_SK_HELPER", "")
        self._environment = {name: environment[name] for name in _PASSED_ON if name in environment}

    async def ask(self, request: bytearray, pin: bytearray, patience: float) -> Answer:
        """The answer to a request, which `pin` completes, within `patience` seconds.

        TokenError if the helper cannot be started, WorkerLostError if it gives no answer, and
        WorkerSilentError if it gives none in time. Cancelling the task ends it.
        """
        running = await self._start()
        try:
            return await self._answer(running, request, pin, patience)
        finally:
            running.connection.close()
            os.close(running.errors)
            if running.process.returncode is None:
                await end_program(running.process)

    async def _start(self) -> _Running:
        try:
            # In a thread, as a prompt's program: its folder may never answer.
            async with asyncio.timeout(_TIME_TO_START):
                return await in_daemon_thread(Share.SECURITY_KEYS, self._started, _end)
        except TimeoutError:
            why = "its folder does not answer"
        except TooManyThreadsError as error:
            why = error.reason
        except FileNotFoundError:
            named = f" ({visible(self._named)}, by SSH_SK_HELPER)" if self._named else ""
            raise TokenError(f"ssh-sk-helper was not found{named}", _OTHER_HELPER) from None
        except OSError as error:
            why = error.strerror or str(error)
        raise TokenError(f"ssh-sk-helper does not start: {why}", _OTHER_HELPER)

    def _started(self) -> _Running:
        program = self._named or next((place for place in _PLACES if os.access(place, os.X_OK)), _PLACES[0])
        ours, theirs = socket.socketpair()
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(writing, True)
        try:
            process = subprocess.Popen(
                [program],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=writing,
                env=self._environment,
                start_new_session=True,  # to be ended with all that a library starts
            )
        except BaseException:
            ours.close()
            os.close(reading)
            raise
        finally:
            theirs.close()
            os.close(writing)
        ours.setblocking(False)
        return _Running(process, ours, reading)

    async def _answer(self, running: _Running, request: bytearray, pin: bytearray, patience: float) -> Answer:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(patience):
                with suppress(ConnectionError):  # why it has ended is known soon
                    await loop.sock_sendall(running.connection, request)
                    await loop.sock_sendall(running.connection, pin)
                answer = await _received(running.connection)
        except TimeoutError:
            raise WorkerSilentError(f"ssh-sk-helper did not answer within {patience:g} s") from None
        if answer is not None:
            return Answer(answer, _complaint(running))
        status = None
        with suppress(TimeoutError):
            async with asyncio.timeout(_TIME_TO_END):
                status = await exit_status(running.process)
        raise WorkerLostError(f"ssh-sk-helper gave no answer: {_end_in_words(status, _complaint(running))}")


async def _received(connection: socket.socket) -> bytes | None:
    """A message without its length; None if the connection ends before, or it is too long."""
    loop = asyncio.get_running_loop()
    received = b""
    wanted = 4
    while len(received) < wanted:
        try:
            piece = await loop.sock_recv(connection, wanted - len(received))
        except ConnectionError:
            return None
        if not piece:
            return None
        received += piece
        if len(received) == wanted == 4:
            wanted += int.from_bytes(received, "big")
            if wanted > MAX_MESSAGE:
                return None
    return received[4:]


def _complaint(running: _Running) -> str:
    """The last line it has written to standard error; empty if there is none."""
    try:
        written = os.read(running.errors, 64 * 1024)
    except BlockingIOError:
        return ""
    lines = written.decode(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return visible(last[:_LONGEST_COMPLAINT]) if last else ""


def _end_in_words(status: int | None, complaint: str) -> str:
    if status is None:
        how = "it has closed the connection"
    elif status < 0:
        how = f"it was ended by {signal.Signals(-status).name}"
    else:
        how = f"it ended with status {status}"
    return f"{how} ({complaint})" if complaint else how


def _end(late: _Running) -> None:
    """End one that nobody waits for any more."""
    late.connection.close()
    os.close(late.errors)
    end_late(late.process)
