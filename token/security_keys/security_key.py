"""A FIDO key: signatures by the authenticator that has it, and the PIN, by the rules of all tokens' PINs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from weakref import WeakValueDictionary

from replug.protocol.keys import SkPublicKey
from replug.protocol.private_keys import SkFlag
from replug.protocol.secrets import wipe
from replug.protocol.signatures import InvalidSignatureError, verify_any
from replug.protocol.sk_helper import (
    HelperErrorCode,
    HelperFailedError,
    OtherVersionError,
    read_answer,
    request_without_pin,
)
from replug.protocol.wire import ProtocolError
from replug.token.errors import (
    PinNeededError,
    Rejection,
    TokenError,
    Verdict,
    WorkerLostError,
    WorkerRefusedError,
    WorkerSilentError,
)
from replug.token.identity import TokenFlag
from replug.token.pins.lifetime import ForgetOn
from replug.token.pins.owner import PinOwner
from replug.token.pins.pin import Pin, PinCache
from replug.token.pins.policy import PolicyOf
from replug.token.pins.rules import PinRules
from replug.token.prompts.dialogue import PinDialogue
from replug.token.prompts.request import Asker, Origin, PinRequest, Prompter
from replug.token.security_keys.authenticators import AuthenticatorId, Authenticators

_NO_FLAGS = TokenFlag(0)
"""No authenticator says how many tries are left."""
_NO_PIN = bytearray()
_PERHAPS_NEWER = "try again; if it always fails, ssh-sk-helper may be of a newer OpenSSH than replug knows"


class _OneKey:
    """PINs of authenticators are for one key each, so it need not be known which others there are."""

    def __init__(self, public: SkPublicKey) -> None:
        self.known = {public.encode()}
        self.proven = True


@dataclass(frozen=True)
class SkRequest:
    """A signature that is wanted of a key."""

    private_key: Callable[[], bytearray]
    """Returns the private key as ADD_IDENTITY carries it, to be wiped. SealedError."""
    flags: SkFlag
    data: bytes
    comment: str
    """What the key is called."""
    asker: Asker
    touching: Callable[[], AbstractContextManager[object]]
    """The context it returns is entered while the authenticator may wait for a touch."""
    patience: float
    """Seconds for the authenticator, touch included."""


class SecurityKey:
    """The key `public` of an authenticator that the library `provider` speaks to."""

    def __init__(
        self,
        provider: str,
        public: SkPublicKey,
        authenticators: Authenticators,
        pins: PinCache,
        prompter: Prompter,
        policy_of: PolicyOf,
    ) -> None:
        self.provider = provider
        self.authenticator = AuthenticatorId.of(provider)
        self.pin_owner = PinOwner(provider, self.authenticator, _OneKey(public))
        self._public = public
        self._authenticators = authenticators
        self._pins = pins
        self._prompter = prompter
        self._rules = PinRules(self.pin_owner, pins, policy_of)
        self._asking: WeakValueDictionary[Origin, asyncio.Lock] = WeakValueDictionary()
        self._under_way: dict[asyncio.Timeout, str] = {}
        """Signatures, each with the reason why it was stopped."""

    @property
    def pin_remembered(self) -> bool:
        """Whether a PIN is kept for this key."""
        return self._rules.remembers

    def forget_pin(self) -> bool:
        """Forget the PIN; whether there was one."""
        return self._rules.forget()

    def forget_pin_if(self, event: ForgetOn) -> None:
        """Forget the PIN if that is the policy for `event`."""
        self._rules.forget_if(event)

    def apply_policy(self) -> None:
        """Apply the current policy to the remembered PIN."""
        self._rules.apply_policy()

    def stop(self, reason: str) -> None:
        """Refuse all signatures under way, and withdraw the questions for their PIN."""
        for under_way in self._under_way:
            self._under_way[under_way] = reason
            under_way.reschedule(asyncio.get_running_loop().time())

    async def sign(self, request: SkRequest) -> bytes:
        """The signature blob. Asks for the PIN, once, if the authenticator wants it. TokenError."""
        async with self._stoppable():
            try:
                return await self._attempt(request, None)
            except PinNeededError as needed:
                rejection = needed.rejection
            # Others of the same origin wait for the same PIN.
            async with self._asking.setdefault(request.asker.origin, asyncio.Lock()):
                if self._rules.remembers:
                    try:
                        return await self._attempt(request, None)
                    except PinNeededError as needed:
                        rejection = needed.rejection
                return await self._ask_and_attempt(request, rejection)

    async def _ask_and_attempt(self, request: SkRequest, rejection: Rejection | None) -> bytes:
        self._authenticators.check_tries(self.provider)
        dialogue = PinDialogue(self._prompter, self._rules.refused_lately, rejection)
        pin = await dialogue.ask(PinRequest(self.authenticator, _NO_FLAGS, request.comment, request.asker))
        with self._rules.using(pin):
            try:
                return await self._attempt(request, pin)
            except PinNeededError:
                raise self._error("the PIN is not accepted", "try again") from None

    @asynccontextmanager
    async def _stoppable(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(None) as under_way:
                self._under_way[under_way] = ""
                yield
        except TimeoutError:
            if not under_way.expired():
                raise
            raise self._error(self._under_way[under_way]) from None
        finally:
            self._under_way.pop(under_way, None)

    async def _attempt(self, request: SkRequest, pin: Pin | None) -> bytes:
        """One signature, with `pin`, else the remembered one, else without; PinNeededError, TokenError."""
        async with self._authenticators.turn:
            chosen = None
            if pin is not None or self._rules.remembers:
                self._authenticators.check_tries(self.provider)
                chosen = self._rules.choose(pin, _NO_FLAGS)
            try:
                with request.touching():
                    signature = await self._by_helper(request, chosen)
            except HelperFailedError as failure:
                if chosen is None:
                    raise PinNeededError(self.authenticator) from failure
                self._authenticators.refused_pin(self.provider)
                self._rules.refused(WorkerRefusedError(Verdict.PIN_INCORRECT, str(failure)), chosen)
                raise  # never reached: a wrong PIN is an error
            if chosen is not None:
                self._authenticators.accepted_pin(self.provider)
                self._rules.accepted(chosen)
                self._pins.used(self.pin_owner)
            return signature

    async def _by_helper(self, request: SkRequest, pin: Pin | None) -> bytes:
        """The signature, verified. HelperFailedError if it is the PIN, TokenError."""
        key, message, complaint = request.private_key(), bytearray(), ""
        try:
            secret = _NO_PIN if pin is None else pin.value
            message = request_without_pin(key, os.fsencode(self.provider), request.data, len(secret))
            helper = self._authenticators.helper
            answer, complaint = await helper.ask(message, secret, request.patience)
            signature = read_answer(answer)
            verify_any(self._public, signature, request.data)
        except HelperFailedError as failure:
            if failure.code == HelperErrorCode.WRONG_PASSPHRASE:
                raise
            raise self._failed(failure, complaint) from failure
        except WorkerSilentError as error:
            raise self._silent(request) from error
        except WorkerLostError as error:
            raise self._error(str(error), _PERHAPS_NEWER) from error
        except OtherVersionError as error:
            raise self._error(
                str(error), "update replug, or start it with SSH_SK_HELPER naming that of OpenSSH 8.2 to 10"
            ) from error
        except InvalidSignatureError as error:
            raise self._error(f"its signature is wrong: {error}", "try again") from error
        except ProtocolError as error:
            raise self._error(str(error)) from error
        finally:
            wipe(key)
            wipe(message)
        return signature

    def _silent(self, request: SkRequest) -> TokenError:
        if SkFlag.USER_PRESENCE_REQUIRED in request.flags:
            return self._error(
                f"it was not touched within {request.patience:g} s",
                "touch it when it blinks; touch_timeout in config.toml allows more time",
            )
        return self._error(f"ssh-sk-helper did not answer within {request.patience:g} s", "try again")

    def _failed(self, failure: HelperFailedError, complaint: str) -> TokenError:
        match failure.code:
            case HelperErrorCode.DEVICE_NOT_FOUND:
                return TokenError(
                    "no security key that has this key is plugged in", "plug it in, and try again"
                )
            case HelperErrorCode.UNSUPPORTED:
                return self._error("it cannot make this signature", "use another key")
            case HelperErrorCode.INVALID_FORMAT:
                reason = "it, or its library, has failed"
            case other:
                reason = f"ssh-sk-helper reports error {other}"
        why = f": {complaint}" if complaint else ""
        return self._error(f"{reason}{why}", "take it out and put it in, and try again")

    def _error(self, reason: str, next_step: str = "") -> TokenError:
        return TokenError(f"{self.authenticator}: {reason}", next_step)
