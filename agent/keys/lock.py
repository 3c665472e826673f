"""`ssh-add -x` and `-X`: locks the agent with a passphrase (ssh-agent.c, process_lock_agent), by `Seal`.

Nothing is stored to compare a passphrase with: it is right if it opens the seal.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from replug.agent.keys.refusal import RequestRefusedError
from replug.protocol.secrets import wipe
from replug.token.seal import Seal, derive_key

_DELAY_PER_FAILURE = 0.1  # seconds
_LONGEST_DELAY = 10.0  # seconds
_MOST_ATTEMPTS = 8  # at once


class Lock:
    """Locked or not. `seal_all` is called before the seal is shut, `unseal_all` when it is open again."""

    def __init__(self, seal: Seal, seal_all: Callable[[], None], unseal_all: Callable[[], None]) -> None:
        self._seal = seal
        self._seal_all = seal_all
        self._unseal_all = unseal_all
        self._salt = b""
        self._failures = 0
        self._attempt = asyncio.Lock()
        self._attempts = 0

    @property
    def locked(self) -> bool:
        """Whether a passphrase is needed before anything else."""
        return self._seal.is_shut

    async def lock(self, passphrase: bytes | bytearray) -> None:
        """Lock with a passphrase that is not empty; refused while locked."""
        if not passphrase:
            raise RequestRefusedError("lock: the passphrase is empty")
        if self.locked:
            raise RequestRefusedError("lock: already locked")
        salt = os.urandom(16)
        derived = await _derive(bytearray(passphrase), salt)
        try:
            if self.locked:
                raise RequestRefusedError("lock: another client has just locked the agent")
            self._seal_all()
            self._seal.shut(derived)
        finally:
            wipe(derived)
        self._salt = salt

    async def unlock(self, passphrase: bytes | bytearray) -> None:
        """Unlock. Each wrong passphrase is refused after a longer delay than the one before.

        The right one is not delayed. So that many connections do not avoid the delay, only a few attempts are
        handled at once.
        """
        if self._attempts >= _MOST_ATTEMPTS:
            raise RequestRefusedError("unlock: too many attempts at once", "try again")
        self._attempts += 1
        # A client that hangs up must not shorten the time that its attempt occupies.
        trying = asyncio.create_task(self._try_in_turn(bytearray(passphrase)))
        trying.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(trying)

    async def _try_in_turn(self, passphrase: bytearray) -> None:
        try:
            async with self._attempt:
                delay = await self._delay_after(passphrase)
            if delay:
                await asyncio.sleep(delay)
                raise RequestRefusedError("unlock: wrong passphrase", "unlock with ssh-add -X")
        finally:
            wipe(passphrase)
            self._attempts -= 1

    async def _delay_after(self, passphrase: bytearray) -> float:
        """Try to unlock; returns 0 if that succeeded, else the seconds to wait before the refusal."""
        if not self.locked:
            raise RequestRefusedError("unlock: not locked")
        derived = await _derive(bytearray(passphrase), self._salt)
        opened = self._seal.reopen(derived)
        wipe(derived)
        if not opened:
            self._failures += 1
            return min(self._failures * _DELAY_PER_FAILURE, _LONGEST_DELAY)
        self._failures = 0
        self._unseal_all()
        return 0.0


async def _derive(passphrase: bytearray, salt: bytes) -> bytearray:
    """Derive a key in a thread, which wipes `passphrase` even if the caller is cancelled."""

    def derive() -> bytearray:
        try:
            return derive_key(passphrase, salt)
        finally:
            wipe(passphrase)

    return await asyncio.to_thread(derive)
