"""The user's consent to the use of a key: asked for, or given a while ago and remembered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from weakref import WeakValueDictionary

from replug.agent.config.key_match import rules_of
from replug.agent.config.settings import Settings
from replug.agent.keys.refusal import UseDeclinedError
from replug.protocol.purpose import Login, Purpose
from replug.protocol.signed_data import SshSignature
from replug.token.prompts.request import ConfirmRequest, Origin, Prompter
from replug.token.requester import Program


class Confirmed(StrEnum):
    """How a signature was confirmed, as the log says it."""

    NOT_REQUIRED = ""
    BY_USER = "by the user"
    BY_REMEMBERED_YES = "by a remembered yes"


@dataclass(frozen=True)
class _Consent:
    """What a remembered yes is good for."""

    key_blob: bytes
    program: Program
    hosts: tuple[bytes, ...]
    """The keys of the hosts that the agent is forwarded to."""
    view: str
    """The socket that it came over, if that is one for some of the keys."""
    signed: tuple[bytes, str] | bytes
    """Host key and user of a login, or the namespace of an SSHSIG."""


class Confirmations:
    """Asks through `prompter`; `clock` is the boot clock, in seconds."""

    def __init__(self, prompter: Prompter, settings: Settings, clock: Callable[[], float]) -> None:
        self._prompter = prompter
        self._settings = settings
        self._clock = clock
        self._asking: WeakValueDictionary[tuple[_Consent, Origin], asyncio.Lock] = WeakValueDictionary()
        self._remembered: dict[_Consent, float] = {}
        """With the times when they end."""
        self._forgotten = 0
        """How often all were forgotten."""

    async def confirm(
        self, key_blob: bytes, purpose: Purpose, question: ConfirmRequest, *, each_time: bool
    ) -> Confirmed:
        """Ask unless the user's yes to the same is remembered and `each_time` is not set.

        UseDeclinedError, PromptError if the answer is not yes.
        """
        seconds = 0.0 if each_time else self._seconds(purpose, key_blob, question.key)
        consent = _consent(key_blob, purpose, question.asker.executable) if seconds else None
        if consent is None:
            await self._ask(question)
            return Confirmed.BY_USER
        # The user may answer the same for another client meanwhile.
        async with self._asking.setdefault((consent, question.asker.origin), asyncio.Lock()):
            if self._remembered.get(consent, 0.0) > self._clock():
                return Confirmed.BY_REMEMBERED_YES
            forgotten = self._forgotten
            await self._ask(question)
            if forgotten == self._forgotten:
                self._remember(consent, seconds)
        return Confirmed.BY_USER

    async def _ask(self, question: ConfirmRequest) -> None:
        if not await self._prompter.confirm(question):
            raise UseDeclinedError(f"the user declined the use of key {question.fingerprint}")

    def forget(self) -> None:
        """Forget every yes, and the one to the question that is asked now."""
        self._forgotten += 1
        self._remembered.clear()

    def _seconds(self, purpose: Purpose, key_blob: bytes, comment: str) -> float:
        """How long a yes is remembered."""
        config = self._settings.config
        if purpose.forwarded:
            return config.confirm_for_forwarded
        said = (rule.confirm_for for rule in rules_of(config.key_rules, key_blob, comment.encode()))
        return next((seconds for seconds in said if seconds is not None), config.confirm_for)

    def _remember(self, consent: _Consent, seconds: float) -> None:
        now = self._clock()
        self._remembered = {known: end for known, end in self._remembered.items() if end > now}
        self._remembered[consent] = now + seconds


def _consent(key_blob: bytes, purpose: Purpose, program: Program | None) -> _Consent | None:
    """What a yes to this is good for; None if for this once only."""
    if program is None or purpose.unverified:
        return None
    hosts = tuple(host.key for host in purpose.forwarded_to)
    match purpose.signed:
        case Login(host, user):
            return _Consent(key_blob, program, hosts, purpose.view, (host.key, user))
        case SshSignature(namespace):
            return _Consent(key_blob, program, hosts, purpose.view, namespace)
    return None
