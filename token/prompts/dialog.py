"""Programs that ask the user for us: started in a session of their own, and ended with all they started."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

from replug.token.errors import NobodyAskedError
from replug.token.offload import Share, TooManyThreadsError, in_daemon_thread

_TIME_TO_START = 10.0  # seconds
_TIME_TO_CLEAN_UP = 1.0  # seconds; a dialog on a terminal restores the screen


def find_program(program: str, path: str | None) -> str | None:
    """The path of a program that can be run; a bare name is looked up in `path` (as in $PATH)."""
    import shutil  # only needed to ask for a PIN

    return shutil.which(program, path=path)


def on_display(environment: Mapping[str, str]) -> str:
    """Where a dialog with this environment appears, such as ` on display :0`; empty without a display."""
    display = environment.get("WAYLAND_DISPLAY") or environment.get("DISPLAY")
    return f" on display {display}" if display else ""


@asynccontextmanager
async def dialog(
    argv: Sequence[str],
    environment: Mapping[str, str],
    next_step: str,
    stdin: int = subprocess.DEVNULL,
) -> AsyncIterator[subprocess.Popen[bytes]]:
    """The program `argv`, running with a pipe from its output; it is ended afterwards.

    NobodyAskedError with `next_step` if it does not start.
    """

    def started() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            argv,
            stdin=stdin,
            stdout=subprocess.PIPE,
            env=environment,
            # A group of its own: the program may be a script, and the dialog its child. A session of its own:
            # neither stops for using a terminal that happens to be the agent's.
            start_new_session=True,
        )

    try:
        # In a thread, which waits until the program is loaded: its folder may never answer.
        async with asyncio.timeout(_TIME_TO_START):
            process = await in_daemon_thread(Share.PROMPT_PROGRAMS, started, end_late)
    except TimeoutError:
        raise NobodyAskedError(f"{argv[0]} does not start: its folder does not answer", next_step) from None
    except TooManyThreadsError as error:
        raise NobodyAskedError(f"{argv[0]} does not start: {error.reason}", next_step) from error
    except OSError as error:
        raise NobodyAskedError(f"{argv[0]} does not start: {error.strerror}", next_step) from error
    try:
        yield process
    finally:
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        if process.returncode is None:
            await end_program(process)


def end_late(process: subprocess.Popen[bytes]) -> None:
    """End one that nobody waits for any more."""
    with process, suppress(PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


async def end_program(process: subprocess.Popen[bytes]) -> None:
    """End one, with what it has started: it is asked to, and then made to."""
    # It has not been waited for, so the group's number is still its own. A set-user-ID program cannot be
    # killed; it ends when its pipes break.
    with suppress(PermissionError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(_TIME_TO_CLEAN_UP):
                await _exited(process)
    finally:
        with suppress(PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(TimeoutError):
            async with asyncio.timeout(_TIME_TO_CLEAN_UP):
                await exit_status(process)


async def exit_status(process: subprocess.Popen[bytes]) -> int | None:
    """The status, once the process has ended by itself; None if another program keeps it.

    That one traces it (ptrace(2)): until it lets go, to wait for the process would be to wait for ever.
    """
    await _exited(process)
    return process.poll()


async def _exited(process: subprocess.Popen[bytes]) -> None:
    notice = os.pidfd_open(process.pid)
    try:
        await readable(notice)
    finally:
        os.close(notice)


async def readable(descriptor: int) -> None:
    """Wait until there is something to read."""
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    loop.add_reader(descriptor, event.set)
    try:
        await event.wait()
    finally:
        loop.remove_reader(descriptor)


async def writable(descriptor: int) -> None:
    """Wait until there is room to write."""
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    loop.add_writer(descriptor, event.set)
    try:
        await event.wait()
    finally:
        loop.remove_writer(descriptor)
