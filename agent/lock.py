"""`ssh-add -x` and `-X`: the agent's passphrase lock (ssh-agent.c, process_lock_agent)."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os

from replug.agent.refusal import RequestRefusedError

_DELAY_PER_FAILURE = 0.1  # seconds
_LONGEST_DELAY = 10.0  # seconds
_MOST_ATTEMPTS = 8  # at once
_SCRYPT_COST = 2**14  # about 50 ms and 16 MiB


class Lock:
    """Locked or not, and the verifier of the passphrase that unlocks."""

    def __init__(self) -> None:
        self._salt = b""
        self._verifier: bytes | None = None
        self._failures = 0
        self._attempt = asyncio.Lock()
        self._attempts = 0

    @property
    def locked(self) -> bool:
        """Whether a passphrase is needed before anything else."""
        return self._verifier is not None

    async def lock(self, passphrase: bytes) -> None:
        """Lock with a passphrase that is not empty; refused while locked."""
        if not passphrase:
            raise RequestRefusedError("lock: the passphrase is empty")
        if self.locked:
            raise RequestRefusedError("lock: already locked")
        salt = os.urandom(16)
        verifier = await asyncio.to_thread(_derive, passphrase, salt)
        if self.locked:
            raise RequestRefusedError("lock: another client has just locked the agent")
        self._salt, self._verifier = salt, verifier

    async def unlock(self, passphrase: bytes) -> None:
        """Unlock. Every failure makes the next answer slower, for who tries to unlock and nobody else.

        Attempts are heard one after the other, or many connections would be a way around the delay.
        """
        if self._attempts >= _MOST_ATTEMPTS:
            raise RequestRefusedError("unlock: too many attempts at once", "try again")
        self._attempts += 1
        # Who hangs up does not shorten the delay for the next attempt.
        trying = asyncio.create_task(self._try_in_turn(passphrase))
        trying.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(trying)

    async def _try_in_turn(self, passphrase: bytes) -> None:
        try:
            async with self._attempt:
                await self._try(passphrase)
        finally:
            self._attempts -= 1

    async def _try(self, passphrase: bytes) -> None:
        if not self.locked:
            raise RequestRefusedError("unlock: not locked")
        offered = await asyncio.to_thread(_derive, passphrase, self._salt)
        if self._verifier is None or not hmac.compare_digest(offered, self._verifier):
            self._failures += 1
            await asyncio.sleep(min(self._failures * _DELAY_PER_FAILURE, _LONGEST_DELAY))
            raise RequestRefusedError("unlock: wrong passphrase", "unlock with ssh-add -X")
        self._verifier, self._failures = None, 0


def _derive(passphrase: bytes, salt: bytes) -> bytes:
    return hashlib.scrypt(passphrase, salt=salt, n=_SCRYPT_COST, r=8, p=1)
