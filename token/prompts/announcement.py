"""A line on the terminal of a program that waits for something. Nothing is asked, read or changed there."""

from __future__ import annotations

import asyncio
import logging
import os
from functools import partial

from replug.token.errors import NobodyAskedError
from replug.token.offload import Share, TooManyThreadsError, in_daemon_thread
from replug.token.prompts.place import terminal_of
from replug.token.prompts.terminal import free_terminal

log = logging.getLogger(__name__)

_LONGEST = 5.0  # seconds, to find the terminal


async def announce(text: str, pid: int | None) -> None:
    """Show `text`, a line without its end, on the terminal of process `pid`, unless a program uses that."""
    try:
        async with asyncio.timeout(_LONGEST):
            await in_daemon_thread(Share.ASKING_PROGRAMS, partial(_write, text, pid))
    except NobodyAskedError as error:
        log.debug("not announced on a terminal", extra={"reason": error.reason})
    except (OSError, TimeoutError, TooManyThreadsError) as error:
        log.debug("not announced on a terminal", extra={"reason": str(error)})


def _write(text: str, pid: int | None) -> None:
    terminal = terminal_of(pid)
    if terminal is None:
        raise NobodyAskedError("the program has no terminal")
    with free_terminal(terminal) as opened:
        # As much as there is room for: ^S may be holding the output.
        os.write(opened.descriptor, f"{text}\n".encode())
