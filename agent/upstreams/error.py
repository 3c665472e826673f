"""Why nothing comes of asking another agent."""

from __future__ import annotations

from replug.token.errors import ExplainedError


class UpstreamError(ExplainedError):
    """The agent gave no usable answer; whom it keeps waiting, or what it says, is not known to end."""


class UpstreamEndedError(UpstreamError):
    """It ended a client's connection at once: that takes no time, and the client may have said what it would
    not hear."""


class UpstreamAbsentError(UpstreamError):
    """There is no agent that may be asked; to find that out takes no time."""
