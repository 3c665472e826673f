"""Which way a person is asked: the one that reaches the person who runs the asking program."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar
from weakref import WeakValueDictionary

from replug.token.errors import NobodyAskedError
from replug.token.offload import TooManyThreadsError, in_daemon_thread
from replug.token.pins.pin import Pin
from replug.token.prompts.askpass import AskpassPrompter
from replug.token.prompts.password_agent import PasswordAgentPrompter
from replug.token.prompts.pinentry import PinentryPrompter, find_pinentry, is_textual
from replug.token.prompts.place import Place, Terminal, environment_of, find_place
from replug.token.prompts.request import AnyRequest, ConfirmRequest, PinRequest, Prompter
from replug.token.prompts.terminal import TerminalPrompter

log = logging.getLogger(__name__)

T = TypeVar("T")

Way = Literal["auto", "pinentry", "askpass", "terminal", "systemd"]

_Candidate = tuple[Prompter, Terminal | None]
"""With the terminal that it occupies."""

_LONGEST_LOOK = 5.0  # seconds; for where the asking process is and what there is to ask with


class ChoosingPrompter:
    """The first way of asking that works where the asking process runs.

    On a display that is a pinentry with windows, else askpass; on a terminal, the terminal; where there is
    neither, systemd's password agents if something has made their folder. SSH_ASKPASS_REQUIRE means what it
    means to ssh: force and prefer put askpass first, never leaves no dialogs.
    """

    def __init__(
        self,
        own: Mapping[str, str],
        timeout: float,
        *,
        way: Way = "auto",
        pinentry_program: str = "",
        look: Callable[[int], Mapping[str, str]] = environment_of,
    ) -> None:
        """`own` is the agent's environment, `timeout` how long a question may stand, in seconds.

        Another `way` than auto is the only one tried; `pinentry_program` is used instead of what PATH has.
        `look` gives the environment of a process, from a thread of its own; empty if it cannot be had.
        """
        self._own = own
        self._timeout = timeout
        self._way = way
        self._pinentry_program = pinentry_program
        self._look = look
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def ask(self, request: PinRequest) -> Pin:
        """The PIN, by the first way that works."""
        return await self._by_first_way(request, lambda prompter: prompter.ask(request))

    async def confirm(self, request: ConfirmRequest) -> bool:
        """Yes or no, by the first way that works."""
        return await self._by_first_way(request, lambda prompter: prompter.confirm(request))

    async def _by_first_way(self, request: AnyRequest, question: Callable[[Prompter], Awaitable[T]]) -> T:
        obstacles: list[str] = []
        for prompter, terminal in await self._ways_to_ask(request):
            try:
                if terminal is None:
                    return await question(prompter)
                async with _while_it_runs(request), self._turn(terminal, request):
                    return await question(prompter)
            except NobodyAskedError as error:
                log.debug("a way of asking does not work", extra={"reason": error.obstacle})
                if error.obstacle not in obstacles:
                    obstacles.append(error.obstacle)
        raise request.nobody_to_ask(obstacles)

    async def _ways_to_ask(self, request: AnyRequest) -> list[_Candidate]:
        # A process may make it last as long as it likes to look at it, and a network drive in PATH too.
        for pid in (request.asker.pid, None):
            try:
                async with asyncio.timeout(_LONGEST_LOOK):
                    return await in_daemon_thread(partial(self._look_around, pid))
            except (TimeoutError, TooManyThreadsError):
                log.warning("the asking process does not let itself be looked at", extra={"pid": pid})
        raise request.nobody_to_ask(["the folders of PATH do not answer"])

    def _look_around(self, pid: int | None) -> list[_Candidate]:
        return list(self._ways(find_place(pid, self._own, self._look)))

    def _ways(self, place: Place) -> Iterator[_Candidate]:
        """What to try, in order."""
        askpass = AskpassPrompter(place.in_full(self._own), self._timeout)
        match self._way:
            case "askpass":
                yield askpass, None
            case "pinentry":
                yield from self._pinentries(place)
            case "terminal":
                yield from self._on_terminal(place)
            case "systemd":
                yield PasswordAgentPrompter(self._password_folder, self._timeout), None
            case "auto":
                require = place.in_full(self._own).get("SSH_ASKPASS_REQUIRE")
                askpass_first = require in ("force", "prefer")
                if askpass_first:
                    yield askpass, None
                if place.terminal_first:
                    yield from self._on_terminal(place)
                if place.has_display and require != "never":
                    yield from self._with_windows(place)
                if not askpass_first:
                    yield askpass, None
                if not place.terminal_first:
                    yield from self._on_terminal(place)
                # Whether an agent watches the folder cannot be seen; that it is there says that one has.
                if self._password_folder.is_dir():
                    yield PasswordAgentPrompter(self._password_folder, self._timeout), None

    def _pinentries(self, place: Place) -> Iterator[_Candidate]:
        if place.has_display:
            yield from self._with_windows(place)
        program = self._pinentry_program or find_pinentry(self._own.get("PATH"))
        if program is None:
            yield _NoWay("no pinentry is installed"), None
        elif place.terminal is None:
            yield _NoWay("the program has no terminal"), None
        else:
            yield self._pinentry(program, place, place.terminal), place.terminal

    def _with_windows(self, place: Place) -> Iterator[_Candidate]:
        program = self._pinentry_program or find_pinentry(self._own.get("PATH"), windows=True)
        if program is None or is_textual(program):
            yield _NoWay("no pinentry with windows is installed"), None
        else:
            yield self._pinentry(program, place, None), None

    def _on_terminal(self, place: Place) -> Iterator[_Candidate]:
        if place.terminal is None:
            yield _NoWay("the program has no terminal"), None
            return
        if self._way == "auto" and is_textual(self._pinentry_program):
            yield self._pinentry(self._pinentry_program, place, place.terminal), place.terminal
        yield TerminalPrompter(place.terminal, self._timeout), place.terminal

    def _pinentry(self, program: str, place: Place, terminal: Terminal | None) -> PinentryPrompter:
        return PinentryPrompter(program, place.in_full(self._own), self._timeout, terminal)

    @property
    def _password_folder(self) -> Path:
        """The agent's own, never one that the asking process names."""
        run = self._own.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
        return Path(run, "systemd", "ask-password")

    @asynccontextmanager
    async def _turn(self, terminal: Terminal, request: AnyRequest) -> AsyncIterator[None]:
        """One question at a time on one terminal."""
        turn = self._turns.setdefault(terminal.path, asyncio.Lock())
        try:
            async with asyncio.timeout(self._timeout):
                await turn.acquire()
        except TimeoutError:
            raise request.failure(f"{terminal.path} is taken up by another question") from None
        try:
            yield
        finally:
            turn.release()


@asynccontextmanager
async def _while_it_runs(request: AnyRequest) -> AsyncIterator[None]:
    """Gives up when the asking process ends, though others may wait for the same PIN.

    Its shell is back on the terminal then, and would get some of what is typed.
    """
    if request.asker.pid is None:
        yield
        return
    reason = "the program that was to be asked for has ended"
    try:
        notice = os.pidfd_open(request.asker.pid)
    except OSError:
        raise request.unasked(reason) from None
    loop = asyncio.get_running_loop()

    def give_up() -> None:
        loop.remove_reader(notice)
        over.reschedule(loop.time())

    try:
        async with asyncio.timeout(None) as over:
            loop.add_reader(notice, give_up)
            yield
    except TimeoutError:
        raise request.failure(reason) from None
    finally:
        loop.remove_reader(notice)
        os.close(notice)


class _NoWay:
    """A way of asking that is not there."""

    def __init__(self, obstacle: str) -> None:
        self._obstacle = obstacle

    async def ask(self, request: PinRequest) -> Pin:
        raise request.unasked(self._obstacle)

    async def confirm(self, request: ConfirmRequest) -> bool:
        raise request.unasked(self._obstacle)
