"""The user's consent to the use of a key: asked for, or given a while ago and remembered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from replug.agent.config.settings import Settings
from replug.agent.keys.refusal import RequestRefusedError
from replug.agent.turns import MOST_WAITING, TooManyWaitingError, Turns
from replug.protocol.purpose import Login, Purpose
from replug.protocol.signed_data import SshSignature
from replug.token.prompts.request import ConfirmRequest, Origin, Prompter


class Confirmed(StrEnum):
    """How a signature was confirmed, as the log says it."""

    NOT_REQUIRED = ""
    BY_USER = "by the user"
    BY_REMEMBERED_YES = "by a remembered yes"


@dataclass(frozen=True)
class _Consent:
    """What a remembered yes is good for."""

    key_blob: bytes
    program: tuple[int, int]
    """Its executable."""
    hosts: tuple[bytes, ...]
    """The keys of the hosts that the agent is forwarded to."""
    signed: tuple[bytes, str] | bytes
    """Host key and user of a login, or the namespace of an SSHSIG."""


class Confirmations:
    """Asks through `prompter`, one question at a time; `clock` is the boot clock, in seconds."""

    def __init__(self, prompter: Prompter, settings: Settings, clock: Callable[[], float]) -> None:
        self._prompter = prompter
        self._settings = settings
        self._clock = clock
        self._turns = Turns()
        self._remembered: dict[_Consent, float] = {}
        """With the times when they end."""
        self._forgotten = 0
        """How often all were forgotten."""

    async def confirm(
        self, key_blob: bytes, purpose: Purpose, question: ConfirmRequest, *, each_time: bool
    ) -> Confirmed:
        """Ask unless the user's yes to the same is remembered and `each_time` is not set.

        RequestRefusedError, PromptError if the answer is not yes.
        """
        origin = question.asker.origin
        consent = None if each_time else _consent(key_blob, purpose, origin)
        if self._remembers(consent):
            return Confirmed.BY_REMEMBERED_YES
        try:
            async with self._turns.turn(origin):
                # The user may have answered the same for another client meanwhile.
                if self._remembers(consent):
                    return Confirmed.BY_REMEMBERED_YES
                forgotten = self._forgotten
                if not await self._prompter.confirm(question):
                    raise RequestRefusedError(f"the user declined the use of key {question.fingerprint}")
                if consent is not None and forgotten == self._forgotten:
                    self._remember(consent, purpose)
        except TooManyWaitingError:
            raise question.failure(
                f"{MOST_WAITING} questions of the same program and host are waiting for an answer",
                "answer them, or end the program that asks",
            ) from None
        return Confirmed.BY_USER

    def forget(self) -> None:
        """Forget every yes, and the one to the question that is asked now."""
        self._forgotten += 1
        self._remembered.clear()

    def _remembers(self, consent: _Consent | None) -> bool:
        return consent is not None and self._remembered.get(consent, 0.0) > self._clock()

    def _remember(self, consent: _Consent, purpose: Purpose) -> None:
        config, now = self._settings.config, self._clock()
        seconds = config.confirm_for_forwarded if purpose.forwarded else config.confirm_for
        self._remembered = {known: end for known, end in self._remembered.items() if end > now}
        if seconds:
            self._remembered[consent] = now + seconds


def _consent(key_blob: bytes, purpose: Purpose, origin: Origin) -> _Consent | None:
    """What a yes to this is good for; None if for this once only."""
    if origin.program is None or purpose.unverified:
        return None
    hosts = tuple(host.key for host in purpose.forwarded_to)
    match purpose.signed:
        case Login(host, user):
            return _Consent(key_blob, origin.program, hosts, (host.key, user))
        case SshSignature(namespace):
            return _Consent(key_blob, origin.program, hosts, namespace)
    return None
