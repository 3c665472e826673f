"""FIDO keys: clients give the agent what an authenticator needs to find its secret, and the library to ask.

That is useless without the authenticator. It is sealed with the rest when the agent is locked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

from replug.agent.config.settings import Settings
from replug.agent.keys.refusal import RequestRefusedError
from replug.agent.keys.software import MOST_KEYS
from replug.protocol.additions import KeyAddition
from replug.protocol.keys import SkPublicKey
from replug.protocol.private_keys import SkFlag
from replug.protocol.secrets import wipe
from replug.token.identity import TokenId
from replug.token.pins.pin import PinCache
from replug.token.pins.policy import PinPolicy
from replug.token.prompts.request import Asker, Prompter
from replug.token.seal import Seal, SealedError
from replug.token.security_keys.authenticators import Authenticators
from replug.token.security_keys.security_key import SecurityKey, SkRequest

_MOST_BYTES = 8 * 1024 * 1024
"""Of all that is kept of them."""


@dataclass(frozen=True)
class _Held:
    """What is kept of a key or certificate that was added."""

    sealed: bytes
    """The private key as it was added."""
    flags: SkFlag
    key: SecurityKey


class SecurityKeys:
    """All FIDO keys, by the blobs they are listed as; a key and its certificates share a PIN."""

    def __init__(
        self,
        seal: Seal,
        pins: PinCache,
        prompter: Prompter,
        settings: Settings,
        authenticators: Authenticators,
    ) -> None:
        self._seal = seal
        self._pins = pins
        self._prompter = prompter
        self._settings = settings
        self._authenticators = authenticators
        self._held: dict[bytes, _Held] = {}
        self._keys: dict[tuple[str, bytes], SecurityKey] = {}
        """By provider and plain blob."""

    def add(self, addition: KeyAddition, public: SkPublicKey, provider: str) -> None:
        """Hold a key that `provider` speaks to the authenticator of; the caller wipes the message.

        RequestRefusedError.
        """
        others = [held for blob, held in self._held.items() if blob != addition.blob]
        if len(others) >= MOST_KEYS or sum(len(held.sealed) for held in others) > _MOST_BYTES:
            raise RequestRefusedError(
                f"the agent holds {len(others)} keys already", "remove some (ssh-add -d)"
            )
        private = addition.private_key()
        try:
            sealed = self._seal.seal(private)
        except SealedError:
            raise RequestRefusedError("the agent was locked meanwhile") from None
        finally:
            wipe(private)
        known_as = provider, public.encode()
        key = self._keys.get(known_as)
        if key is None:
            key = self._keys[known_as] = SecurityKey(
                provider, public, self._authenticators, self._pins, self._prompter, self._policy
            )
        replaced = self._held.get(addition.blob)
        self._held[addition.blob] = _Held(sealed, addition.sk_flags, key)
        if replaced is not None:
            self._left(replaced.key)

    def begin_again(self, provider: str) -> None:
        """The user has looked after the authenticators of `provider`: PIN tries are counted from zero."""
        self._authenticators.accepted_pin(provider)

    async def sign(
        self,
        blob: bytes,
        data: bytes,
        comment: str,
        asker: Asker,
        touching: Callable[[], AbstractContextManager[object]],
    ) -> bytes:
        """The signature blob; `touching` is entered while a touch is waited for.

        TokenError, RequestRefusedError.
        """
        held = self._held.get(blob)
        if held is None:
            raise RequestRefusedError("the key was removed meanwhile")
        patience = self._settings.options.config.touch_timeout
        if SkFlag.USER_PRESENCE_REQUIRED not in held.flags:
            touching = nullcontext
        private_key = partial(self._seal.open, held.sealed)
        try:
            return await held.key.sign(
                SkRequest(private_key, held.flags, data, comment, asker, touching, patience)
            )
        except SealedError:
            raise RequestRefusedError("the agent is locked", "unlock it with ssh-add -X") from None

    def of(self, blob: bytes) -> SecurityKey | None:
        """The key that is listed as `blob`."""
        held = self._held.get(blob)
        return None if held is None else held.key

    def remove(self, blob: bytes) -> None:
        """Drop a key, if it is there."""
        held = self._held.pop(blob, None)
        if held is not None:
            self._left(held.key)

    def keep_only(self, blobs: Iterable[bytes]) -> None:
        """Drop all keys but these."""
        for blob in self._held.keys() - set(blobs):
            self.remove(blob)

    def clear(self) -> None:
        """Drop all keys."""
        self.keep_only(())

    def suspend(self) -> None:
        """End all signatures under way, because the agent is being locked."""
        for key in self.keys():
            key.stop("the agent was locked meanwhile")

    def keys(self) -> list[SecurityKey]:
        """The keys, each once though it has a certificate, too."""
        return list(self._keys.values())

    def forget_expired_pins(self) -> bool:
        """Forget the PINs whose lifetime has ended; whether there were any."""
        expired = [key for key in self.keys() if self._pins.has_expired(key.pin_owner)]
        for key in expired:
            key.forget_pin()
        return bool(expired)

    def _left(self, key: SecurityKey) -> None:
        """One identity less has `key`."""
        if not any(held.key is key for held in self._held.values()):
            self._keys = {known_as: other for known_as, other in self._keys.items() if other is not key}
            key.stop("the key was removed meanwhile")
            key.forget_pin()

    def _policy(self, _: TokenId) -> PinPolicy:
        """The settings of the whole file: a `[[token]]` is for tokens."""
        common = self._settings.config.settings(None)
        return PinPolicy(
            time_to_live=common.pin_time_to_live,
            idle_time=common.pin_idle_time,
            forget_on=common.forget_pin_on,
        )
