"""What the configuration file decides: typed values and their defaults. `config_file` reads them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from replug.token.identity import TokenId
from replug.token.pins.lifetime import ForgetOn
from replug.token.prompts.way import PromptWay
from replug.token.worker.deadlines import Deadlines

if TYPE_CHECKING:
    from replug.token.pins.source import PinSource
    from replug.token.uri import Uri

AUTO = "auto"
"""In `modules`: whatever modules the machine has."""


@dataclass(frozen=True)
class Problem:
    """What is wrong with the file, and in which line if it is one."""

    line: int | None
    message: str


class ConfigError(Exception):
    """The file cannot be read or says what has no meaning; the text has a line `file:line: message` for each
    of `problems`."""

    def __init__(self, path: Path, problems: Sequence[Problem]) -> None:
        self.path = path
        self.problems = tuple(problems)
        super().__init__("\n".join(in_words(path, problem) for problem in problems))


def in_words(path: Path, problem: Problem) -> str:
    """`file:line: message`, as compilers say it."""
    return f"{path}{f':{problem.line}' if problem.line else ''}: {problem.message}"


@dataclass(frozen=True)
class TokenSettings:
    """How one token is treated: what its `[[token]]` entry says, and the rest of the file."""

    workers: int
    """How many processes load its module."""
    pin_source: PinSource | None
    """Where the PIN comes from; None is a person."""
    pin_time_to_live: int | None
    """Seconds a PIN is kept after it was entered; None is for the session."""
    pin_idle_time: int | None
    """Seconds a PIN is kept after its last use; None is for the session."""
    forget_pin_on: frozenset[ForgetOn]
    keys: tuple[str, ...]
    """Which keys are offered, in this order, for `replug.agent.config.key_choice`."""
    confirm: bool
    """Whether a person is asked before each use of a key."""
    comment: str
    """The keys' comment, for `replug.agent.config.comment_template`."""
    lifetime: int | None
    """Seconds its keys are kept; 0 is for ever, None is what holds for all identities."""


@dataclass(frozen=True)
class TokenEntry:
    """One `[[token]]`. What is None is not in it, and the rest of the file decides."""

    uri: Uri
    module: str | None = None
    """The module that serves it, without ssh-add; through another module the entry does not hold."""
    workers: int | None = None
    pin_source: PinSource | None = None
    """Where the PIN comes from; None is a person."""
    pin_time_to_live: int | None = None
    """0 is never, which may differ from what holds for all tokens."""
    pin_idle_time: int | None = None
    forget_pin_on: frozenset[ForgetOn] | None = None
    keys: tuple[str, ...] = ("*",)
    confirm: bool = False
    comment: str = "{label}"
    lifetime: int | None = None

    def matches(self, identity: TokenId, module: str | None) -> bool:
        """Whether the entry holds for this token, seen through `module` (a real path; None: through any)."""
        if not self.uri.matches_token(identity):
            return False
        return module is None or self.module in (None, module) or os.path.realpath(self.module) == module


@dataclass(frozen=True)
class Config:
    """All of the file. Times are in seconds."""

    operation_timeout: float = Deadlines.operation
    touch_timeout: float = Deadlines.touch
    keypad_timeout: float = Deadlines.keypad
    prompt_timeout: float = 120.0
    """How long a PIN prompt may stand unanswered."""
    wait_for_token: float = 0.0
    """How long a request waits for a token that is out; 0 refuses it at once."""
    default_lifetime: int = 0
    """How long identities are kept that were added without a lifetime; 0 is for ever (-t)."""
    allowed_modules: str = "/usr/lib*/*,/usr/local/lib*/*"
    """A pattern list for the real paths of the modules that may be loaded (-P)."""
    modules: tuple[str, ...] = (AUTO,)
    """What is served without ssh-add: paths, URIs, and `AUTO`."""
    certificates: tuple[str, ...] = ()
    """Absolute paths of OpenSSH certificates, with wildcards as the shell has them."""
    workers: int = 1
    pin_time_to_live: int | None = None
    pin_idle_time: int | None = None
    forget_pin_on: frozenset[ForgetOn] = frozenset()
    prompt: PromptWay = "auto"
    pinentry_program: str | None = None
    """A path, or a name to look up in PATH; None is the first pinentry that is found."""
    touch_notification: float | None = 1.0
    """How long a signature takes before a notification asks for a touch; None is no notification."""
    tokens: tuple[TokenEntry, ...] = ()

    @property
    def deadlines(self) -> Deadlines:
        """How long workers may take."""
        return Deadlines(self.operation_timeout, self.touch_timeout, self.keypad_timeout)

    def for_token(self, identity: TokenId, module: str | None = None) -> TokenSettings:
        """What holds for this token, seen through the module with the real path `module`.

        The first `[[token]]` that matches decides; what it leaves out is taken from the rest of the file.
        """
        return self.settings(self.entry_for(identity, module))

    def entry_for(self, identity: TokenId, module: str | None = None) -> TokenEntry | None:
        """The `[[token]]` that holds for this token, seen through the module with this real path."""
        return next((entry for entry in self.tokens if entry.matches(identity, module)), None)

    def settings(self, entry: TokenEntry | None = None) -> TokenSettings:
        """What holds for the tokens of `entry`; without one, for those that no entry is about."""
        if entry is None:
            from replug.token.uri import Uri

            entry = TokenEntry(Uri())
        times = [
            (own or None) if own is not None else common
            for own, common in (
                (entry.pin_time_to_live, self.pin_time_to_live),
                (entry.pin_idle_time, self.pin_idle_time),
            )
        ]
        return TokenSettings(
            workers=self.workers if entry.workers is None else entry.workers,
            pin_source=entry.pin_source,
            pin_time_to_live=times[0],
            pin_idle_time=times[1],
            forget_pin_on=self.forget_pin_on if entry.forget_pin_on is None else entry.forget_pin_on,
            keys=entry.keys,
            confirm=entry.confirm,
            comment=entry.comment,
            lifetime=entry.lifetime,
        )

    @property
    def forgets_on_session_events(self) -> bool:
        """Whether any PIN is forgotten at a screen lock or suspend, so that logind has to be listened to."""
        wanted = {ForgetOn.SCREEN_LOCK, ForgetOn.SUSPEND}
        said = [self.forget_pin_on, *(entry.forget_pin_on for entry in self.tokens)]
        return any(wanted & forget_on for forget_on in said if forget_on is not None)

    def workers_for(self, module: str) -> int:
        """How many processes load the module with this real path."""
        for entry in self.tokens:
            named = entry.module is not None and os.path.realpath(entry.module) == module
            if named and entry.workers is not None:
                return entry.workers
        return self.workers

    def providers(self) -> tuple[str, ...]:
        """What to serve at the start: `modules`, and each token whose entry names its module, as a URI."""
        named = [
            str(replace(entry.uri, module_path=entry.module))
            for entry in self.tokens
            if entry.module is not None
        ]
        return tuple(dict.fromkeys([*self.modules, *named]))
