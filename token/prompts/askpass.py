"""Asking through the program named by SSH_ASKPASS, as OpenSSH does (readpass.c, read_passphrase)."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from replug.protocol.secrets import wipe
from replug.token.errors import NobodyAskedError
from replug.token.pins.pin import LONGEST_PIN, Pin
from replug.token.prompts.dialog import dialog, exit_status, find_program, on_display, readable
from replug.token.prompts.place import Terminal
from replug.token.prompts.request import AnyRequest, ConfirmRequest, PinRequest

_DEFAULT_ASKPASS = "/usr/bin/ssh-askpass"
_NEXT_STEP = "set SSH_ASKPASS to a program that asks"
_HINT = "SSH_ASKPASS_PROMPT"
"""Tells the program the kind of question; unset for a PIN."""


class AskpassPrompter:
    """The askpass program, which shows a dialog on a display."""

    def __init__(self, environment: Mapping[str, str], timeout: float) -> None:
        """`environment` names the program and is passed to it; a dialog ends after `timeout` seconds."""
        self._environment = environment
        self._timeout = timeout
        self.terminal: Terminal | None = None

    def __str__(self) -> str:
        return f"{self._name}{on_display(self._environment)}"

    def check(self) -> None:
        """Raise NobodyAskedError if the environment forbids dialogs or the program cannot be run."""
        program = self._program()
        if find_program(program, self._environment.get("PATH")) is None:
            raise NobodyAskedError(f"{program} cannot be run", _NEXT_STEP)

    async def ask(self, request: PinRequest) -> Pin:
        """Show the dialog; exit status 0 and a line on its output is the answer."""
        async with self._asking(request) as process:
            answer = await _read_line(process)
            try:
                if await exit_status(process) != 0:
                    raise request.cancelled()
            except BaseException:
                wipe(answer)
                raise
        return request.pin(answer)

    async def confirm(self, request: ConfirmRequest) -> bool:
        """Show the dialog; exit status 0 and no output, or "yes", is a yes (misc.c, ask_permission)."""
        async with self._asking(request) as process:
            answer = await _read_line(process)
            status = await exit_status(process)
        return status == 0 and bytes(answer).lower() in (b"", b"yes")

    @asynccontextmanager
    async def _asking(self, request: AnyRequest) -> AsyncIterator[subprocess.Popen[bytes]]:
        environment = {name: value for name, value in self._environment.items() if name != _HINT}
        if isinstance(request, ConfirmRequest):
            environment[_HINT] = "confirm"
        argv = [self._program(), request.text()]
        try:
            async with (
                dialog(argv, environment, _NEXT_STEP) as process,
                asyncio.timeout(self._timeout),
            ):
                yield process
        except TimeoutError:
            raise request.too_late(self._timeout) from None

    @property
    def _name(self) -> str:
        return self._environment.get("SSH_ASKPASS") or _DEFAULT_ASKPASS

    def _program(self) -> str:
        require = self._environment.get("SSH_ASKPASS_REQUIRE", "")
        if require == "never":
            raise NobodyAskedError("SSH_ASKPASS_REQUIRE is never")
        display = self._environment.get("DISPLAY") or self._environment.get("WAYLAND_DISPLAY")
        if require != "force" and not display:
            raise NobodyAskedError("there is no display (DISPLAY, WAYLAND_DISPLAY)")
        return self._name


async def _read_line(process: subprocess.Popen[bytes]) -> bytearray:
    """The first line of the process's output, in one buffer that was never copied."""
    assert process.stdout is not None
    buffer, used = bytearray(LONGEST_PIN + 1), 0
    descriptor = process.stdout.fileno()
    try:
        while used < len(buffer) and b"\n" not in buffer:
            await readable(descriptor)
            count = os.readv(descriptor, [memoryview(buffer)[used:]])
            if count == 0:
                break
            used += count
    except BaseException:
        wipe(buffer)
        raise
    process.stdout.close()  # a program that goes on writing gets SIGPIPE
    end = next((index for index, byte in enumerate(buffer[:used]) if byte in b"\r\n"), used)
    wipe(buffer, end)
    del buffer[end:]
    return buffer
