"""Decides which PIN to log in with, and whether a refused login makes the agent forget it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from replug.token.boottime import boottime
from replug.token.errors import (
    PinLockedError,
    PinNeededError,
    PinRejectedError,
    Rejection,
    TokenError,
    Verdict,
    WorkerRefusedError,
)
from replug.token.identity import TokenFlag
from replug.token.offload import Share, TooManyThreadsError, in_daemon_thread
from replug.token.pins.lifetime import ForgetOn, PinLifetime
from replug.token.pins.owner import PinOwner
from replug.token.pins.pin import Pin, PinCache
from replug.token.pins.policy import PinPolicy, PolicyOf
from replug.token.pins.refused import ENTERED_AGAIN
from replug.token.pins.unlocking import how_to_unlock
from replug.token.requester import requester

_NO_ANSWER = "the token did not answer the login"
_EXPIRED = "CKR_PIN_EXPIRED"
_READING = 10.0  # seconds for a file or credential

log = logging.getLogger(__name__)


class PinRules:
    """The PIN of one token."""

    def __init__(self, owner: PinOwner, pins: PinCache, policy_of: PolicyOf) -> None:
        self._owner = owner
        self._identity = owner.token
        self._pins = pins
        self._policy_of = policy_of
        self._in_use: list[Pin] = []
        """Those that were given, and are not remembered yet."""

    @property
    def _field(self) -> dict[str, str]:
        return {"token": str(self._identity)}

    @property
    def _policy(self) -> PinPolicy:
        return self._policy_of(self._identity)

    @property
    def remembers(self) -> bool:
        """Whether there is a PIN in the cache."""
        return self._pins.get(self._owner) is not None

    def refused_lately(self, pin: Pin) -> bool:
        """Whether the token has refused this PIN a moment ago."""
        return self._pins.refused.lately(self._owner, pin.value)

    @property
    def has_source(self) -> bool:
        """Whether the policy has a source for the PIN."""
        return self._policy.source is not None

    @contextmanager
    def using(self, pin: Pin) -> Iterator[None]:
        """For a PIN that was given just now: it is wiped at the end unless it is remembered by then."""
        self._in_use.append(pin)
        try:
            with self._pins.using(pin):
                yield
        finally:
            self._in_use.remove(pin)

    def remember(self, pin: Pin) -> None:
        """Remember a PIN for as long as the policy says, unless PINs were forgotten since it was given."""
        if not pin.may_be_kept:
            return
        if pin.lifetime is None:
            pin.lifetime = self._lifetime()
        self._pins.remember(self._owner, pin)

    def _lifetime(self) -> PinLifetime:
        return PinLifetime(self._policy.time_to_live, self._policy.idle_time, boottime)

    def apply_policy(self) -> None:
        """Apply a policy that may have changed to the remembered PIN."""
        pin, policy = self._pins.get(self._owner), self._policy
        for lifetime in (None if pin is None else pin.lifetime, self._pins.by_keypad(self._owner)):
            if lifetime is not None:
                lifetime.change(policy.time_to_live, policy.idle_time)

    def forget_if(self, event: ForgetOn) -> bool:
        """Forget the PIN if that is the policy for `event`; whether it is the policy."""
        wanted = event in self._policy.forget_on
        if wanted:
            self.forget()
        return wanted

    async def configured(self) -> Pin | None:
        """The PIN of the source in the policy, if none is remembered; None if the user has to be asked.

        The caller wipes it unless it is kept, and reads the token's flags afterwards: this may be slow.
        Raises TokenError when it cannot be read, was refused before, or the agent is locked.
        """
        source = self._policy.source
        if source is None or self.remembers:
            return None
        if self._owner.has_twin:
            log.warning("other tokens have its name, so the PIN of pin_source is not sent", extra=self._field)
            return None
        self._refuse_if_sealed()
        try:
            async with asyncio.timeout(_READING):
                pin = await in_daemon_thread(Share.PIN_SOURCES, lambda: source.read(self._owner))
        except (TimeoutError, TooManyThreadsError):
            raise TokenError(f"{self._identity}: the file with its PIN could not be read in time") from None
        except TokenError as error:
            raise TokenError(f"{self._identity}: {error.reason}", error.next_step) from error
        if self._pins.sealed:
            pin.wipe()
        self._refuse_if_sealed()
        if self._pins.refused.ever(self._owner, pin.value):
            # By way of another entry of the configuration, or the file was written again with it.
            pin.past.rejected = True
            pin.wipe()
            raise TokenError(f"{self._identity}: {source.refusal.reason}", source.refusal.next_step)
        return pin

    def forget(self) -> bool:
        """Wipe the PIN, and do not remember one that is in use; returns whether there was one."""
        for pin in self._in_use:
            pin.may_be_kept = False
        return self._pins.forget(self._owner)

    def choose(self, pin: Pin | None, flags: TokenFlag, *, for_one_use: bool = False) -> Pin | None:
        """The PIN to send now, marked as sent: `pin`, else the remembered one. None is the keypad.

        `flags` have just been read. A remembered PIN that the token has not accepted yet was typed for a key
        that requires it at every use, and is only good `for_one_use` of that. Raises PinNeededError when the
        user has to be asked, PinRejectedError if a user has entered what was refused lately, TokenError when
        that cannot help or the agent was locked meanwhile.
        """
        self._refuse_if_sealed()
        self.refuse_if_locked(flags)
        if pin is not None and not pin.value:
            raise TokenError(f"{self._identity}: the PIN was withdrawn before it was sent")
        if pin is not None and pin.sent and not pin.verified:
            what = f"the login failed: {pin.past.failure}" if pin.past.failure else _NO_ANSWER
            raise TokenError(
                f"{self._identity}: {what}, which may have cost a PIN try",
                "if the PIN is right, write it to pin_source again" if pin.configured else "try again",
            )
        chosen = pin or self._remembered(for_one_use=for_one_use)
        if chosen is not None and not chosen.verified and self.refused_lately(chosen):
            # Entered with a request, or at another prompt while the token had not refused it yet.
            reason, next_step = ENTERED_AGAIN
            raise PinRejectedError(f"{self._identity}: {reason}", next_step, Rejection.REPEATED)
        may_be_sent = chosen is not None and chosen.may_be_sent(flags, proven=self._owner.keys.proven)
        if chosen is not None and chosen.configured and not may_be_sent:
            log.warning("a wrong PIN was entered, so the PIN of pin_source is not sent", extra=self._field)
        if chosen is not None and may_be_sent:
            chosen.past.sent = True
            chosen.past.unanswered += 1
            return chosen
        if TokenFlag.PROTECTED_AUTHENTICATION_PATH in flags:
            if requester.get().is_guest:
                raise TokenError(
                    f"{self._identity}: nobody is asked for the PIN on its keypad for another user",
                    "log in to it as root: sudo replug unlock",
                )
            return None
        raise PinNeededError(self._identity)

    def _remembered(self, *, for_one_use: bool) -> Pin | None:
        pin = self._pins.get(self._owner)
        if pin is None or self._owner.may_be_another or not (pin.verified or for_one_use):
            return None
        return pin

    def _refuse_if_sealed(self) -> None:
        if self._pins.sealed:
            raise TokenError(f"{self._identity}: the agent is locked", "unlock it with ssh-add -X")

    def refuse_if_locked(self, flags: TokenFlag) -> None:
        """Raise PinLockedError if the token no longer accepts any PIN."""
        if TokenFlag.USER_PIN_LOCKED in flags:
            raise self._locked()

    def _locked(self) -> PinLockedError:
        return PinLockedError(self._identity, how_to_unlock(self._owner.module, self._identity))

    def accepted(self, pin: Pin | None) -> None:
        """Note that the token accepted this PIN (None: the keypad's)."""
        if pin is None:
            self._pins.logged_in_by_keypad(self._owner, self._lifetime())
        elif pin.value:
            self._pins.refused.accepted(self._owner, pin.value)
            pin.past.verified = True
            pin.past.unanswered = 0
            self.remember(pin)

    def not_compared(self, pin: Pin | None) -> None:
        """Note that the token was logged in already: nothing is known of this PIN, and no try was spent."""
        if pin is not None:
            pin.past.sent = pin.past.verified
            pin.past.unanswered = max(0, pin.past.unanswered - 1)

    def refused(self, refusal: WorkerRefusedError, pin: Pin | None) -> None:
        """Raise the error that a refused login stands for; return if it says nothing about the PIN.

        After a failed login, above all a context-specific one, a module's state is undefined: the worker
        must be killed before this.
        """
        error = self._meaning(refusal, pin)
        if error is None:
            if pin is not None:
                pin.past.failure = refusal.reason
            return
        was_remembered = pin is not None and pin.verified and not pin.configured
        if pin is not None and isinstance(error, PinRejectedError | PinLockedError):
            pin.past.rejected = True
            self._pins.forget_like(self._owner, pin)
            # Some modules call a broken connection a wrong PIN: not one that was right before.
            lately = not pin.verified and isinstance(error, PinRejectedError)
            self._pins.refused.add(self._owner, pin.value, lately=lately)
        if pin is not None and self._pins.get(self._owner) is pin:
            self.forget()
        log.warning("login refused", extra=self._field | {"why": str(error)})
        if was_remembered and isinstance(error, PinRejectedError):
            raise PinNeededError(self._identity, Rejection.REMEMBERED) from error
        raise error from refusal

    def _meaning(self, refusal: WorkerRefusedError, pin: Pin | None) -> TokenError | None:
        token = self._identity
        configured = pin is not None and pin.configured
        typed = pin is not None and not configured
        match refusal.verdict:
            case Verdict.PIN_INCORRECT:
                return PinRejectedError(
                    f"{token}: the PIN is wrong",
                    "one try was spent; write the right PIN to where pin_source points"
                    if configured
                    else "one try was spent; type the right one when you are asked again",
                    Rejection.WRONG if typed else None,
                )
            case Verdict.PIN_UNUSABLE:
                reason = f"{token}: the token does not accept this PIN ({refusal.reason})"
                helps = typed and refusal.value != _EXPIRED
                return PinRejectedError(reason, "", Rejection.UNUSABLE if helps else None)
            case Verdict.PIN_LOCKED:
                return self._locked()
            case Verdict.PIN_NOT_SET:
                return TokenError(f"{token}: no user PIN is set", "initialise the token first")
            case Verdict.LOGIN_CANCELLED:
                return TokenError(f"{token}: the PIN entry was cancelled", "try again and enter the PIN")
        return None
