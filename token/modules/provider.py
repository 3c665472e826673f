"""A provider, as `ssh-add -s` names it: a module, or the tokens and keys of a module that a URI chooses."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from replug.protocol.visible_text import visible_path
from replug.token.errors import PinNeededError, PinRejectedError, Rejection, TokenError
from replug.token.keygen.key_advice import how_to_get_a_key
from replug.token.keys import TokenKey
from replug.token.modules.module import Module
from replug.token.names.uri import Uri
from replug.token.pins.pin import Pin
from replug.token.serving.presence import TokenState
from replug.token.serving.served import ServedToken

log = logging.getLogger(__name__)

_WITH_THE_RIGHT_PIN = "one try was spent; run ssh-add -s again with the right PIN"


@dataclass(frozen=True)
class Provider:
    """The tokens and keys of `module` that `uri` chooses; `name` is the path or URI that the user gave."""

    name: str
    module: Module
    uri: Uri

    @property
    def shown(self) -> str:
        """The name in reasons and in the log."""
        return visible_path(self.name)

    def tokens(self) -> list[ServedToken]:
        """The tokens seen so far, present or not."""
        return [token for token in self.module.tokens.values() if self.uri.matches_token(token.identity)]

    def serves(self, token: ServedToken) -> bool:
        """Whether `token` is one of its tokens."""
        known = self.module.tokens.get(token.identity)
        return known is token and self.uri.matches_token(token.identity)

    def keys_on(self, token: ServedToken) -> list[TokenKey]:
        """The keys of one of its tokens."""
        return [key for key in token.keys.values() if self.uri.matches_key(key)]

    def token_keys(self) -> Iterator[tuple[ServedToken, TokenKey]]:
        """The keys of its tokens, also of those that are out."""
        for token in self.tokens():
            for key in self.keys_on(token):
                yield token, key

    @property
    def present(self) -> list[ServedToken]:
        """Its tokens that are in a slot."""
        return [token for token in self.tokens() if token.present]

    async def look(self, *, fresh: bool = False) -> None:
        """Scan the slots, with `fresh` by a new process, and read the keys. Failures are only logged."""
        try:
            await self.module.look(fresh=fresh)
            await self._read(self.present)
        except TokenError as error:
            log.info("slot scan failed", extra={"provider": self.shown, "why": str(error)})

    async def load(self, pin: Pin | None) -> None:
        """Look for the tokens on a fresh worker, and read their keys; log in with `pin` if there is one.

        A PIN is tried on one token only. If several that require a login are present, it is tried on none:
        the user must name one by a URI. A token that fails does not keep the others from being served.
        Raises TokenError when there is no key at all.
        """
        await self.module.look(fresh=True)
        present = self.present
        if not present:
            next_step = "plug it in, or check the name" if self.module.takes_tokens else "check the name"
            raise TokenError(f"{self.shown}: no such token is present", next_step)
        owner = _owner(present) if pin is not None else None
        if pin is not None and owner is None:
            names = ", ".join(str(token.identity) for token in present)
            log.warning("the PIN was used for none of several tokens", extra={"tokens": names})
        if pin is not None and owner is not None:
            await self._log_in(owner, pin)
        await self._read([token for token in present if token is not owner])
        if not any(token.present for token, _ in self.token_keys()):
            raise TokenError(
                f"{self.shown}: no key that SSH can use is visible",
                self._how_to_get_a_key(present),
            )

    def _how_to_get_a_key(self, present: list[ServedToken]) -> str:
        if all(token.state is TokenState.READY for token in present):
            return how_to_get_a_key(present[0].identity, self.module.path, served=False)
        return "if the token shows its keys only after login, give its PIN and name it by a URI"

    async def _read(self, tokens: list[ServedToken]) -> None:
        failures = []
        for token in tokens:
            try:
                await token.read()
            except TokenError as error:
                log.warning("token not loaded", extra={"token": str(token.identity), "why": str(error)})
                failures.append(error)
        if failures and not any(True for _ in self.token_keys()):
            raise failures[0]

    async def _log_in(self, token: ServedToken, pin: Pin) -> None:
        try:
            await token.log_in(pin)
        except PinRejectedError as rejected:
            if rejected.rejection is Rejection.REPEATED:
                raise
            # "The next use asks" is not so: nothing was added.
            raise PinRejectedError(rejected.reason, _WITH_THE_RIGHT_PIN) from rejected
        except PinNeededError as needed:
            raise TokenError(
                f"{token.identity}: only one PIN try is left, so this PIN was not sent",
                "add it without a PIN: the prompt at the first use says that it is the last try",
            ) from needed


def _owner(present: list[ServedToken]) -> ServedToken | None:
    """The token that a PIN must be for: the only one, or the only one that requires a login; else None."""
    candidates = present if len(present) == 1 else [token for token in present if token.wants_login]
    return candidates[0] if len(candidates) == 1 else None
