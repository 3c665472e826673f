"""Which token is which, of those that are alike."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest
from doubles.stand_ins import PIN, Key, Person, Slots, StandInToken, refused, run, use_slots

from replug.token.errors import TokenAbsentError, TokenError, Verdict
from replug.token.identity import TokenFlag, TokenId, TokenInfo
from replug.token.modules.module import Module
from replug.token.modules.twins import Known, Seen, tell_apart
from replug.token.names.uri import Uri
from replug.token.pins.pin import Pin, PinCache
from replug.token.pins.policy import PinPolicy
from replug.token.prompts.request import Asker
from replug.token.serving.presence import TokenState
from replug.token.serving.served import ServedToken
from replug.token.worker.card_turns import CardTurns
from replug.token.worker.client import Deadlines

FIRST = TokenId("Maker", "Model", "0000", "PIV_II")
SECOND, THIRD = replace(FIRST, copy=1), replace(FIRST, copy=2)
A, B, SHARED = b"a", b"b", b"shared"


def seen(slot: int, *keys: bytes) -> Seen:
    return Seen(TokenInfo(FIRST, TokenFlag(0), slot, f"reader {slot}", True), frozenset(keys))


def known(identity: TokenId, slot: int | None, *keys: bytes) -> Known:
    return Known(identity, slot, frozenset(keys))


@pytest.mark.parametrize(
    ("in_slots", "served", "who"),
    [
        ([seen(1, A), seen(2, B)], [], [FIRST, SECOND]),
        ([seen(1, B), seen(2, A)], [known(FIRST, 1, A), known(SECOND, 2, B)], [SECOND, FIRST]),
        ([seen(1, B)], [known(FIRST, 1, A), known(SECOND, 2, B)], [SECOND]),
        ([seen(1, A), seen(2, b"new")], [known(FIRST, 1, A), known(SECOND, 2, B)], [FIRST, THIRD]),
        # Copies: the same keys on both.
        ([seen(1, A), seen(2, A)], [known(FIRST, 2, A), known(SECOND, 1, A)], [SECOND, FIRST]),
        ([seen(3, A), seen(4, A)], [known(FIRST, 1, A), known(SECOND, 2, A)], [FIRST, SECOND]),
        ([seen(1, A, SHARED), seen(2, B, SHARED)], [known(FIRST, 1, SHARED, B)], [SECOND, FIRST]),
        # Keys that show only after login.
        ([seen(1), seen(2)], [known(FIRST, 2, A), known(SECOND, 1, B)], [SECOND, FIRST]),
        ([seen(3), seen(4)], [known(FIRST, 1, A), known(SECOND, 2, B)], [FIRST, SECOND]),
        ([seen(1, A), seen(2)], [known(FIRST, 2), known(SECOND, 1, A)], [SECOND, FIRST]),
    ],
)
def test_keys_decide_and_then_slots(in_slots: list[Seen], served: list[Known], who: list[TokenId]) -> None:
    assert tell_apart(in_slots, served) == who


class Rig:
    """A module with two tokens that are alike."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, serial: str = "1") -> None:
        self.one = StandInToken(Key("one"), serial=serial)
        self.other = StandInToken(Key("other"), serial=serial)
        self.other.pin = b"the other PIN"
        self.slots = Slots(self.one, self.other)
        use_slots(monkeypatch, self.slots)
        self.person = Person()
        policy = PinPolicy()
        self.module = Module(
            "/module.so", PinCache(lambda: None), self.person, Deadlines(), 1, lambda _: policy, lambda: None,
            self.slots.fork_server, CardTurns(),
        )  # fmt: skip
        self.module.serve([Uri()])

    async def look(self) -> None:
        for token in await self.module.look():
            await token.read()

    def having(self, token: StandInToken) -> ServedToken:
        """The served token that has this one's key."""
        blob = token.keys[0].blob
        [served] = [served for served in self.module.tokens.values() if blob in served.keys]
        return served

    async def sign(self, token: StandInToken) -> None:
        await self.having(token).sign(token.keys[0].token_key(), b"data", 0, Asker("ssh"))


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(monkeypatch)


def test_both_are_served_and_have_names_of_their_own(rig: Rig) -> None:
    async def main() -> None:
        await rig.look()
        names = [str(identity) for identity in rig.module.tokens]
        assert names == ['token "work" (serial 1)', 'token "work" (serial 1) #2']
        assert [token.state for token in rig.module.tokens.values()] == [TokenState.PRESENT] * 2
        assert all(token.pin_owner.has_twin for token in rig.module.tokens.values())

    run(main())


def test_each_has_a_pin_of_its_own_and_none_gets_the_others(rig: Rig) -> None:
    async def main() -> None:
        await rig.look()
        await rig.having(rig.one).log_in(Pin(PIN))
        rig.person.answers = [b"the other PIN"]
        await rig.sign(rig.other)
        for _ in range(3):
            rig.slots.tokens.reverse()
            for worker in rig.slots.workers:
                worker.kill()
            await rig.look()
            for token in (rig.one, rig.other):
                await rig.sign(token)
        assert set(rig.slots.logins) == {PIN, b"the other PIN"}
        assert rig.slots.refused_pins == 0
        assert len(rig.person.requests) == 1

    run(main())


def test_one_that_cannot_be_read_does_not_keep_the_other_from_being_served(rig: Rig) -> None:
    async def main() -> None:
        rig.slots.fail_next("peek", refused(Verdict.FAILED))
        await rig.look()
        assert len(rig.module.tokens) == 2
        assert len(rig.slots.workers) == 1

    run(main())


def test_a_pin_is_not_shared_by_twins_that_have_a_key_in_common(rig: Rig) -> None:
    async def main() -> None:
        rig.other.keys = [*rig.other.keys, *rig.one.keys]
        await rig.look()
        first, second = rig.module.tokens.values()
        await first.log_in(Pin(PIN))
        assert (first.pin_remembered, second.pin_remembered) == (True, False)

    run(main())


def test_one_leaves_and_the_other_stays(rig: Rig) -> None:
    async def main() -> None:
        await rig.look()
        one, other = rig.having(rig.one), rig.having(rig.other)
        rig.slots.tokens.remove(rig.one)
        await rig.look()
        assert (one.state, other.present) == (TokenState.ABSENT, True)
        rig.slots.tokens.insert(0, rig.one)
        rig.slots.tokens.remove(rig.other)
        await rig.look()
        assert (one.present, other.state) == (True, TokenState.ABSENT)
        assert len(rig.module.tokens) == 2

    run(main())


def test_a_request_before_the_next_look_does_not_take_one_for_the_other(rig: Rig) -> None:
    async def main() -> None:
        await rig.look()
        one = rig.having(rig.one)
        await one.log_in(Pin(PIN))
        await rig.look()
        # They change places: the slot numbers stay.
        rig.slots.tokens = [rig.other]
        rig.slots.slot_numbers = {id(rig.other): id(rig.one)}
        for worker in rig.slots.workers:
            worker.kill()
        with pytest.raises((TokenAbsentError, TokenError), match="other keys"):
            await rig.sign(rig.one)
        assert rig.slots.logins == [PIN]
        assert one.pin_remembered

    run(main())


def test_cards_without_a_serial_that_take_turns_keep_their_pins(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        rig = Rig(monkeypatch, serial="0000")
        rig.slots.slot_numbers = {id(rig.one): 1, id(rig.other): 1}
        rig.slots.tokens = [rig.one]
        await rig.look()
        await rig.having(rig.one).log_in(Pin(PIN))
        rig.person.answers = [b"the other PIN"]
        for token in (rig.other, rig.one, rig.other, rig.one):
            rig.slots.tokens = [token]
            with suppress(TokenError):
                await rig.look()
            await rig.look()
            await rig.sign(token)
            assert [one.present for one in rig.module.tokens.values()].count(True) == 1
        assert rig.slots.refused_pins == 0
        assert len(rig.person.requests) == 1

    run(main())
