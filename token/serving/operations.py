"""The operations on one token, given a worker: log in, sign. `opening.py` has the steps before.

A PIN goes to the token only after this very worker has found the same identity and public keys and read the
flags. The other rules about PINs are in `pins/rules.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from replug.token.errors import PinLockedError, TokenError, Verdict, WorkerRefusedError
from replug.token.identity import TokenFlag
from replug.token.keys import TokenKey
from replug.token.pins.owner import PinOwner
from replug.token.pins.pin import Pin, PinCache
from replug.token.pins.rules import PinRules
from replug.token.serving.opening import TokenOpening, read_all
from replug.token.serving.presence import Presence
from replug.token.serving.signing import signature_on
from replug.token.worker.client import WorkerClient
from replug.token.worker.pool import WorkerPool

_TRIES_LOST = TokenFlag.USER_PIN_COUNT_LOW | TokenFlag.USER_PIN_FINAL_TRY | TokenFlag.USER_PIN_LOCKED


class TokenOperations:
    """The operations on one token, for `recovery.attempt`: each gets a worker, and may be run once more.

    Their outcome is reported to `token`, which keeps the state, and to `rules`, which keep the PIN.
    """

    def __init__(
        self,
        token: Presence,
        pool: WorkerPool,
        pins: PinCache,
        rules: PinRules,
        owner: PinOwner,
        opening: TokenOpening,
    ) -> None:
        """`opening` is the token's."""
        self._opening = opening
        self._keys = opening.keys
        self._token = token
        self._pool = pool
        self._pins = pins
        self._rules = rules
        self._owner = owner
        self._one_login = pins.one_login(owner.token.original)

    async def open_to_ask(self, worker: WorkerClient) -> TokenFlag:
        """Find the token before the user is asked for the PIN; PinLockedError if it accepts none."""
        flags = await self._opening.flags(worker)
        self._refuse_if_locked(worker, flags)
        return flags

    def _refuse_if_locked(self, worker: WorkerClient, flags: TokenFlag) -> None:
        """PinLockedError if the token accepts no PIN; the next request asks it by way of another process.

        libykcs11 reads the tries once for each process, and would say so after the PIN was unblocked.
        """
        try:
            self._rules.refuse_if_locked(flags)
        except PinLockedError:
            if not worker.ready - {self._token.identity}:
                worker.kill()
            raise

    async def log_in(self, worker: WorkerClient, pin: Pin, at_every_use: bool) -> None:
        """Log in with `pin` unless this worker is logged in; keep it for keys that want it at every use."""
        logins, flags = self._one_login.taken, await self._opening.flags_to_log_in(worker)
        proven = False
        if self._token.identity not in worker.ready:
            proven = await self._log_in(worker, pin, flags, logins)
        if not proven and at_every_use:
            # The key's own login will tell whether it is right.
            self._rules.remember(pin)

    async def sign(self, worker: WorkerClient, blob: bytes, algorithm: str, data: bytes) -> bytes:
        """The signature blob over `data` by the key with this public key blob, after a login if need be."""
        if self._token.identity not in worker.ready:
            signature = await self._sign_or_log_in(worker, blob, algorithm, data)
            if signature is not None:
                return signature
        key = self._keys.offered.get(blob)
        if key is None:
            raise self._no_such_key()
        if key.always_authenticate:
            signature = await self._sign_with_pin(worker, key, algorithm, data)
        else:
            signature = await signature_on(worker, self._token.identity, key, algorithm, data, None)
        self._pins.used(self._owner)
        return signature

    async def _sign_or_log_in(
        self, worker: WorkerClient, blob: bytes, algorithm: str, data: bytes
    ) -> bytes | None:
        """The signature if the key makes it without a login; else None, after the login."""
        known = self._keys.offered.get(blob)
        logins, flags = self._one_login.taken, await self._opening.flags_for(worker, known)
        key = self._keys.offered.get(blob)
        if key is None:
            raise self._no_such_key()
        if self._keys.may_sign_without_login(blob) and not key.always_authenticate:
            try:
                signature = await signature_on(worker, self._token.identity, key, algorithm, data, None)
            except WorkerRefusedError as refused:
                if refused.verdict is not Verdict.NOT_LOGGED_IN:
                    raise
            else:
                self._pins.used(self._owner)
                return signature
            logins, flags = self._one_login.taken, await self._opening.flags(worker)
        if self._token.identity not in worker.ready:
            await self._log_in(worker, None, flags, logins, key)
        return None

    async def _sign_with_pin(self, worker: WorkerClient, key: TokenKey, algorithm: str, data: bytes) -> bytes:
        """The signature by a key that wants the PIN for each."""
        async with self._one_login, self._configured_pin() as configured:
            pin = self._rules.choose(configured, await self._opening.flags(worker), for_one_use=True)
            sent = None if pin is None else pin.value
            try:
                signature = await signature_on(worker, self._token.identity, key, algorithm, data, sent)
            except WorkerRefusedError as refused:
                worker.kill()
                self._rules.refused(refused, pin)
                raise
            self._accepted(pin)
            return signature

    async def _log_in(
        self,
        worker: WorkerClient,
        pin: Pin | None,
        flags: TokenFlag,
        logins: int,
        key: TokenKey | None = None,
    ) -> bool:
        """Log in on the token just opened with `pin`, else with the remembered PIN or the keypad.

        `logins` is how many there were before the `flags` were read. If the keys were read before, afterwards
        only `key` is looked for. False if the session was logged in already, and no PIN was compared.
        """
        key_id = key.key_id if key is not None and self._keys.complete else b""
        async with self._one_login:
            if self._one_login.taken != logins + 1:
                flags = await self._opening.flags(worker)
            self._opening.refuse_if_closed()
            self._refuse_if_locked(worker, flags)
            async with self._configured_pin(pin) as configured:
                if configured is not None:
                    flags = await self._opening.flags(worker)
                    self._opening.refuse_if_closed()
                chosen = self._rules.choose(pin or configured, flags)
                try:
                    login = await worker.login(
                        self._token.identity, None if chosen is None else chosen.value, key_id
                    )
                except WorkerRefusedError as refused:
                    worker.kill()
                    # Other workers may be logged in with a PIN that is no longer right.
                    self._pool.restart()
                    self._rules.refused(refused, chosen)
                    raise
                if login.proven:
                    self._accepted(chosen)
                else:
                    self._rules.not_compared(chosen)
        found = await read_all(login.records)
        if key_id and key is not None and key.blob in found.keys and found.keys[key.blob].signs:
            self._opening.opened(logged_in=True)
        elif key_id:
            await self._opening.open(worker)
        else:
            self._opening.saw_keys(found, logged_in=True)
        return login.proven

    @asynccontextmanager
    async def _configured_pin(self, instead: Pin | None = None) -> AsyncIterator[Pin | None]:
        """The configured PIN if there is one and none `instead`; wiped at the end unless it is kept."""
        pin = await self._rules.configured() if instead is None else None
        if pin is None:
            yield None
        else:
            with self._rules.using(pin):
                yield pin

    def _no_such_key(self) -> TokenError:
        return TokenError(f"{self._token.identity} no longer holds this key, or may not sign with it")

    def _accepted(self, pin: Pin | None) -> None:
        self._rules.accepted(pin)
        if pin is not None:
            self._token.flags &= ~_TRIES_LOST  # a right PIN gives them back
