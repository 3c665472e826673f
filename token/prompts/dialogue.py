"""Asks for a PIN again after a wrong one, a few times.

If the agent refused instead, ssh would go on with the host's password prompt, and users would type the PIN
there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from replug.token.errors import PinRejectedError, Rejection
from replug.token.pins.pin import Pin
from replug.token.pins.refused import ENTERED_AGAIN
from replug.token.prompts.request import PinRequest, Prompter

_MOST_PROMPTS = 3


class PinDialogue:
    """The prompts for one login. Only what a user has just typed leaves it, and nothing refused twice."""

    def __init__(
        self, prompter: Prompter, refused: Callable[[Pin], bool], rejection: Rejection | None = None
    ) -> None:
        """`refused` tells which PINs the token has refused lately; `rejection` is why this is asked."""
        self._prompter = prompter
        self._refused = refused
        self._rejection = rejection
        self._prompts = 0
        self.last: Exception | None = None
        """Why the last PIN did not do; what `ask` raises instead of asking once more."""

    async def ask(self, request: PinRequest) -> Pin:
        """The PIN; PromptError, also when only refused ones are entered.

        After the last prompt it is the error of the last PIN; the caller has seen by then if the token is
        locked.
        """
        if self.last is not None and self._prompts >= _MOST_PROMPTS:
            raise self.last
        while True:
            self._prompts += 1
            pin = await self._prompter.ask(replace(request, rejection=self._rejection))
            if not self._refused(pin):
                return pin
            pin.wipe()
            self._rejection = Rejection.REPEATED
            if self._prompts >= _MOST_PROMPTS:
                raise request.failure(*ENTERED_AGAIN)

    def refused(self, error: PinRejectedError) -> None:
        """The token refused the PIN; raises the error if another one does not help."""
        if error.rejection is None:
            raise error
        self._rejection, self.last = error.rejection, error

    def not_sent(self, error: Exception) -> None:
        """The PIN was not sent, as the tries have changed meanwhile."""
        self._rejection, self.last = None, error
