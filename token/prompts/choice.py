"""Chooses how to ask the user: where the program runs that needs the key."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from replug.token.boottime import boottime
from replug.token.errors import NobodyAskedError
from replug.token.offload import Share, TooManyThreadsError, in_daemon_thread
from replug.token.pins.pin import Pin
from replug.token.prompts.askpass import AskpassPrompter
from replug.token.prompts.dialog import find_program
from replug.token.prompts.password_agent import PasswordAgentPrompter
from replug.token.prompts.pinentry import PinentryPrompter, find_pinentry, is_textual
from replug.token.prompts.place import Place, Terminal, find_place
from replug.token.prompts.request import AnyRequest, Asker, ConfirmRequest, PinRequest, Prompter
from replug.token.prompts.restraint import Restraint
from replug.token.prompts.terminal import TerminalPrompter
from replug.token.prompts.terminals import Terminals
from replug.token.prompts.turns import QuestionTurns
from replug.token.prompts.way import PromptWay

log = logging.getLogger(__name__)

T = TypeVar("T")

_LONGEST_LOOK = 5.0  # seconds, to find the asking process's place and the programs to ask with


class Way(Prompter, Protocol):
    """One way to ask; `str()` describes it, such as `/usr/bin/pinentry-qt on display :0`."""

    @property
    def terminal(self) -> Terminal | None:
        """The terminal that it occupies."""

    def check(self) -> None:
        """Raise NobodyAskedError if asking is bound to fail, where that shows without asking."""


class ChoosingPrompter:
    """Asks by the first way that works where the asking process runs.

    On a display that is a pinentry with windows, else askpass; on a terminal, the terminal; where there is
    neither, systemd's password agents if their folder exists. SSH_ASKPASS_REQUIRE has the meaning it has for
    ssh: with force and prefer, askpass comes first; with never, there are no dialogs.
    """

    def __init__(
        self,
        own: Mapping[str, str],
        timeout: float,
        *,
        way: PromptWay,
        pinentry_program: str | None,
        environment_of: Callable[[int], Mapping[str, str]],
        terminals: Terminals,
    ) -> None:
        """`own` is the agent's environment, `timeout` how long a question may stay unanswered, in seconds.

        A `way` other than auto is the only one tried. `pinentry_program` is a path, or a name to look up in
        PATH; None takes the first pinentry there is. `environment_of` reads the environment of a process,
        which may block; it is empty if it cannot be read. `terminals` uses terminals for this process.
        """
        self._own = own
        self._timeout = timeout
        self._way = way
        self._pinentry_program = pinentry_program
        self._environment_of = environment_of
        self._terminals = terminals
        self._turns = QuestionTurns(timeout)
        self._restraint = Restraint(boottime)

    async def ask(self, request: PinRequest) -> Pin:
        """The PIN, by the first way that works."""
        return await self._by_first_way(request, lambda way: self._restraint.ask(way, request))

    async def confirm(self, request: ConfirmRequest) -> bool:
        """Yes or no, by the first way that works."""
        return await self._by_first_way(request, lambda way: self._restraint.confirm(way, request))

    def ways(self, pid: int | None) -> list[Way]:
        """The ways to ask the user of process `pid` (None: of the agent), in the order they are tried.

        This reads /proc and searches PATH, both of which can block: call it in a thread.
        """
        return self._look(pid)[1]

    def _look(self, pid: int | None) -> tuple[Place, list[Way]]:
        place = find_place(pid, self._own, self._environment_of)
        return place, list(self._ways(place))

    def _look_for(self, asker: Asker, pid: int | None) -> tuple[Place, list[Way]]:
        asker.origin  # noqa: B018 - it reads /proc, and keeps what it finds
        return self._look(pid)

    async def _by_first_way(self, request: AnyRequest, question: Callable[[Way], Awaitable[T]]) -> T:
        failures: list[NobodyAskedError] = []
        place, ways = await self._ways_to_ask(request)
        for way in ways:
            try:
                if way.terminal is None:
                    async with self._turns.turn(place.display or "the desktop", request):
                        return await question(way)
                async with _while_it_runs(request), self._turns.turn(way.terminal.path, request):
                    return await question(way)
            except NobodyAskedError as error:
                log.debug("a way of asking does not work", extra={"reason": error.reason})
                failures.append(error)
        raise request.nobody_asked(failures)

    async def _ways_to_ask(self, request: AnyRequest) -> tuple[Place, list[Way]]:
        # A process can make reading its /proc files last, and so can a network drive in PATH.
        looks = ((Share.ASKING_PROGRAMS, request.asker.pid), (Share.PROMPT_PROGRAMS, None))
        for share, pid in looks:
            try:
                async with asyncio.timeout(_LONGEST_LOOK):
                    return await in_daemon_thread(share, partial(self._look_for, request.asker, pid))
            except (TimeoutError, TooManyThreadsError):
                log.warning("cannot find out where the asking process runs", extra={"pid": pid})
        raise request.nobody_asked([NobodyAskedError("the folders of PATH do not answer")])

    def _ways(self, place: Place) -> Iterator[Way]:
        askpass = AskpassPrompter(place.in_full(self._own), self._timeout)
        match self._way:
            case "askpass":
                yield askpass
            case "pinentry":
                if place.has_display:
                    yield self._pinentry(place, None)
                yield self._pinentry(place, place.terminal) if place.terminal else _NO_TERMINAL
            case "terminal":
                yield self._on_terminal(place)
            case "systemd":
                yield PasswordAgentPrompter(self._password_folder, self._timeout)
            case "auto":
                require = place.in_full(self._own).get("SSH_ASKPASS_REQUIRE")
                askpass_first = require in ("force", "prefer")
                if askpass_first:
                    yield askpass
                if place.terminal_first:
                    yield self._on_terminal(place)
                if place.has_display and require != "never":
                    yield self._pinentry(place, None)
                if not askpass_first:
                    yield askpass
                if not place.terminal_first:
                    yield self._on_terminal(place)
                # It cannot be seen whether an agent watches the folder; that it exists shows that one has.
                if self._password_folder.is_dir():
                    yield PasswordAgentPrompter(self._password_folder, self._timeout)

    def _on_terminal(self, place: Place) -> Way:
        if place.terminal is None:
            return _NO_TERMINAL
        if self._way == "auto" and self._pinentry_program is not None:
            program = find_program(self._pinentry_program, self._own.get("PATH"))
            if program is not None and is_textual(program):
                return self._pinentry(place, place.terminal)
        return TerminalPrompter(place.terminal, self._timeout, self._terminals)

    def _pinentry(self, place: Place, terminal: Terminal | None) -> Way:
        """The pinentry on `terminal`, or without one on the display."""
        windows = terminal is None
        path = self._own.get("PATH")
        if self._pinentry_program is None:
            program = find_pinentry(path, windows=windows)
            if program is None:
                kind = "pinentry with windows" if windows else "pinentry"
                return _NoWay(f"no {kind} is installed", "install pinentry-gnome3 or pinentry-qt")
        else:
            program = find_program(self._pinentry_program, path)
            if program is None:
                return _NoWay(f"pinentry_program {self._pinentry_program} cannot be run", _OTHER_PINENTRY)
            if windows and is_textual(program):
                return _NoWay(f"pinentry_program {self._pinentry_program} has no windows", _OTHER_PINENTRY)
        return PinentryPrompter(program, place.in_full(self._own), self._timeout, terminal, self._terminals)

    @property
    def _password_folder(self) -> Path:
        """From the agent's environment, never from that of the asking process."""
        run = self._own.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
        return Path(run, "systemd", "ask-password")


@asynccontextmanager
async def _while_it_runs(request: AnyRequest) -> AsyncIterator[None]:
    """Raises when the asking process ends, although others may be waiting for the same PIN.

    Its shell is back on the terminal then, and would receive part of what is typed.
    """
    if request.asker.pid is None:
        yield
        return
    reason = "the program that asked has ended"
    try:
        notice = os.pidfd_open(request.asker.pid)
    except OSError:
        raise NobodyAskedError(reason) from None
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
    """A way of asking that does not exist here."""

    def __init__(self, reason: str, next_step: str = "") -> None:
        self._reason = reason
        self._next_step = next_step
        self.terminal: Terminal | None = None

    def check(self) -> None:
        raise NobodyAskedError(self._reason, self._next_step)

    async def ask(self, request: PinRequest) -> Pin:
        raise NobodyAskedError(self._reason, self._next_step)

    async def confirm(self, request: ConfirmRequest) -> bool:
        raise NobodyAskedError(self._reason, self._next_step)


_NO_TERMINAL = _NoWay("the program has no terminal")
_OTHER_PINENTRY = "set another pinentry_program in config.toml, or remove it to use any that is installed"
