"""A token that the agent serves: its state, its keys, its login, and signing with it.

A PIN goes to it only after a worker has just found the same identity and public keys and read the flags;
clients that wait for a login share one prompt. The other rules about PINs are in `login.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from functools import partial
from typing import TypeVar

from replug.token.errors import (
    ModuleUnreachableError,
    PinLockedError,
    PinNeededError,
    TokenAbsentError,
    TokenError,
    WorkerRefusedError,
)
from replug.token.identity import TokenFlag, TokenId
from replug.token.keys import TokenKey, read_keys
from replug.token.pins.lifetime import ForgetOn
from replug.token.pins.pin import Pin, PinCache
from replug.token.pins.policy import PolicyOf
from replug.token.pins.rules import PinRules
from replug.token.presence import Presence, TokenState
from replug.token.prompts.request import Asker, PinRequest, Prompter
from replug.token.shared import SharedAttempt, StoppedError
from replug.token.shown_keys import OtherKeysError, ShownKeys
from replug.token.signing import signature_on, signing_algorithm
from replug.token.worker.client import WorkerClient
from replug.token.worker.frames import Verdict
from replug.token.worker.pool import WorkerPool

log = logging.getLogger(__name__)

T = TypeVar("T")

_PROMPTS_PER_SIGNATURE = 2
_GRACE = (0.3, 0.6)  # seconds between looks for a token that was there until now
_TRIES_LOST = TokenFlag.USER_PIN_COUNT_LOW | TokenFlag.USER_PIN_FINAL_TRY | TokenFlag.USER_PIN_LOCKED


class ServedToken(Presence):
    """One token, wherever it is plugged in."""

    def __init__(
        self,
        identity: TokenId,
        pool: WorkerPool,
        pins: PinCache,
        prompter: Prompter,
        policy_of: PolicyOf,
        changed: Callable[[], None],
    ) -> None:
        """`changed` is called whenever the state or the keys are not what they were."""
        super().__init__(identity, changed)
        self.flags = TokenFlag(0)
        """As last read; they age at once, so no login relies on them."""
        self.wants_login = True
        """Whether it has CKF_LOGIN_REQUIRED."""
        self._pool = pool
        self._pins = pins
        self._rules = PinRules(identity, pins, policy_of)
        self._prompter = prompter
        self._shown = ShownKeys(changed)
        self._closed = False
        self._login = SharedAttempt()
        self._one_login = asyncio.Lock()
        """Held while a worker sends a PIN: two of them at once could spend two tries on a wrong one."""

    @property
    def keys(self) -> dict[bytes, TokenKey]:
        """By public key blob; public data, so listing it asks no worker."""
        return self._shown.offered

    @property
    def pin_remembered(self) -> bool:
        """Whether a PIN is cached for this token."""
        return self._rules.remembers

    async def read(self) -> None:
        """Find the token and read its keys, without login."""
        await self._attempt(self._open_on)

    async def log_in(self, pin: Pin) -> None:
        """Log in with a PIN that came with a request, on a fresh worker so that it is really checked.

        Raises PinRejectedError, and PinNeededError when it is the last try, which the person who typed
        this PIN may not have known. Wipes the PIN unless it is kept. One that is refused changes nothing.
        """
        try:
            await self._attempt(partial(self._log_in_on, pin, True), fresh=True)
        finally:
            self._pins.wipe_unless_kept(pin)

    async def sign(
        self,
        key: TokenKey,
        data: bytes,
        flags: int,
        asker: Asker,
        waiting: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> bytes:
        """The signature blob over `data`; `flags` are the sign request's (RFC 9987 section 5.6.1).

        Asks for the PIN on behalf of `asker` if need be. What `waiting` returns is entered while the token
        is waited for, and not while a person is asked. Raises TokenError, ProtocolError for flags.
        """
        algorithm = signing_algorithm(key.public, flags)
        operation = partial(self._sign_on, key.blob, algorithm, data)
        for _ in range(_PROMPTS_PER_SIGNATURE):
            try:
                with waiting():
                    return await self._attempt_with_grace(operation)
            except PinNeededError as needed:
                await self._ask_and_log_in(needed, key, asker)
        try:
            with waiting():
                return await self._attempt(operation, anywhere=True)
        except PinNeededError as needed:
            raise TokenError(
                f"{self.identity} was not logged in after {_PROMPTS_PER_SIGNATURE} PIN prompts"
            ) from needed

    def left(self) -> None:
        """The token is in no slot any more."""
        if self.state is not TokenState.ABSENT:
            self._rules.forget_if(ForgetOn.REMOVAL)
            self._shown.forget_useless()
        super().left()

    def seen(self, flags: TokenFlag) -> bool:
        """The token is in a slot, with these flags; whether it was not there before."""
        self.wants_login = TokenFlag.LOGIN_REQUIRED in flags
        arrived = not self.present
        self.returned()
        return arrived

    def forget_pin(self) -> bool:
        """Forget the PIN and end the login; whether there was a PIN. Its keys stay."""
        forgotten = self._rules.forget()
        self._pool.restart()
        self._logged_out()
        return forgotten

    def forget_pin_if(self, event: ForgetOn) -> None:
        """Forget the PIN and end the login, if that is the policy for `event`."""
        if self._rules.forget_if(event):
            self.forget_pin()

    def apply_policy(self) -> None:
        """Go by the policy as it is now."""
        self._rules.apply_policy()

    def suspend(self) -> None:
        """End the login, and take away the PIN prompt; the agent is locked."""
        self._login.stop()
        self._pool.restart()
        self._logged_out()

    def close(self) -> None:
        """Forget the PIN and end the worker, and with it the session. What still waits is refused."""
        self._closed = True
        self.forget_pin()
        self._login.stop()
        self._back.set()

    async def _attempt(
        self,
        operation: Callable[[WorkerClient], Awaitable[T]],
        *,
        fresh: bool = False,
        anywhere: bool = False,
    ) -> T:
        try:
            return await self._pool.attempt(operation, fresh=fresh, anywhere=anywhere)
        except TokenAbsentError:
            self.left()
            raise
        except PinLockedError as error:
            self._set_state(TokenState.LOCKED, error.reason)
            raise
        except ModuleUnreachableError as error:
            self.cut_off(error.reason)
            raise

    async def _attempt_with_grace(self, operation: Callable[[WorkerClient], Awaitable[T]]) -> T:
        """Like `_attempt` on any worker, but a token that was there until now is given a moment to be back.

        A bad contact, a reset reader or a restarted pcscd takes it away for less than a second.
        """
        for pause in _GRACE if self.present else ():
            try:
                return await self._attempt(operation, anywhere=True)
            except TokenAbsentError:
                await asyncio.sleep(pause)
        return await self._attempt(operation, anywhere=True)

    async def _open_on(self, worker: WorkerClient) -> TokenFlag:
        """Find the token and its keys; its flags, just read. Its PIN is for keys that were there before."""
        self._refuse_if_closed()
        try:
            opened = await worker.open(self.identity)
        except WorkerRefusedError as refused:
            others_work = worker.ready - {self.identity}
            if refused.verdict is Verdict.TOKEN_ABSENT and self.identity not in worker.opened and others_work:
                # This worker sees other tokens, so it is not blind, and they must not lose their login.
                raise TokenAbsentError(refused.detail, "plug it in") from refused
            raise
        self.flags = opened.flags
        keys = read_keys(opened.records)
        if self.identity in worker.ready and self._shown.lacks_some_of(keys):
            # libykcs11 hides private keys when another program has reset the card. To believe that would
            # lose them; a fresh worker, logged in, tells what is true.
            raise WorkerRefusedError(Verdict.NOT_LOGGED_IN, "keys are missing that this session has shown")
        if TokenFlag.LOGIN_REQUIRED not in opened.flags:
            worker.ready.add(self.identity)
        self._saw_keys(keys, logged_in=self.identity in worker.ready)
        return opened.flags

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise TokenError(f"{self.identity} was removed from the agent")

    async def _open_to_ask_on(self, worker: WorkerClient) -> TokenFlag:
        flags = await self._open_on(worker)
        self._rules.refuse_if_locked(flags)
        return flags

    async def _log_in_on(self, pin: Pin, at_every_use: bool, worker: WorkerClient) -> None:
        flags = await self._open_on(worker)
        if self.identity not in worker.ready:
            await self._log_in(pin, flags, worker)
        elif at_every_use:
            # The key's own login will tell whether it is right.
            self._rules.remember(pin)

    async def _log_in(self, pin: Pin | None, flags: TokenFlag, worker: WorkerClient) -> None:
        """Log in on the token just opened with `pin`, else with the remembered PIN or the keypad."""
        others_may_change_them = self._one_login.locked()
        async with self._one_login:
            if others_may_change_them:
                flags = await self._open_on(worker)
            self._refuse_if_closed()
            self._rules.refuse_if_locked(flags)
            async with self._configured_pin(pin) as configured:
                if configured is not None:
                    flags = await self._open_on(worker)
                    self._refuse_if_closed()
                chosen = self._rules.choose(pin or configured, flags)
                try:
                    records = await worker.login(self.identity, chosen)
                except WorkerRefusedError as refused:
                    worker.kill()
                    # Other workers may be logged in with a PIN that is no longer right.
                    self._pool.restart()
                    self._rules.refused(refused, chosen)
                    raise
                self._accepted(chosen)
        self._saw_keys(read_keys(records), logged_in=True)

    @asynccontextmanager
    async def _configured_pin(self, instead: Pin | None = None) -> AsyncIterator[Pin | None]:
        """The configured PIN if there is one and none `instead`; wiped at the end unless it is kept."""
        pin = await self._rules.configured() if instead is None else None
        try:
            yield pin
        finally:
            if pin is not None:
                self._pins.wipe_unless_kept(pin)

    async def _sign_on(self, blob: bytes, algorithm: str, data: bytes, worker: WorkerClient) -> bytes:
        if self.identity not in worker.ready:
            flags = await self._open_on(worker)
            key = self._require(blob)
            if self._shown.may_sign_without_login(blob) and not key.always_authenticate:
                try:
                    return await self._sign_with(key, algorithm, data, None, worker)
                except WorkerRefusedError as refused:
                    if refused.verdict is not Verdict.NOT_LOGGED_IN:
                        raise
                flags = await self._open_on(worker)
            if self.identity not in worker.ready:
                await self._log_in(None, flags, worker)
        key = self._require(blob)
        if not key.always_authenticate:
            return await self._sign_with(key, algorithm, data, None, worker)
        async with self._one_login, self._configured_pin() as configured:
            pin = self._rules.choose(configured, await self._open_on(worker), for_one_use=True)
            return await self._sign_with(key, algorithm, data, pin, worker)

    async def _sign_with(
        self, key: TokenKey, algorithm: str, data: bytes, pin: Pin | None, worker: WorkerClient
    ) -> bytes:
        try:
            signature = await signature_on(worker, self.identity, key, algorithm, data, pin)
        except WorkerRefusedError as refused:
            if key.always_authenticate:
                worker.kill()
                self._rules.refused(refused, pin)
            raise
        self._accepted(pin)
        self._rules.used()
        return signature

    def _accepted(self, pin: Pin | None) -> None:
        self._rules.accepted(pin)
        if pin is not None:
            self.flags &= ~_TRIES_LOST  # a right PIN gives them back

    def _require(self, blob: bytes) -> TokenKey:
        key = self.keys.get(blob)
        if key is None:
            raise TokenError(f"{self.identity} no longer holds this key, or may not sign with it")
        return key

    async def _ask_and_log_in(self, needed: PinNeededError, key: TokenKey, asker: Asker) -> None:
        """One prompt and one login for all who wait; its failure refuses them all, and only them."""
        try:
            await self._login.join(lambda: self._prompt_and_log_in(key, asker, needed.rejected))
        except StoppedError:
            self._refuse_if_closed()
            raise TokenError(f"{self.identity}: the PIN prompt was taken away") from None

    async def _prompt_and_log_in(self, key: TokenKey, asker: Asker, rejected: bool) -> None:
        flags = await self._attempt(self._open_to_ask_on)
        with self._login.stoppable():
            pin = await self._prompter.ask(PinRequest(self.identity, flags, key.label, asker, rejected))
        try:
            await self._attempt(partial(self._log_in_on, pin, key.always_authenticate))
        except PinNeededError as needed:
            raise TokenError(
                f"{self.identity}: the PIN was not sent, because tries were lost while it was typed",
                "try again",
            ) from needed
        finally:
            self._pins.wipe_unless_kept(pin)

    def _saw_keys(self, keys: dict[bytes, TokenKey], *, logged_in: bool) -> None:
        """Its PIN is for a token that still shows one of the keys it had."""
        if logged_in:
            self._shown.saw_logged_in(keys)
        else:
            try:
                self._shown.saw_without_login(keys)
            except OtherKeysError:
                self._rules.forget()
                raise TokenError(
                    f"{self.identity} holds other keys than before: its PIN is forgotten, not sent"
                ) from None
        self.returned()
        self._set_state(TokenState.READY if logged_in else TokenState.PRESENT)
