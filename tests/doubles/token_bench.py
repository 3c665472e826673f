"""A served token on a stand-in module, with a person at the prompt."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from doubles.stand_ins import PIN, WITH_PIN, Key, Person, Slots, StandInToken, use_slots

from replug.protocol.signatures import verify
from replug.token.identity import TokenFlag
from replug.token.pins.pin import Pin, PinCache
from replug.token.pins.policy import PinPolicy
from replug.token.prompts.request import Asker
from replug.token.serving.served import ServedToken
from replug.token.worker.card_turns import CardTurns
from replug.token.worker.deadlines import Deadlines
from replug.token.worker.pool import WorkerPool

COUNT_LOW = WITH_PIN | TokenFlag.USER_PIN_COUNT_LOW
FINAL_TRY = WITH_PIN | TokenFlag.USER_PIN_FINAL_TRY
LOCKED = WITH_PIN | TokenFlag.USER_PIN_LOCKED
KEYPAD = WITH_PIN | TokenFlag.PROTECTED_AUTHENTICATION_PATH


def careful_token(flags: TokenFlag = WITH_PIN) -> StandInToken:
    """A token with a key that wants the PIN at every use."""
    return StandInToken(Key("9c", always_authenticate=True), flags=flags)


@dataclass
class Bench:
    """A served token on a stand-in module, with a person at the prompt."""

    slots: Slots
    token: StandInToken
    person: Person
    pins: PinCache
    served: ServedToken

    @property
    def pin(self) -> Pin | None:
        """What is remembered for the token."""
        return self.pins.get(self.served.pin_owner)

    async def sign(self, key: Key | None = None, data: bytes = b"data") -> None:
        """One signature, with the token's first key if none is named; it has to be right."""
        key = key or self.token.keys[0]
        verify(key.public, await self.served.sign(key.token_key(), data, 0, Asker("ssh (pid 4711)")), data)

    async def remember(self, pin: bytes = PIN) -> Pin:
        """Log in as `ssh-add -s` does, and sign nothing."""
        entered = Pin(pin)
        await self.served.log_in(entered)
        return entered

    def lose_worker(self) -> None:
        """The worker dies while nothing is asked of it."""
        for worker in self.slots.workers:
            worker.kill()


def bench(
    monkeypatch: pytest.MonkeyPatch,
    token: StandInToken | None = None,
    person: Person | None = None,
    workers: int = 1,
    policy: PinPolicy | None = None,
) -> Bench:
    """A bench for `token`, by default one with an Ed25519 key, and for a person who is not to be asked."""
    token, person, pins = token or StandInToken(Key("key")), person or Person(), PinCache(lambda: None)
    slots = Slots(token)
    use_slots(monkeypatch, slots)
    pool = WorkerPool("/usr/lib/module.so", slots.fork_server, Deadlines(), CardTurns(), workers)
    policy = policy or PinPolicy()
    served = ServedToken(token.identity, pool, pins, person, lambda _: policy, lambda: None)
    return Bench(slots, token, person, pins, served)
