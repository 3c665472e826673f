"""Finding one token, given a worker: that it is the same token, its flags, and its keys.

What a PIN or a signature needs first; no PIN is sent here.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from importlib import import_module

from replug.token.boottime import boottime
from replug.token.errors import TokenAbsentError, TokenError, Verdict, WorkerRefusedError
from replug.token.identity import TokenFlag
from replug.token.keys import KeyRecord, LeftOut, TokenKey, log_left_out, reading, without_private_key
from replug.token.pins.owner import PinOwner
from replug.token.pins.rules import PinRules
from replug.token.serving.presence import Presence
from replug.token.serving.shown_keys import OtherKeysError, ShownKeys
from replug.token.worker.client import Opened, WorkerClient
from replug.token.worker.pool import WorkerPool

_SEEN_LATELY = 1.0  # seconds


class TokenOpening:
    """The first steps on one token, for `recovery.attempt`: each gets a worker, and may be run once more.

    What is found is reported to `token`, which keeps the state, and to `keys`.
    """

    def __init__(
        self, token: Presence, pool: WorkerPool, rules: PinRules, owner: PinOwner, keys: ShownKeys
    ) -> None:
        """`keys` are the owner's."""
        self.keys = keys
        self._token = token
        self._pool = pool
        self._rules = rules
        self._owner = owner
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
            raise TokenAbsentError(
                f"{token} is out: the token in its slot has other keys", self._token.how_to_bring_back
            )
        if token in worker.ready and self.keys.lacks_some_of(found.keys):
            # libykcs11 hides private keys when another program has reset the card. They are still there: a
            # fresh worker sees them after login.
            raise WorkerRefusedError(Verdict.NOT_LOGGED_IN, "keys are missing that this session has shown")
        if TokenFlag.LOGIN_REQUIRED not in opened.flags:
            worker.ready.add(token)
        self.saw_keys(found, logged_in=token in worker.ready)
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
                raise TokenAbsentError(refused.reason, self._token.how_to_bring_back) from refused
            raise
        self._token.flags = opened.flags
        self._token.removable = opened.removable
        self._owner.has_twin |= opened.has_twin
        return opened

    async def flags(self, worker: WorkerClient) -> TokenFlag:
        """The flags, just read; the keys have been read by this worker, and are if they have not."""
        if self._token.identity not in worker.opened:
            return await self.open(worker)
        self.refuse_if_closed()
        self._token.flags = flags = await worker.flags(self._token.identity)
        return flags

    async def flags_to_log_in(self, worker: WorkerClient) -> TokenFlag:
        """Like `flags`, but only as many keys are read as prove the token: all are after the login."""
        if self._token.identity in worker.opened:
            return await self.flags(worker)
        if not self.keys.known:
            opened = await self._open(worker, None)
            if TokenFlag.LOGIN_REQUIRED not in opened.flags:
                return await self.open(worker)
            self.keys.saw_one((await read_all(opened.records)).keys)
            self._token.returned()
            return opened.flags
        key = self.keys.to_prove_with
        return await self.flags(worker) if key is None else await self._flags_by(worker, key)

    async def flags_for(self, worker: WorkerClient, key: TokenKey | None) -> TokenFlag:
        """Like `flags`, but if it is known which keys can sign, this worker looks for `key` only."""
        known = key is not None and key.key_id and self.keys.complete
        if self._token.identity in worker.opened or key is None or not known:
            return await self.flags(worker)
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
        self.opened(logged_in=not needs_login)
        return opened.flags

    def refuse_if_closed(self) -> None:
        """Raise TokenError if the token is no longer served."""
        if self._token.closed:
            raise TokenError(f"{self._token.identity} was removed from the agent")

    def saw_keys(self, found: Found, *, logged_in: bool) -> None:
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
        self.opened(logged_in=logged_in)

    def opened(self, *, logged_in: bool) -> None:
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
