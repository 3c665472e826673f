"""The agent's refusals. The reply is only FAILURE (RFC 9987 section 5.1); the log and `replug` show why."""

from __future__ import annotations

from replug.protocol.keys import fingerprint
from replug.protocol.purpose import Purpose
from replug.token.errors import ExplainedError


class RequestRefusedError(ExplainedError):
    """The agent refuses a request."""


class UseDeclinedError(RequestRefusedError):
    """The user was asked whether a key may be used, and said no."""


class SignRefusedError(RequestRefusedError):
    """A signature for this purpose was refused, or could not be made."""

    def __init__(self, purpose: Purpose, reason: str, next_step: str = "") -> None:
        super().__init__(reason, next_step)
        self.purpose = purpose


class ExtensionRefusedError(RequestRefusedError):
    """An extension that the agent knows was refused (RFC 9987 section 5.8)."""


def locked() -> RequestRefusedError:
    """The refusal of a request that a locked agent does not serve."""
    return RequestRefusedError("the agent is locked", "unlock it with ssh-add -X")


def unknown_key(blob: bytes) -> RequestRefusedError:
    """The refusal for a key that is not there, or that this client may not see."""
    return RequestRefusedError(
        f"key {fingerprint(blob)} is not in the agent",
        "see which keys there are with ssh-add -l; add a token's with ssh-add -s MODULE",
    )
