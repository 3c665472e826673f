"""What a person is asked, and what every way of asking can do.

A request carries what the person has to know to decide; a `Prompter` is one way of asking,
or the choice among several.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Protocol

from replug.protocol.secrets import wipe
from replug.token.errors import NobodyAskedError, PromptError
from replug.token.identity import TokenFlag, TokenId, printable
from replug.token.pins.pin import Pin

LONGEST_PIN = 255
"""In bytes; CK_ULONG would allow more, no token does."""
_LONGEST_SHOWN = 80  # characters; pinentry takes 1000 bytes for a whole question


@dataclass(frozen=True)
class Asker:
    """On whose behalf a person is asked, and so where to find that person."""

    program: str = ""
    """E.g. `ssh (pid 4711)`."""
    pid: int | None = None
    """The process, as it was when it connected."""
    purpose: tuple[str, ...] = ()
    """What is to be signed, one fact a line, ready to be shown: bounded in length, in printable ASCII."""

    def lines(self) -> list[str]:
        """What is known, one fact a line; what the program calls itself last."""
        by = [f"asked for by {_shown(self.program)}"] if self.program else []
        return [*self.purpose, *by]


@dataclass(frozen=True)
class PinRequest:
    """The question for a PIN: of which token, for which key, for whom, at what risk."""

    token: TokenId
    flags: TokenFlag
    key: str
    """The key's comment, or an empty string when no key is meant yet."""
    asker: Asker
    rejected: bool = False
    """The remembered PIN was rejected, so this question is not a repetition."""
    kind: ClassVar = "PIN prompt"

    def facts(self) -> list[str]:
        """Which token, which key, and for whom."""
        lines = [f"PIN for {_shown(str(self.token))}"]
        if self.key:
            lines.append(f"to use the key {_shown(self.key)}")
        return lines + self.asker.lines()

    def warnings(self) -> list[str]:
        """What else the person must know, as far as the token says."""
        lines = []
        if self.rejected:
            lines.append("The PIN remembered until now was rejected.")
        if TokenFlag.USER_PIN_FINAL_TRY in self.flags:
            lines.append("LAST TRY: a wrong PIN locks the token.")
        elif TokenFlag.USER_PIN_COUNT_LOW in self.flags:
            lines.append("A wrong PIN was entered since the last right one.")
        return lines

    def text(self) -> str:
        """All of it, one fact a line, as a prompt to type the PIN at."""
        return "\n".join(self.facts() + self.warnings()) + ": "

    def pin(self, typed: bytearray) -> Pin:
        """The PIN that was typed at this question, in the same buffer.

        PromptError, and a wiped buffer, if it cannot be one: cut short it would be a wrong PIN.
        """
        if 0 < len(typed) <= LONGEST_PIN:
            return Pin(typed, last_try_known=TokenFlag.USER_PIN_FINAL_TRY in self.flags)
        too_long = bool(typed)
        wipe(typed)
        if too_long:
            raise self.failure(f"the {self.kind} gave an answer that is too long")
        raise self.cancelled()

    def failure(self, reason: str, next_step: str = "") -> PromptError:
        """Why there is no PIN."""
        return PromptError(f"{self.token}: {reason}", next_step)

    def unasked(self, obstacle: str, next_step: str = "") -> NobodyAskedError:
        """Why nobody has seen the question."""
        return NobodyAskedError(str(self.token), obstacle, next_step)

    def nobody_to_ask(self, obstacles: Iterable[str]) -> PromptError:
        """No way of asking is left, each for its reason."""
        return self.failure(
            f"the PIN is needed and the agent has no way to ask for it: {'; '.join(obstacles)}",
            "give it with ssh-add -s, or run the program on a terminal or a desktop",
        )

    def cancelled(self) -> PromptError:
        """The person wants to give no PIN."""
        return self.failure(f"the {self.kind} was cancelled")

    def too_late(self, timeout: float) -> PromptError:
        """The question stood unanswered for `timeout` seconds."""
        return self.failure(f"no PIN was entered within {timeout:g} s")


@dataclass(frozen=True)
class ConfirmRequest:
    """The question whether a key may be used, this once (SSH_AGENT_CONSTRAIN_CONFIRM)."""

    key: str
    """The key's comment."""
    fingerprint: str
    """E.g. `SHA256:` and base64."""
    asker: Asker
    kind: ClassVar = "confirm prompt"

    def text(self) -> str:
        """OpenSSH's wording (ssh-agent.c, confirm_key), then for whom, one fact a line."""
        lines = [f"Allow use of key {_shown(self.key)}?", f"Key fingerprint {self.fingerprint}."]
        return "\n".join([*lines, *self.asker.lines()])

    def failure(self, reason: str, next_step: str = "") -> PromptError:
        """Why nobody decided."""
        return PromptError(f"{self._subject}: {reason}", next_step)

    def unasked(self, obstacle: str, next_step: str = "") -> NobodyAskedError:
        """Why nobody has seen the question."""
        return NobodyAskedError(self._subject, obstacle, next_step)

    def nobody_to_ask(self, obstacles: Iterable[str]) -> PromptError:
        """No way of asking is left, each for its reason."""
        return self.failure(
            f"the agent has no way to ask for it: {'; '.join(obstacles)}",
            "run the program on a terminal or a desktop",
        )

    def too_late(self, timeout: float) -> PromptError:
        """The question stood unanswered for `timeout` seconds."""
        return self.failure(f"nobody answered within {timeout:g} s")

    @property
    def _subject(self) -> str:
        return f"key {_shown(self.key)} needs a confirmation"


AnyRequest = PinRequest | ConfirmRequest


def _shown(text: str) -> str:
    """Text of a stranger's on one line, so short that it leaves room for ours."""
    return printable(
        text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 1]}\N{HORIZONTAL ELLIPSIS}"
    )


class Prompter(Protocol):
    """A way to ask a person. Cancelling the task that awaits an answer takes the question away.

    Of the PromptErrors, NobodyAskedError means that this way does not reach anybody.
    """

    async def ask(self, request: PinRequest) -> Pin:
        """The PIN as typed; PromptError when nobody could be asked, cancelled, or gave no answer."""
        ...

    async def confirm(self, request: ConfirmRequest) -> bool:
        """Whether a person said yes; PromptError when nobody could be asked, or gave no answer."""
        ...
