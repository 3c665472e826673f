"""The values of the configuration file, typed, with their defaults."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from replug.agent.config.ca_entry import CaEntry
from replug.agent.config.certificate_rule import CertificateRule
from replug.agent.config.confirm_when import ConfirmWhen
from replug.agent.config.key_rule import KeyRule
from replug.agent.config.socket_entry import SocketEntry
from replug.token.identity import TokenId
from replug.token.pins.lifetime import ForgetOn
from replug.token.prompts.way import PromptWay
from replug.token.worker.deadlines import Deadlines

if TYPE_CHECKING:
    from replug.token.names.pin_source import PinSource
    from replug.token.names.uri import Uri

AUTO = "auto"
"""In `modules` the modules that the machine has; as `pinentry_program` the first pinentry that it has."""


@dataclass(frozen=True)
class Problem:
    """An error in the file, with its line if it has one."""

    line: int | None
    message: str


class ConfigError(Exception):
    """The file cannot be read or has errors; the text has a line `file:line: message` for each problem."""

    def __init__(self, path: Path, problems: Sequence[Problem], fix: str = "") -> None:
        """`fix` is a command that cures all of them, if there is one."""
        self.path = path
        self.problems = tuple(problems)
        self.fix = fix
        super().__init__("\n".join(in_words(path, problem) for problem in problems))


def in_words(path: Path, problem: Problem) -> str:
    """`file:line: message`, as compilers write it."""
    return f"{path}{f':{problem.line}' if problem.line else ''}: {problem.message}"


@dataclass(frozen=True)
class TokenSettings:
    """The settings of one token: from its `[[token]]` entry, else from the rest of the file."""

    workers: int
    """How many processes load its module."""
    pin_source: PinSource | None
    """Where the PIN comes from; None is the user."""
    pin_time_to_live: int | None
    """Seconds a PIN is kept after it was entered; None is for the session."""
    pin_idle_time: int | None
    """Seconds a PIN is kept after its last use; None is for the session."""
    forget_pin_on: frozenset[ForgetOn]
    keys: tuple[str, ...]
    """The keys to offer, in this order (see `replug.agent.config.key_choice`)."""
    confirm: ConfirmWhen
    """When the user has to confirm the use of a key."""
    comment: str
    """The template of the keys' comment (see `replug.agent.config.comment_template`)."""
    lifetime: int | None
    """Seconds its keys are kept; 0 is for ever, None is the default of all identities."""


@dataclass(frozen=True)
class TokenEntry:
    """One `[[token]]`. A value of None is not in it: the rest of the file decides."""

    uri: Uri
    module: str | None = None
    """The module to serve it through, without ssh-add; the entry does not apply to other modules."""
    workers: int | None = None
    pin_source: PinSource | None = None
    """Where the PIN comes from; None is the user."""
    pin_time_to_live: int | None = None
    """Seconds; 0 is no limit, whatever the rest of the file says."""
    pin_idle_time: int | None = None
    forget_pin_on: frozenset[ForgetOn] | None = None
    keys: tuple[str, ...] = ("*",)
    confirm: ConfirmWhen | None = None
    comment: str = "{label}"
    lifetime: int | None = None

    def __post_init__(self) -> None:
        self.real_module  # noqa: B018 - now, where it may take as long as the file system likes

    @cached_property
    def real_module(self) -> str | None:
        """Where `module` led when this was read."""
        return None if self.module is None else os.path.realpath(self.module)

    def matches(self, identity: TokenId, module: str) -> bool:
        """Whether the entry applies to this token when it is served through `module` (a real path)."""
        if not self.uri.matches_token(identity):
            return False
        return self.module is None or module in (self.module, self.real_module)


@dataclass(frozen=True)
class Config:
    """The whole file. Times are in seconds."""

    operation_timeout: float = Deadlines.operation
    touch_timeout: float = Deadlines.touch
    keypad_timeout: float = Deadlines.keypad
    prompt_timeout: float = 120.0
    """How long a PIN prompt may stay unanswered."""
    wait_for_token: float = 0.0
    """How long a request waits for an absent token; 0 refuses it at once."""
    default_lifetime: int = 0
    """Lifetime of identities that were added without one; 0 is for ever (-t)."""
    allowed_modules: str = "/usr/lib*/*,/usr/local/lib*/*"
    """A pattern list for the real paths of the modules that may be loaded (-P)."""
    modules: tuple[str, ...] = (AUTO,)
    """The modules to serve without ssh-add: paths, URIs, and `AUTO`."""
    certificates: tuple[str, ...] = ()
    """Absolute paths of OpenSSH certificates, with wildcards as the shell has them."""
    upstreams: tuple[str, ...] = ()
    """Absolute paths of other agents' sockets."""
    workers: int = 1
    pin_time_to_live: int | None = None
    pin_idle_time: int | None = None
    forget_pin_on: frozenset[ForgetOn] = frozenset()
    prompt: PromptWay = "auto"
    pinentry_program: str | None = None
    """A path, or a name to look up in PATH; None is the first pinentry that is found."""
    confirm: ConfirmWhen = ConfirmWhen.NEVER
    """When the user has to confirm the use of a key; that of a token may have its own setting."""
    confirm_for: int = 0
    """How long a yes is remembered for the same key, program and purpose; 0 is for this once."""
    confirm_for_forwarded: int = 0
    """The same for requests over a forwarded connection."""
    touch_notification: float | None = 1.0
    """How long a signature takes before a notification asks for a touch; None is never."""
    tokens: tuple[TokenEntry, ...] = ()
    key_rules: tuple[KeyRule, ...] = ()
    cas: tuple[CaEntry, ...] = ()
    """The keys that sign certificates only."""
    certificate_rules: tuple[CertificateRule, ...] = ()
    sockets: tuple[SocketEntry, ...] = ()
    """More sockets, for some of the keys."""

    @property
    def deadlines(self) -> Deadlines:
        """How long workers may take."""
        return Deadlines(self.operation_timeout, self.touch_timeout, self.keypad_timeout)

    def for_token(self, identity: TokenId, module: str) -> TokenSettings:
        """The settings of this token when it is served through `module` (a real path).

        The first `[[token]]` that matches applies; what it leaves out is taken from the rest of the file.
        """
        return self.settings(self.entry_for(identity, module))

    def entry_for(self, identity: TokenId, module: str) -> TokenEntry | None:
        """The `[[token]]` that applies to this token when it is served through `module` (a real path)."""
        return next((entry for entry in self.tokens if entry.matches(identity, module)), None)

    def ca(self, fingerprint: str) -> CaEntry | None:
        """The `[[ca]]` of the key with this fingerprint (SHA256)."""
        return next((entry for entry in self.cas if entry.key == fingerprint), None)

    @cached_property
    def own_rules(self) -> tuple[CertificateRule, ...]:
        """Those of `certificate_rules` that are for the agent's user."""
        return tuple(rule for rule in self.certificate_rules if not rule.users)

    @cached_property
    def guest_rules(self) -> tuple[CertificateRule, ...]:
        """Those that are for other users."""
        return tuple(rule for rule in self.certificate_rules if rule.users)

    @cached_property
    def ruled_hosts(self) -> tuple[str, ...]:
        """The hosts of all rules, as these name them."""
        rules: tuple[CertificateRule | KeyRule | SocketEntry, ...] = (
            *self.certificate_rules,
            *self.key_rules,
            *self.sockets,
        )
        return tuple(host for rule in rules for host in rule.hosts)

    def settings(self, entry: TokenEntry | None) -> TokenSettings:
        """The settings of the tokens that `entry` applies to; None: of those that no entry applies to."""
        if entry is None:
            from replug.token.names.uri import Uri

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
            confirm=self.confirm if entry.confirm is None else entry.confirm,
            comment=entry.comment,
            lifetime=entry.lifetime,
        )

    @property
    def forgets_on_session_events(self) -> bool:
        """Whether any PIN is forgotten at a screen lock or suspend, which logind has to report."""
        wanted = {ForgetOn.SCREEN_LOCK, ForgetOn.SUSPEND}
        said = [self.forget_pin_on, *(entry.forget_pin_on for entry in self.tokens)]
        return any(wanted & forget_on for forget_on in said if forget_on is not None)

    def workers_for(self, module: str) -> int:
        """How many processes load the module with the real path `module`."""
        for entry in self.tokens:
            if entry.real_module == module and entry.workers is not None:
                return entry.workers
        return self.workers

    def providers(self) -> tuple[str, ...]:
        """The providers to serve at the start: `modules`, and URIs of tokens whose entries name a module."""
        named = [
            str(replace(entry.uri, module_path=entry.module))
            for entry in self.tokens
            if entry.module is not None
        ]
        return tuple(dict.fromkeys([*self.modules, *named]))
