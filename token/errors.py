"""Why a token cannot do what was asked, in words a user can act on."""

from __future__ import annotations

from enum import StrEnum

from replug.token.identity import TokenId


class Verdict(StrEnum):
    """How a worker refuses. All but FAILED are answers; after FAILED this worker is of no further use."""

    PIN_INCORRECT = "pin-incorrect"
    PIN_LOCKED = "pin-locked"
    PIN_UNUSABLE = "pin-unusable"  # wrong length or characters: it never reached the token's counter
    PIN_NOT_SET = "pin-not-set"
    LOGIN_CANCELLED = "login-cancelled"
    MECHANISM = "mechanism"
    NOT_A_MODULE = "not-a-module"
    NOT_A_KEY = "not-a-key"
    TOKEN_ABSENT = "token-absent"  # noqa: S105 - not a password
    NOT_LOGGED_IN = "not-logged-in"
    FAILED = "failed"


class ExplainedError(Exception):
    """A refusal: `reason` names the thing and what is wrong, `next_step` what the user can do about it."""

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
    """Login needs a PIN that only the user can give; `rejected` if the remembered one was refused."""

    def __init__(self, token: TokenId, *, rejected: bool = False) -> None:
        self.rejected = rejected
        super().__init__(f"{token} needs its PIN")


class PromptError(TokenError):
    """The user could not be asked, or gave no answer."""


class NobodyAskedError(PromptError):
    """One way to ask did not reach the user, so another may be tried; `reason` is for a list of such."""


class WorkerLostError(Exception):
    """The worker process ended, hung or talked nonsense; it has been killed."""


class WorkerRefusedError(Exception):
    """The worker's answer was a refusal."""

    def __init__(self, verdict: Verdict, reason: str) -> None:
        self.verdict = verdict
        self.reason = reason
        super().__init__(reason)
