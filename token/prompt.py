"""Asking a person for a PIN.

`Prompter` is the seam: pinentry, a terminal or a password agent can stand where `AskpassPrompter` does.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from replug.token.errors import TokenError
from replug.token.identity import TokenFlag, TokenIdentity, printable
from replug.token.pin import Pin

_LONGEST_PIN = 255  # bytes; CK_ULONG would allow more, no token does
_DEFAULT_ASKPASS = "/usr/bin/ssh-askpass"


@dataclass(frozen=True)
class Asker:
    """On whose behalf a person is asked, and so where to find that person."""

    program: str = ""
    """E.g. `ssh (pid 4711)`."""
    pid: int | None = None
    """The process, as it was when it connected."""
    destination: str = ""
    """What is known of the host it is for; empty if nothing is."""


@dataclass(frozen=True)
class PinRequest:
    """What the person has to know to decide: which token, which key, for whom, at what risk."""

    token: TokenIdentity
    flags: TokenFlag
    key: str
    """The key's comment, or an empty string when no key is meant yet."""
    asker: Asker
    rejected: bool = False
    """The remembered PIN was rejected, so this question is not a repetition."""

    def text(self) -> str:
        """The question, one fact a line."""
        lines = [f"PIN for {self.token}"]
        if self.key:
            lines.append(f"to use the key {printable(self.key)}")
        if self.asker.program:
            lines.append(f"asked for by {printable(self.asker.program)}")
        if self.asker.destination:
            lines.append(f"for {printable(self.asker.destination)}")
        if self.rejected:
            lines.append("The PIN remembered until now was rejected.")
        if TokenFlag.USER_PIN_FINAL_TRY in self.flags:
            lines.append("LAST TRY: a wrong PIN locks the token.")
        elif TokenFlag.USER_PIN_COUNT_LOW in self.flags:
            lines.append("A wrong PIN was entered since the last right one.")
        return "\n".join(lines) + ": "


class Prompter(Protocol):
    """A way to ask for a PIN."""

    async def ask(self, request: PinRequest) -> Pin:
        """The PIN as typed; TokenError when nobody could be asked, cancelled, or gave no answer."""
        ...


class AskpassPrompter:
    """The program named by SSH_ASKPASS, as OpenSSH uses it (readpass.c, read_passphrase)."""

    def __init__(self, environment: Mapping[str, str], timeout: float) -> None:
        """`timeout` is how long a dialog may stand unanswered, in seconds."""
        self._environment = environment
        self._timeout = timeout

    async def ask(self, request: PinRequest) -> Pin:
        """Show the dialog; exit status 0 and a line on its output is the answer."""
        program = self._program(request)
        try:
            process = subprocess.Popen(
                [program, request.text()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                # A group of its own: the program may be a script, and the dialog its child.
                process_group=0,
            )
        except OSError as error:
            raise TokenError(
                f"{request.token}: the PIN prompt {program} does not start: {error.strerror}",
                "set SSH_ASKPASS to a program that asks",
            ) from error
        try:
            async with asyncio.timeout(self._timeout):
                answer = await _read_line(process)
                status = await _exit_status(process)
        except TimeoutError:
            raise TokenError(f"{request.token}: no PIN was entered within {self._timeout:g} s") from None
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if status == 0 and 0 < len(answer) <= _LONGEST_PIN:
            return Pin(answer, last_try_known=TokenFlag.USER_PIN_FINAL_TRY in request.flags)
        what = "was cancelled" if status != 0 or not answer else "gave an answer that is too long"
        answer[:] = bytes(len(answer))
        raise TokenError(f"{request.token}: the PIN prompt {what}")

    def _program(self, request: PinRequest) -> str:
        require = self._environment.get("SSH_ASKPASS_REQUIRE", "")
        display = self._environment.get("DISPLAY") or self._environment.get("WAYLAND_DISPLAY")
        if require == "never" or (require != "force" and not display):
            raise TokenError(
                f"{request.token}: the PIN is needed and the agent has no way to ask for it",
                "give it with ssh-add -s, or start the agent where SSH_ASKPASS and DISPLAY are set",
            )
        return self._environment.get("SSH_ASKPASS") or _DEFAULT_ASKPASS


async def _read_line(process: subprocess.Popen[bytes]) -> bytearray:
    """The first line of the process's output, in one buffer that was never copied."""
    assert process.stdout is not None
    buffer, used = bytearray(_LONGEST_PIN + 1), 0
    with process.stdout as stream:
        descriptor = stream.fileno()
        while used < len(buffer) and b"\n" not in buffer:
            await _readable(descriptor)
            count = os.readv(descriptor, [memoryview(buffer)[used:]])
            if count == 0:
                break
            used += count
    end = next((index for index, byte in enumerate(buffer[:used]) if byte in b"\r\n"), used)
    buffer[end:] = bytes(len(buffer) - end)
    del buffer[end:]
    return buffer


async def _exit_status(process: subprocess.Popen[bytes]) -> int:
    notice = os.pidfd_open(process.pid)
    try:
        await _readable(notice)
    finally:
        os.close(notice)
    return process.wait()


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    loop.add_reader(descriptor, event.set)
    try:
        await event.wait()
    finally:
        loop.remove_reader(descriptor)
