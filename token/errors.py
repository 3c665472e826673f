"""Why a token cannot do what was asked, in words a person can act on."""

from __future__ import annotations

from replug.token.identity import TokenId
from replug.token.worker.frames import Verdict


class ExplainedError(Exception):
    """A refusal: `reason` names the thing and what is wrong, `next_step` the way out, for a person."""

    def __init__(self, reason: str, next_step: str = "") -> None:
        self.reason = reason
        self.next_step = next_step
        super().__init__(f"{reason}; {next_step}" if next_step else reason)


class TokenError(ExplainedError):
    """A token cannot do what was asked."""


class PinRejectedError(TokenError):
    """The token counted a wrong PIN. It is forgotten and is not sent again."""


class PinLockedError(TokenError):
    """CKF_USER_PIN_LOCKED or CKR_PIN_LOCKED: too many wrong PINs."""

    def __init__(self, token: TokenId) -> None:
        super().__init__(f"{token}: the PIN is locked", "unblock it with the PUK")


class TokenAbsentError(TokenError):
    """The token is in no slot."""


class ModuleUnreachableError(TokenError):
    """The module, or the service behind it, fails: a fresh worker did not help."""


class PinNeededError(Exception):
    """Login needs a PIN that only a person can give; `rejected` if the remembered one was refused."""

    def __init__(self, token: TokenId, *, rejected: bool = False) -> None:
        self.rejected = rejected
        super().__init__(f"{token} needs its PIN")


class PromptError(TokenError):
    """A person could not be asked, or gave no answer."""


class NobodyAskedError(PromptError):
    """No person has seen the question, so another way may be tried; `obstacle` says why, for a list."""

    def __init__(self, subject: str, obstacle: str, next_step: str = "") -> None:
        super().__init__(f"{subject}: {obstacle}", next_step)
        self.obstacle = obstacle


class WorkerLostError(Exception):
    """The worker process ended, hung or talked nonsense; it has been killed."""


class WorkerRefusedError(Exception):
    """The worker's answer was a refusal."""

    def __init__(self, verdict: Verdict, detail: str) -> None:
        self.verdict = verdict
        self.detail = detail
        super().__init__(detail)
