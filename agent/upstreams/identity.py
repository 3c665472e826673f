"""A key of another agent, as an identity of this one: the same rules hold for its use."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property

from replug.agent.desktop.touch_notice import TouchNotices
from replug.agent.keys.identity import Identity
from replug.protocol.messages import SignRequest
from replug.protocol.visible_text import visible_path
from replug.token.prompts.request import Asker


@dataclass(frozen=True)
class UpstreamIdentity(Identity):
    """One that the agent at `path` has listed for a client; `ask` has it sign for that client."""

    path: str
    ask: Callable[[SignRequest], Awaitable[bytes]]

    @property
    def holder(self) -> None:
        return None

    @cached_property
    def place(self) -> str:
        return f"agent at {visible_path(self.path)}"

    @property
    def distance(self) -> tuple[bool, bool, bool]:
        return False, False, False

    async def sign(self, data: bytes, flags: int, asker: Asker, notices: TouchNotices) -> bytes:
        return await self.ask(SignRequest(self.blob, data, flags))
