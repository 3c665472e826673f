"""`ssh-add -x` and `-X`: the agent's passphrase lock (ssh-agent.c, process_lock_agent), which seals.

There is no verifier of the passphrase: it is right if the seal opens with it.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from replug.agent.keys.refusal import RequestRefusedError
from replug.protocol.secrets import wipe
from replug.token.offload import Aside
from replug.token.prompts.processes import known_by_command
from replug.token.requester import Requester, requester
from replug.token.seal import Seal, derive_key
from replug.token.turns import one_less

_DELAY_PER_FAILURE = 0.1  # seconds
_LONGEST_DELAY = 10.0  # seconds
_MOST_ATTEMPTS = 2  # of one process
_MOST_AT_ONCE = 2  # derivations, of 32 MiB each


class Lock:
    """Locked or not. `seal_all` is called before the seal is shut, `unseal_all` when it is open again."""

    def __init__(self, seal: Seal, seal_all: Callable[[], None], unseal_all: Callable[[], None]) -> None:
        self._seal = seal
        self._seal_all = seal_all
        self._unseal_all = unseal_all
        self._salt = b""
        self._failures = 0
        self._aside = Aside(_MOST_AT_ONCE)
        self._attempts: Counter[int] = Counter()
        """Under way, the delays after failures included, by process."""

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
        derived = await self._derive(bytearray(passphrase), salt)
        try:
            if self.locked:
                raise RequestRefusedError("lock: another client has just locked the agent")
            self._seal_all()
            self._seal.shut(derived)
        finally:
            wipe(derived)
        self._salt = salt

    async def unlock(self, process: int, passphrase: bytes | bytearray) -> None:
        """Unlock, as `process` asks; wipes the passphrase as soon as it is not needed.

        Every failure makes the refusal of the next slower, and only that. Many connections of a process are
        no way around the delay. A guess that was not tried when its client leaves is not tried any more.
        """
        own = bytearray(passphrase)
        if isinstance(passphrase, bytearray):
            _empty(passphrase)
        if not self.locked:
            raise RequestRefusedError("unlock: not locked")
        if self._attempts[process] >= _MOST_ATTEMPTS:
            raise RequestRefusedError("unlock: too many attempts at once", "try again")
        requester.set(known_by_command(Requester(requester.get().program, process)))
        self._attempts[process] += 1
        delay = 0.0
        try:
            delay = await self._delay_after(own)
        finally:
            _empty(own)
            if not delay:
                one_less(self._attempts, process)
        if delay:
            # A client that hangs up does not shorten the delay for the next attempt.
            await asyncio.shield(asyncio.create_task(self._end_later(process, delay)))
            raise RequestRefusedError("unlock: wrong passphrase", "unlock with ssh-add -X")

    async def _end_later(self, process: int, delay: float) -> None:
        try:
            await asyncio.sleep(delay)
        finally:
            one_less(self._attempts, process)

    async def _delay_after(self, passphrase: bytearray) -> float:
        """Unlock, and 0; else the seconds to wait before the refusal."""
        salt = self._salt
        derived = await self._derive(passphrase, salt)
        if not self.locked or salt != self._salt:
            wipe(derived)
            raise RequestRefusedError("unlock: another client was faster")
        opened = self._seal.reopen(derived)
        wipe(derived)
        if not opened:
            self._failures += 1
            return min(self._failures * _DELAY_PER_FAILURE, _LONGEST_DELAY)
        self._failures = 0
        self._unseal_all()
        return 0.0

    async def _derive(self, passphrase: bytearray, salt: bytes) -> bytearray:
        """The key of `passphrase`, which the thread that uses it wipes, whoever leaves meanwhile."""

        def derive() -> bytearray:
            try:
                return derive_key(passphrase, salt)
            finally:
                wipe(passphrase)

        return await self._aside.run(derive, wipe)


def _empty(passphrase: bytearray) -> None:
    """Wipe it, and free its memory, which is as long as a client likes, unless a thread still reads it."""
    wipe(passphrase)
    with suppress(BufferError):
        passphrase.clear()
