"""Asking through the program named by SSH_ASKPASS, as OpenSSH does (readpass.c, read_passphrase)."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from replug.token.pin import Pin
from replug.token.prompt import LONGEST_PIN, ConfirmRequest, PinRequest

_DEFAULT_ASKPASS = "/usr/bin/ssh-askpass"
_HINT = "SSH_ASKPASS_PROMPT"
"""Tells the program what kind of question it is; unset for a PIN."""


class AskpassPrompter:
    """The askpass program; a dialog on the display of an environment."""

    def __init__(self, environment: Mapping[str, str], timeout: float) -> None:
        """`environment` decides about program and display and is added to the agent's own for the program.

        `timeout` is how long a dialog may stand unanswered, in seconds.
        """
        self._environment = environment
        self._timeout = timeout

    async def ask(self, request: PinRequest) -> Pin:
        """Show the dialog; exit status 0 and a line on its output is the answer."""
        async with self._dialog(request, request.text()) as process:
            answer = await _read_line(process)
            status = await _exit_status(process)
        if status != 0:
            answer[:] = bytes(len(answer))
            raise request.cancelled()
        return request.pin(answer)

    async def confirm(self, request: ConfirmRequest) -> bool:
        """Show the dialog; exit status 0 and no output, or "yes", is a yes (misc.c, ask_permission)."""
        async with self._dialog(request, request.text(), hint="confirm") as process:
            answer = await _read_line(process)
            status = await _exit_status(process)
        return status == 0 and bytes(answer).lower() in (b"", b"yes")

    @asynccontextmanager
    async def _dialog(
        self, request: PinRequest | ConfirmRequest, text: str, hint: str = ""
    ) -> AsyncIterator[subprocess.Popen[bytes]]:
        """The program, asking; gone afterwards, with all it started."""
        program = self._program(request)
        environment = os.environ | dict(self._environment)
        environment.pop(_HINT, None)
        if hint:
            environment[_HINT] = hint
        try:
            process = subprocess.Popen(
                [program, text],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                env=environment,
                # A group of its own: the program may be a script, and the dialog its child.
                process_group=0,
            )
        except OSError as error:
            raise request.failure(
                f"the {request.kind} {program} does not start: {error.strerror}",
                "set SSH_ASKPASS to a program that asks",
            ) from error
        try:
            async with asyncio.timeout(self._timeout):
                yield process
        except TimeoutError:
            raise request.too_late(self._timeout) from None
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _program(self, request: PinRequest | ConfirmRequest) -> str:
        require = self._environment.get("SSH_ASKPASS_REQUIRE", "")
        display = self._environment.get("DISPLAY") or self._environment.get("WAYLAND_DISPLAY")
        if require == "never" or (require != "force" and not display):
            raise request.nobody_to_ask()
        return self._environment.get("SSH_ASKPASS") or _DEFAULT_ASKPASS


async def _read_line(process: subprocess.Popen[bytes]) -> bytearray:
    """The first line of the process's output, in one buffer that was never copied."""
    assert process.stdout is not None
    buffer, used = bytearray(LONGEST_PIN + 1), 0
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
