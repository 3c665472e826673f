"""Questions for the user, and the interface of everything that can put them.

A request carries what the user must know to decide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol

from replug.protocol.secrets import wipe
from replug.protocol.visible_text import visible
from replug.token.errors import DeclinedError, NobodyAskedError, PromptError, Rejection, clauses
from replug.token.identity import TokenFlag, TokenId
from replug.token.pins.pin import LONGEST_PIN, Pin
from replug.token.prompts.processes import Command, command_of
from replug.token.prompts.shown import asked, shown
from replug.token.requester import Program

_AGAIN_IN_TIME = "try again; prompt_timeout in config.toml allows more time"


@dataclass(frozen=True)
class Origin:
    """Where questions come from: those of one origin are held back together, and one answer is for all."""

    program: Program | None = None
    """That of the process that connected; None if unknown."""
    host: bytes | None = b""
    """The key of the host that the agent is forwarded to; empty for this machine, None if it is not known."""
    command: Command | None = None
    """What that process belongs to; None if it has left that."""


class HeldBackError(PromptError):
    """The user was not asked, because the last questions of this origin were declined."""


@dataclass(frozen=True)
class Asker:
    """The program that the user is asked for."""

    program: str = ""
    """E.g. `ssh (pid 4711)`."""
    pid: int | None = None
    """The process id when it connected; says where the user can be asked."""
    purpose: tuple[str, ...] = ()
    """What is to be signed, one fact a line, ready to be shown: bounded in length, in printable ASCII."""
    executable: Program | None = None
    """See Origin."""
    host: bytes | None = b""
    """See Origin."""

    @cached_property
    def origin(self) -> Origin:
        """Where the question comes from; its process and that one's ancestors are looked at now."""
        return Origin(self.executable, self.host, command_of(self.pid))

    def lines(self) -> list[str]:
        """What is known, one fact a line; what the program calls itself last."""
        by = [f"asked for by {shown(self.program)}"] if self.program else []
        return [*self.purpose, *by]


@dataclass(frozen=True)
class PinRequest:
    """The question for a PIN: of which token, for which key and program, at what risk."""

    token: TokenId
    flags: TokenFlag
    key: str
    """The key's comment; empty if the PIN is not for one key."""
    asker: Asker
    rejection: Rejection | None = None
    """How the last PIN was refused, if that is why this is asked."""
    is_moot: Callable[[], bool] = field(default=lambda: False, compare=False)
    """Whether another question has brought a PIN meanwhile, right or wrong; then this is withdrawn."""

    def facts(self) -> list[str]:
        """The token, the key, and the program it is for, one a line."""
        lines = [f"PIN for {asked(_name_of(self.token))}"]
        if self.key:
            lines.append(f"to use the key {shown(self.key)}")
        return lines + self.asker.lines()

    def warnings(self) -> list[str]:
        """Warnings about the PIN tries, from the token's flags, one a line."""
        lines = []
        if self.rejection is not None:
            lines.append(self.rejection.value)
        if TokenFlag.USER_PIN_FINAL_TRY in self.flags:
            lines.append("LAST TRY: a wrong PIN locks the token.")
        elif TokenFlag.USER_PIN_COUNT_LOW in self.flags:
            if self.rejection is None:
                lines.append("A wrong PIN was entered since the last right one.")
            lines.append("The token reports that more than one try is left.")
        return lines

    def text(self) -> str:
        """Facts and warnings, one a line, as a prompt to type the PIN at."""
        return "\n".join([*self.facts(), *self.warnings(), "PIN: "])

    def pin(self, typed: bytearray) -> Pin:
        """The PIN typed in answer to this question, in the same buffer.

        Raises PromptError and wipes the buffer if it is empty or too long: cut short it would be a wrong PIN.
        """
        if 0 < len(typed) <= LONGEST_PIN:
            return Pin(typed, last_try_known=TokenFlag.USER_PIN_FINAL_TRY in self.flags)
        too_long = bool(typed)
        wipe(typed)
        if too_long:
            raise self.failure("the PIN entered is too long", f"a PIN has at most {LONGEST_PIN} bytes")
        raise self.cancelled()

    def failure(self, reason: str, next_step: str = "") -> PromptError:
        """The error to raise when there is no PIN."""
        return PromptError(f"{self.token}: {reason}", next_step)

    def nobody_asked(self, failures: Sequence[NobodyAskedError]) -> PromptError:
        """The error to raise when no way of asking is left."""
        return self.failure(
            f"the PIN is needed and there is no way to ask for it: {_reasons(failures)}",
            _first_step(failures) or "give it with ssh-add -s, or run the program on a terminal or a desktop",
        )

    def cancelled(self) -> DeclinedError:
        """The error to raise when the user gives no PIN."""
        return self._declined("the PIN prompt was cancelled", "try again and enter the PIN")

    def too_late(self, timeout: float, cause: str = "") -> DeclinedError:
        """The error to raise when there was no answer for `timeout` seconds; the `cause`, if it is known."""
        return self._declined(_with_cause(f"no PIN was entered within {timeout:g} s", cause), _AGAIN_IN_TIME)

    def held_back(self, pause: int) -> HeldBackError:
        """The error to raise when this is not asked, for `pause` seconds after the last question."""
        return _held_back(str(self.token), pause)

    def _declined(self, reason: str, next_step: str) -> DeclinedError:
        return DeclinedError(f"{self.token}: {reason}", next_step)


def _name_of(token: TokenId) -> str:
    """As users know it: by its label, and by the serial that is printed on it if the label has it not."""
    says_more = token.has_serial and token.serial not in token.label
    return str(token if says_more else replace(token, serial=""))


@dataclass(frozen=True)
class ConfirmRequest:
    """The question whether a key may be used, this once (SSH_AGENT_CONSTRAIN_CONFIRM)."""

    key: str
    """The key's comment."""
    fingerprint: str
    """E.g. `SHA256:` and base64."""
    asker: Asker

    def text(self) -> str:
        """OpenSSH's wording (ssh-agent.c, confirm_key), then the program it is for, one fact a line."""
        lines = [f"Allow use of key {asked(self.key)}?", f"Key fingerprint {self.fingerprint}."]
        return "\n".join([*lines, *self.asker.lines()])

    def failure(self, reason: str, next_step: str = "") -> PromptError:
        """The error to raise when there is no decision."""
        return PromptError(f"{self._subject}: {reason}", next_step)

    def nobody_asked(self, failures: Sequence[NobodyAskedError]) -> PromptError:
        """The error to raise when no way of asking is left."""
        return self.failure(
            f"the agent has no way to ask for it: {_reasons(failures)}",
            _first_step(failures) or "run the program on a terminal or a desktop",
        )

    def too_late(self, timeout: float, cause: str = "") -> DeclinedError:
        """The error to raise when there was no answer for `timeout` seconds; the `cause`, if it is known."""
        reason = _with_cause(f"{self._subject}: nobody answered within {timeout:g} s", cause)
        return DeclinedError(reason, _AGAIN_IN_TIME)

    def held_back(self, pause: int) -> HeldBackError:
        """The error to raise when this is not asked, for `pause` seconds after the last question."""
        return _held_back(self._subject, pause)

    @property
    def _subject(self) -> str:
        return f"key {visible(self.key)} needs a confirmation"


AnyRequest = PinRequest | ConfirmRequest


def _with_cause(reason: str, cause: str) -> str:
    return f"{reason}: {cause}" if cause else reason


def _held_back(subject: str, pause: int) -> HeldBackError:
    return HeldBackError(
        f"{subject}: the last questions of this program, for the same host, were declined",
        f"try again {pause} s after the last one",
    )


def _reasons(failures: Sequence[NobodyAskedError]) -> str:
    return clauses(*dict.fromkeys(failure.reason for failure in failures))


def _first_step(failures: Sequence[NobodyAskedError]) -> str:
    return next((failure.next_step for failure in failures if failure.next_step), "")


class Prompter(Protocol):
    """Asks the user. Cancelling the task that awaits an answer removes the question."""

    async def ask(self, request: PinRequest) -> Pin:
        """The PIN as typed; PromptError if the user could not be asked, cancelled, or gave no answer."""
        ...

    async def confirm(self, request: ConfirmRequest) -> bool:
        """Whether the user said yes; PromptError if the user could not be asked or gave no answer."""
        ...
