"""Asks the agent's own user, and never another one whom the agent is a service for."""

from __future__ import annotations

from replug.token.errors import NobodyAskedError
from replug.token.pins.pin import Pin
from replug.token.prompts.request import ConfirmRequest, PinRequest, Prompter
from replug.token.requester import requester

_NOT_ASKED = NobodyAskedError(
    "other users, whom the agent is a service for, are asked nothing",
    "give the PIN as root, sudo replug unlock, or by pin_source in config.toml",
)
_NOT_CONFIRMED = NobodyAskedError(_NOT_ASKED.reason, "remove confirm from config.toml")


class NoGuestsPrompter:
    """Puts questions by `prompter`, except those that a guest's request raises."""

    def __init__(self, prompter: Prompter) -> None:
        self._prompter = prompter

    async def ask(self, request: PinRequest) -> Pin:
        if requester.get().is_guest:
            raise request.nobody_asked([_NOT_ASKED])
        return await self._prompter.ask(request)

    async def confirm(self, request: ConfirmRequest) -> bool:
        if requester.get().is_guest:
            raise request.nobody_asked([_NOT_CONFIRMED])
        return await self._prompter.confirm(request)
