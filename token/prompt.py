"""What a person is asked, and what every way of asking can do.

A request carries what the person has to know to decide; a `Prompter` is one way of asking,
or the choice among several.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from replug.token.errors import PromptError
from replug.token.identity import TokenFlag, TokenIdentity, printable
from replug.token.pin import Pin

LONGEST_PIN = 255
"""In bytes; CK_ULONG would allow more, no token does."""


@dataclass(frozen=True)
class Asker:
    """On whose behalf a person is asked, and so where to find that person."""

    program: str = ""
    """E.g. `ssh (pid 4711)`."""
    pid: int | None = None
    """The process, as it was when it connected."""
    destination: str = ""
    """What is known of the host it is for; empty if nothing is."""

    def lines(self) -> list[str]:
        """What is known, one fact a line."""
        lines = []
        if self.program:
            lines.append(f"asked for by {printable(self.program)}")
        if self.destination:
            lines.append(f"for {printable(self.destination)}")
        return lines


@dataclass(frozen=True)
class PinRequest:
    """The question for a PIN: of which token, for which key, for whom, at what risk."""

    token: TokenIdentity
    flags: TokenFlag
    key: str
    """The key's comment, or an empty string when no key is meant yet."""
    asker: Asker
    rejected: bool = False
    """The remembered PIN was rejected, so this question is not a repetition."""
    kind: ClassVar = "PIN prompt"

    def description(self) -> str:
        """What the person has to know, one fact a line."""
        lines = [f"PIN for {self.token}"]
        if self.key:
            lines.append(f"to use the key {printable(self.key)}")
        lines.extend(self.asker.lines())
        if self.rejected:
            lines.append("The PIN remembered until now was rejected.")
        if TokenFlag.USER_PIN_FINAL_TRY in self.flags:
            lines.append("LAST TRY: a wrong PIN locks the token.")
        elif TokenFlag.USER_PIN_COUNT_LOW in self.flags:
            lines.append("A wrong PIN was entered since the last right one.")
        return "\n".join(lines)

    def text(self) -> str:
        """The description as a prompt, for a line to type the PIN on."""
        return self.description() + ": "

    def pin(self, typed: bytearray) -> Pin:
        """The PIN that was typed at this question, in the same buffer.

        PromptError, and a wiped buffer, if it cannot be one: cut short it would be a wrong PIN.
        """
        if 0 < len(typed) <= LONGEST_PIN:
            return Pin(typed, last_try_known=TokenFlag.USER_PIN_FINAL_TRY in self.flags)
        too_long = bool(typed)
        typed[:] = bytes(len(typed))
        if too_long:
            raise self.failure(f"the {self.kind} gave an answer that is too long")
        raise self.cancelled()

    def failure(self, reason: str, next_step: str = "") -> PromptError:
        """Why there is no PIN."""
        return PromptError(f"{self.token}: {reason}", next_step)

    def nobody_to_ask(self) -> PromptError:
        """No person can be reached."""
        return self.failure(
            "the PIN is needed and the agent has no way to ask for it",
            "give it with ssh-add -s, or start the agent where SSH_ASKPASS and DISPLAY are set",
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
        lines = [f"Allow use of key {printable(self.key)}?", f"Key fingerprint {self.fingerprint}."]
        return "\n".join([*lines, *self.asker.lines()])

    def failure(self, reason: str, next_step: str = "") -> PromptError:
        """Why nobody decided."""
        return PromptError(f"key {printable(self.key)} needs a confirmation: {reason}", next_step)

    def nobody_to_ask(self) -> PromptError:
        """No person can be reached."""
        return self.failure(
            "the agent has no way to ask for it", "start the agent where SSH_ASKPASS and DISPLAY are set"
        )

    def too_late(self, timeout: float) -> PromptError:
        """The question stood unanswered for `timeout` seconds."""
        return self.failure(f"nobody answered within {timeout:g} s")


class Prompter(Protocol):
    """A way to ask a person. Cancelling the task that awaits an answer takes the question away."""

    async def ask(self, request: PinRequest) -> Pin:
        """The PIN as typed; PromptError when nobody could be asked, cancelled, or gave no answer."""
        ...

    async def confirm(self, request: ConfirmRequest) -> bool:
        """Whether a person said yes; PromptError when nobody could be asked, or gave no answer."""
        ...
