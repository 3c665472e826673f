"""Why a token cannot do what was asked, in words a user can act on."""

from __future__ import annotations

from enum import Enum, StrEnum

from replug.token.identity import TokenId


class Verdict(StrEnum):
    """Why a worker refuses an operation.

    Most are answers, which the agent's side turns into another error or another attempt. A WorkerRefusedError
    that reaches `recovery.attempt`, as with FAILED, means that this worker must be replaced.
    """

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
    """A refusal: `reason` says what is wrong with what, `next_step` what the user can do about it."""

    def __init__(self, reason: str, next_step: str = "") -> None:
        self.reason = reason
        self.next_step = next_step
        super().__init__(clauses(reason, next_step))


def clauses(*texts: str) -> str:
    """The texts, without the empty ones, as one sentence: a full stop is left out before a semicolon."""
    *before, last = [text for text in texts if text] or [""]
    return "; ".join([*(text if text.endswith("..") else text.removesuffix(".") for text in before), last])


class TokenError(ExplainedError):
    """A token cannot do what was asked."""


class Rejection(Enum):
    """How a PIN was refused; the value is what the next prompt says about it."""

    REMEMBERED = "The PIN remembered until now was rejected."
    WRONG = "Wrong PIN."
    REPEATED = "That is the wrong PIN again. It was not sent."
    UNUSABLE = "The token does not accept a PIN like that: it is too short or too long."


class PinRejectedError(TokenError):
    """The token refused a PIN. It is forgotten and is not sent again."""

    def __init__(self, reason: str, next_step: str = "", rejection: Rejection | None = None) -> None:
        """`rejection` is None if it does not help to type another PIN."""
        super().__init__(reason, next_step)
        self.rejection = rejection


class PinLockedError(TokenError):
    """CKF_USER_PIN_LOCKED or CKR_PIN_LOCKED: too many wrong PINs."""

    def __init__(self, token: TokenId, next_step: str) -> None:
        super().__init__(f"{token}: the PIN is locked", next_step)


class TokenAbsentError(TokenError):
    """The token is in no slot."""


class ModuleUnreachableError(TokenError):
    """The module, or the service behind it, fails: a fresh worker did not help."""


class PinNeededError(Exception):
    """Login needs a PIN that only the user can give; `rejection` if the last one was refused."""

    def __init__(self, token: TokenId, rejection: Rejection | None = None) -> None:
        self.rejection = rejection
        super().__init__(f"{token} needs its PIN")


class PromptError(TokenError):
    """The user could not be asked, or gave no answer."""


class DeclinedError(PromptError):
    """The user was asked and declined, or gave no answer in time."""


class NobodyAskedError(PromptError):
    """One way to ask did not reach the user, so another may be tried; `reason` says why, in a few words."""


class WorkerLostError(Exception):
    """The worker process ended, missed a deadline or sent an invalid answer; it has been killed."""


class WorkerSilentError(WorkerLostError):
    """The worker missed a deadline. It may have been slow rather than hung."""


class WorkerRefusedError(Exception):
    """The worker's answer was a refusal; `value` is the CKR_ name of a module's error, if it was one."""

    def __init__(self, verdict: Verdict, reason: str, value: str = "") -> None:
        words, self.next_step = _MEANINGS.get(value, ("", ""))
        self.verdict = verdict
        self.value = value
        self.reason = f"{reason} ({words})" if words else reason
        super().__init__(self.reason)


_MEANINGS = {
    "CKR_CRYPTOKI_NOT_INITIALIZED": ("the module has ended its work", ""),
    "CKR_DEVICE_ERROR": ("the token, or the service behind the module, fails", ""),
    "CKR_DEVICE_MEMORY": ("the token's memory is full", "end other programs that use the token"),
    "CKR_DEVICE_REMOVED": ("the token was removed while it was used", ""),
    "CKR_FUNCTION_FAILED": ("the module gives no reason", ""),
    "CKR_FUNCTION_NOT_SUPPORTED": ("the module cannot do that", ""),
    "CKR_GENERAL_ERROR": ("the module gives no reason", ""),
    "CKR_HOST_MEMORY": ("the module gets no memory", ""),
    "CKR_KEY_FUNCTION_NOT_PERMITTED": ("this key may not be used for signatures", ""),
    "CKR_SESSION_CLOSED": ("the module closed the session", ""),
    "CKR_SESSION_COUNT": ("the token allows no more sessions", "end other programs that use the token"),
    "CKR_SESSION_EXISTS": ("another program is using the token", "end other programs that use the token"),
    "CKR_SESSION_HANDLE_INVALID": ("the module closed the session", ""),
    "CKR_TOKEN_NOT_RECOGNIZED": (
        "the module does not know this kind of token",
        "use the module of its maker",
    ),
    "CKR_USER_ANOTHER_ALREADY_LOGGED_IN": (
        "another user, such as the security officer, is logged in to the token",
        "end the program that logged in",
    ),
}
"""What errors of a module mean, and what the user can do, if there is something that helps for certain."""
