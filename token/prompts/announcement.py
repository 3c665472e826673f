"""A line on the terminal of a program that waits for something. Nothing is asked, read or changed there."""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from replug.token.errors import NobodyAskedError
from replug.token.offload import Share, TooManyThreadsError, in_daemon_thread
from replug.token.prompts.place import terminal_of
from replug.token.prompts.terminals import NoAnswerError, Terminals

log = logging.getLogger(__name__)

_LONGEST = 5.0  # seconds, to find the terminal, and for what it does then
_LARGEST = 1000  # characters


async def announce(text: str, pid: int | None, terminals: Terminals) -> None:
    """Show `text`, a line without its end, on the terminal of process `pid`, unless a program uses that."""
    try:
        async with asyncio.timeout(_LONGEST):
            terminal = await in_daemon_thread(Share.ASKING_PROGRAMS, partial(terminal_of, pid))
        if terminal is None:
            raise NobodyAskedError("the program has no terminal")
        await terminals.say(terminal, f"{text[:_LARGEST]}\n", _LONGEST)
    except NobodyAskedError as error:
        log.debug("not announced on a terminal", extra={"reason": error.reason})
    except (NoAnswerError, TimeoutError, TooManyThreadsError) as error:
        log.debug("not announced on a terminal", extra={"reason": str(error)})
