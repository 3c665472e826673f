"""The operations on one token, given a worker: find it, log in, sign.

A PIN goes to the token only after this very worker has found the same identity and public keys and read the
flags. The other rules about PINs are in `pins/rules.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import import_module

from replug.token.boottime import boottime
from replug.token.errors import PinLockedError, TokenAbsentError, TokenError, Verdict, WorkerRefusedError
from replug.token.identity import TokenFlag
from replug.token.keys import KeyRecord, LeftOut, TokenKey, log_left_out, reading, without_private_key
from replug.token.pins.owner import PinOwner
from replug.token.pins.pin import Pin, PinCache
from replug.token.pins.rules import PinRules
from replug.token.presence import Presence
from replug.token.shown_keys import OtherKeysError, ShownKeys
from replug.token.signing import signature_on
from replug.token.worker.client import Opened, WorkerClient
from replug.token.worker.pool import WorkerPool

log = logging.getLogger(__name__)

_SEEN_LATELY = 1.0  # seconds

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
        keys: ShownKeys,
    ) -> None:
        """`keys` are the owner's."""
        self.keys = keys
        self._token = token
        self._pool = pool
        self._pins = pins
        self._rules = rules
        self._owner = owner
        self._one_login = pins.one_login(owner.token.original)
        self.left_out: list[LeftOut] = []
        """The keys of the token that are not offered, when they were read last."""

    async def open(self, worker: WorkerClient) -> TokenFlag:
        """Find the token and its keys; its flags, just read. Its PIN is for keys that were there before."""
        opened = await self._open(worker)
        token = self._token.identity
        found = await read_all(opened.records)
        if (self._owner.has_twin or not token.has_serial) and self.keys.are_others(found.keys):
            self._owner.has_twin = True
            worker.opened.discard(token)  # that session is with its twin
            raise TokenAbsentError(f"{token} is out: the token in its slot has other keys")
        if token in worker.ready and self.keys.lacks_some_of(found.keys):
            # libykcs11 hides private keys when another program has reset the card. They are still there: a
            # fresh worker sees them after login.
            raise WorkerRefusedError(Verdict.NOT_LOGGED_IN, "keys are missing that this session has shown")
        if TokenFlag.LOGIN_REQUIRED not in opened.flags:
            worker.ready.add(token)
        self._saw_keys(found, logged_in=token in worker.ready)
        return opened.flags

    async def _open(self, worker: WorkerClient, key_id: bytes | None = b"") -> Opened:
        self.refuse_if_closed()
        token = self._token.identity
        try:
            opened = await worker.open(token, self._token.slot if self._owner.has_twin else None, key_id)
        except WorkerRefusedError as refused:
            # This worker sees other tokens, so it is not blind, and they must not lose their login.
            others_work = worker.ready - {token}
            known = others_work or self._token.known_to_be_out(worker.started_at)
            # Where nothing can be plugged in, only a new process of the module sees that the token is back.
            known = known and (
                others_work or self._token.removable or boottime() - worker.started_at < _SEEN_LATELY
            )
            if refused.verdict is Verdict.TOKEN_ABSENT and token not in worker.opened and known:
                raise TokenAbsentError(refused.reason) from refused
            raise
        self._token.flags = opened.flags
        self._token.removable = opened.removable
        self._owner.has_twin |= opened.has_twin
        return opened

    async def _flags(self, worker: WorkerClient) -> TokenFlag:
        """The flags, just read; the keys have been read by this worker, and are if they have not."""
        if self._token.identity not in worker.opened:
            return await self.open(worker)
        self.refuse_if_closed()
        self._token.flags = flags = await worker.flags(self._token.identity)
        return flags

    async def _flags_to_log_in(self, worker: WorkerClient) -> TokenFlag:
        """Like `_flags`, but only as many keys are read as prove the token: all are after the login."""
        if self._token.identity in worker.opened:
            return await self._flags(worker)
        if not self.keys.known:
            opened = await self._open(worker, None)
            if TokenFlag.LOGIN_REQUIRED not in opened.flags:
                return await self.open(worker)
            self.keys.saw_one((await read_all(opened.records)).keys)
            self._token.returned()
            return opened.flags
        key = self.keys.to_prove_with
        return await self._flags(worker) if key is None else await self._flags_by(worker, key)

    async def _flags_for(self, worker: WorkerClient, key: TokenKey | None) -> TokenFlag:
        """Like `_flags`, but if it is known which keys can sign, this worker looks for `key` only."""
        known = key is not None and key.key_id and self.keys.complete
        if self._token.identity in worker.opened or key is None or not known:
            return await self._flags(worker)
        return await self._flags_by(worker, key)

    async def _flags_by(self, worker: WorkerClient, key: TokenKey) -> TokenFlag:
        """Find the token and this key on it; the flags. A token that does not show it is read as a whole."""
        opened = await self._open(worker, key.key_id)
        found = (await read_all(opened.records)).keys.get(key.blob)
        needs_login = TokenFlag.LOGIN_REQUIRED in opened.flags
        if found is None or not (needs_login or found.signs):
            return await self.open(worker)
        self.keys.saw_again()
        if not needs_login:
            worker.ready.add(self._token.identity)
        self._opened(logged_in=not needs_login)
        return opened.flags

    async def open_to_ask(self, worker: WorkerClient) -> TokenFlag:
        """Like `open`, before the user is asked for the PIN; PinLockedError if the token accepts none."""
        flags = await self._flags(worker)
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
        logins, flags = self._one_login.taken, await self._flags_to_log_in(worker)
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
        key = self.keys.offered.get(blob)
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
        known = self.keys.offered.get(blob)
        logins, flags = self._one_login.taken, await self._flags_for(worker, known)
        key = self.keys.offered.get(blob)
        if key is None:
            raise self._no_such_key()
        if self.keys.may_sign_without_login(blob) and not key.always_authenticate:
            try:
                signature = await signature_on(worker, self._token.identity, key, algorithm, data, None)
            except WorkerRefusedError as refused:
                if refused.verdict is not Verdict.NOT_LOGGED_IN:
                    raise
            else:
                self._pins.used(self._owner)
                return signature
            logins, flags = self._one_login.taken, await self._flags(worker)
        if self._token.identity not in worker.ready:
            await self._log_in(worker, None, flags, logins, key)
        return None

    async def _sign_with_pin(self, worker: WorkerClient, key: TokenKey, algorithm: str, data: bytes) -> bytes:
        """The signature by a key that wants the PIN for each."""
        async with self._one_login, self._configured_pin() as configured:
            pin = self._rules.choose(configured, await self._flags(worker), for_one_use=True)
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
        key_id = key.key_id if key is not None and self.keys.complete else b""
        async with self._one_login:
            if self._one_login.taken != logins + 1:
                flags = await self._flags(worker)
            self.refuse_if_closed()
            self._refuse_if_locked(worker, flags)
            async with self._configured_pin(pin) as configured:
                if configured is not None:
                    flags = await self._flags(worker)
                    self.refuse_if_closed()
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
            self._opened(logged_in=True)
        elif key_id:
            await self.open(worker)
        else:
            self._saw_keys(found, logged_in=True)
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

    def refuse_if_closed(self) -> None:
        """Raise TokenError if the token is no longer served."""
        if self._token.closed:
            raise TokenError(f"{self._token.identity} was removed from the agent")

    def _no_such_key(self) -> TokenError:
        return TokenError(f"{self._token.identity} no longer holds this key, or may not sign with it")

    def _accepted(self, pin: Pin | None) -> None:
        self._rules.accepted(pin)
        if pin is not None:
            self._token.flags &= ~_TRIES_LOST  # a right PIN gives them back

    def _saw_keys(self, found: Found, *, logged_in: bool) -> None:
        """Record the keys; if none of them was there before, forget the PIN and raise TokenError."""
        left_out = found.left_out
        if logged_in:
            self.keys.saw_logged_in(found.keys)
            left_out += without_private_key(found.keys)
        else:
            try:
                self.keys.saw_without_login(found.keys)
            except OtherKeysError:
                self._rules.forget()
                raise TokenError(
                    f"{self._token.identity} has other keys than before, so its PIN was forgotten, not sent"
                ) from None
        if left_out != self.left_out and (logged_in or not self.keys.complete):
            log_left_out(left_out, str(self._token.identity))
            self.left_out = left_out
        self._opened(logged_in=logged_in)

    def _opened(self, *, logged_in: bool) -> None:
        """Report it; a login that ends with the operation, as PINs were forgotten meanwhile, is none."""
        self._token.opened(logged_in=logged_in and not self._pool.ending)


@dataclass(frozen=True)
class Found:
    """The keys on a token."""

    keys: dict[bytes, TokenKey]
    left_out: list[LeftOut]


async def read_all(records: list[KeyRecord]) -> Found:
    """What SSH can use of the records, and what not; other work has its turn meanwhile."""
    found = Found({}, [])
    if any(isinstance(record, dict) and record.get("kind") == "x509" for record in records):
        # What reads certificates takes a tenth of a second to load, once.
        await asyncio.to_thread(import_module, "cryptography.x509")
    for _ in reading(records, found.keys, found.left_out):
        await asyncio.sleep(0)
    return found
