"""A module's tokens: who is served, who came, who left, and how little is asked to find out."""

from __future__ import annotations

import asyncio
import time

import pytest
from doubles.stand_ins import PIN, Key, Person, Slots, StandInToken, lost, refused, run, use_slots

from replug.token.boottime import boottime
from replug.token.errors import ModuleUnreachableError, TokenAbsentError, Verdict
from replug.token.identity import TokenInfo
from replug.token.modules.module import Module, Pace
from replug.token.names.uri import Uri
from replug.token.pins.pin import Pin, PinCache
from replug.token.pins.policy import PinPolicy
from replug.token.prompts.request import Asker
from replug.token.serving.presence import TokenState
from replug.token.serving.served import ServedToken
from replug.token.worker.card_turns import CardTurns
from replug.token.worker.client import Deadlines


class Rig:
    """A module with two tokens, `work` and `home`, all of which are served."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: str = "/module.so") -> None:
        self.work = StandInToken(Key("work key"))
        self.home = StandInToken(Key("home key"), label="home", serial="2")
        self.slots = Slots(self.work, self.home)
        use_slots(monkeypatch, self.slots)
        self.pins = PinCache(lambda: None)
        self.module = Module(
            path,
            self.pins,
            Person(),
            Deadlines(),
            1,
            lambda _: PinPolicy(),
            lambda: self.changes.append(len(self.module.tokens)),
            self.slots.fork_server,
            CardTurns(),
        )
        self.changes: list[int] = []
        """How many tokens there were at each change."""
        self.module.serve([Uri()])

    def served(self, token: StandInToken) -> ServedToken:
        return self.module.tokens[token.identity]

    async def look(self, *, closely: bool = True, fresh: bool = False) -> list[str]:
        """The labels of the tokens that have come."""
        return [token.identity.label for token in await self.module.look(closely=closely, fresh=fresh)]

    def asked(self) -> list[str]:
        """The operations since this was last called."""
        operations = self.slots.operations
        self.slots.calls.clear()
        return operations


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(monkeypatch)


def test_tokens_are_taken_up_in_the_order_of_their_slots(rig: Rig) -> None:
    async def main() -> None:
        assert await rig.look() == ["work", "home"]
        assert list(rig.module.tokens) == [rig.work.identity, rig.home.identity]
        assert [token.state for token in rig.module.tokens.values()] == [TokenState.PRESENT] * 2
        assert rig.asked() == ["load", "slots", "scan"]

    run(main())


def test_a_token_that_stays_does_not_come_again(rig: Rig) -> None:
    async def main() -> None:
        await rig.look()
        assert await rig.look() == []

    run(main())


def test_a_glance_asks_no_token_as_long_as_the_slots_are_as_they_were(rig: Rig) -> None:
    async def main() -> None:
        await rig.look()
        rig.asked()
        assert await rig.look(closely=False) == []
        assert rig.asked() == ["slots"]
        rig.slots.tokens.remove(rig.home)
        assert await rig.look(closely=False) == []
        assert rig.asked() == ["slots", "scan"]
        assert rig.served(rig.home).state is TokenState.ABSENT

    run(main())


def test_a_glance_misses_no_token_that_a_request_found_first(rig: Rig) -> None:
    """It came, was used and left between two looks, so the slots are as they were at the last one."""

    async def main() -> None:
        await rig.look()
        rig.slots.tokens.remove(rig.work)
        await rig.look()
        await rig.look(closely=False)
        rig.slots.tokens.append(rig.work)
        await rig.served(rig.work).read()
        rig.slots.tokens.remove(rig.work)
        assert rig.served(rig.work).present
        await rig.look(closely=False)
        assert rig.served(rig.work).state is TokenState.ABSENT

    run(main())


def test_a_glance_of_another_worker_knows_nothing_yet(rig: Rig) -> None:
    """What the last one saw in its slots may be in others now."""

    async def main() -> None:
        await rig.look()
        rig.slots.workers[0].kill()
        rig.asked()
        await rig.look(closely=False)
        assert rig.asked() == ["load", "slots", "scan"]

    run(main())


def test_leaving_and_returning(rig: Rig) -> None:
    async def main() -> None:
        await rig.look()
        await rig.served(rig.work).log_in(Pin(PIN))
        rig.slots.tokens.remove(rig.work)
        assert await rig.look() == []
        assert rig.served(rig.work).state is TokenState.ABSENT
        assert rig.served(rig.home).present
        # The session there was dead, and would stay so.
        assert rig.slots.alive == []
        rig.slots.tokens.append(rig.work)
        assert await rig.look() == ["work"]
        assert rig.served(rig.work).state is TokenState.PRESENT
        assert rig.pins.get(rig.served(rig.work).pin_owner) is not None

    run(main())


def test_a_token_is_missed_for_two_minutes(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        await rig.module.look()
        assert rig.module.pace is Pace.USUAL
        left = rig.slots.tokens.pop(0)
        await rig.module.look()
        assert rig.module.pace is Pace.QUICK
        now, since_boot = time.time(), boottime()
        with monkeypatch.context() as set_back:
            set_back.setattr(time, "time", lambda: now - 3600)
            set_back.setattr("replug.token.modules.served_tokens.boottime", lambda: since_boot + 121)
            assert rig.module.pace is Pace.USUAL
        rig.slots.tokens.append(left)
        await rig.module.look()
        assert rig.module.pace is Pace.USUAL

    run(main())


def test_looking_afresh_has_a_new_worker(rig: Rig) -> None:
    async def main() -> None:
        await rig.look()
        await rig.look(fresh=True)
        assert rig.slots.alive == [1]

    run(main())


def test_a_module_that_cannot_be_asked_cuts_off_its_tokens_until_it_can(rig: Rig) -> None:
    async def main() -> None:
        await rig.look()
        rig.slots.fail_next("scan", lost(), lost())
        with pytest.raises(ModuleUnreachableError):
            await rig.look()
        assert [token.state for token in rig.module.tokens.values()] == [TokenState.UNREACHABLE] * 2
        assert rig.served(rig.work).reason == "module /module.so failed twice: the worker process ended"
        # The slots are as they were, and yet all has to be looked at.
        assert await rig.look(closely=False) == ["work", "home"]
        assert [token.state for token in rig.module.tokens.values()] == [TokenState.PRESENT] * 2

    run(main())


def test_only_chosen_tokens_are_served(rig: Rig) -> None:
    async def main() -> None:
        rig.module.serve([Uri(token="home"), Uri(token="absent")])
        assert await rig.look() == ["home"]
        assert list(rig.module.tokens) == [rig.home.identity]

    run(main())


def test_a_token_that_is_no_longer_chosen_is_closed(rig: Rig) -> None:
    async def main() -> None:
        await rig.look()
        pin = Pin(PIN)
        await rig.served(rig.work).log_in(pin)
        rig.module.serve([Uri(token="home")])
        assert list(rig.module.tokens) == [rig.home.identity]
        assert pin.value == b""
        assert await rig.look() == []

    run(main())


def test_a_module_that_serves_nobody_has_no_process(rig: Rig) -> None:
    async def main() -> None:
        await rig.look()
        rig.module.serve([])
        assert rig.module.tokens == {}
        assert [process.alive for process in rig.slots.processes] == [False] * len(rig.slots.processes)

    run(main())


def test_all_its_tokens_share_one_worker_and_keep_their_logins_apart(rig: Rig) -> None:
    async def main() -> None:
        rig.home.pin = b"home pin"
        await rig.look()
        await rig.served(rig.work).log_in(Pin(PIN))
        await rig.served(rig.home).log_in(Pin(b"home pin"))
        for _ in range(2):
            for token in (rig.work, rig.home):
                [key] = token.keys
                await rig.served(token).sign(key.token_key(), b"data", 0, Asker("ssh"))
        assert len(rig.slots.alive) == 1
        assert rig.slots.logins == [PIN, b"home pin"]
        # A PIN of a request has to be compared with the token's: not by a worker that is logged in.
        await rig.served(rig.work).log_in(Pin(PIN))
        assert rig.slots.logins == [PIN, b"home pin", PIN]
        assert len(rig.slots.workers) == 2

    run(main())


def test_a_token_that_is_out_does_not_cost_another_its_login(rig: Rig) -> None:
    async def main() -> None:
        await rig.look()
        await rig.served(rig.work).log_in(Pin(PIN))
        rig.slots.tokens.remove(rig.home)
        with pytest.raises(TokenAbsentError):
            await rig.served(rig.home).read()
        [key] = rig.work.keys
        await rig.served(rig.work).sign(key.token_key(), b"data", 0, Asker("ssh"))
        assert rig.slots.logins == [PIN]
        assert rig.served(rig.home).state is TokenState.ABSENT

    run(main())


def test_a_token_with_an_open_session_that_is_out_is_looked_for_by_a_fresh_worker(rig: Rig) -> None:
    """Its session is dead, and for the running worker it may stay so for ever."""

    async def main() -> None:
        await rig.look()
        await rig.served(rig.work).log_in(Pin(PIN))
        await rig.served(rig.home).read()
        worker = rig.slots.alive
        rig.slots.fail_next("open", refused(Verdict.TOKEN_ABSENT))
        await rig.served(rig.home).read()
        assert rig.slots.alive != worker

    run(main())


# Who is there, by whatever witness.


def test_listing_without_a_token_that_is_out_is_a_reason_to_look_closely(rig: Rig) -> None:
    """Two cards may have changed places since, which the list of slots does not show."""

    async def main() -> None:
        rig.slots.tokens = [rig.home]
        rig.module.serve([Uri()])
        await rig.look()
        rig.slots.tokens = [rig.work]
        await rig.look()
        await rig.look()  # by a fresh worker
        rig.module._close_look = float("inf")  # one has just been made
        rig.asked()
        await rig.look(closely=False)
        assert rig.asked() == ["slots"]
        rig.module.listed()
        await rig.look(closely=False)
        assert rig.asked() == ["slots", "scan"]
        await rig.look(closely=False)
        assert rig.asked() == ["slots"]

    run(main())


def test_listing_when_all_tokens_are_there_is_none(rig: Rig) -> None:
    async def main() -> None:
        await rig.look()
        rig.asked()
        rig.module.listed()
        await rig.look(closely=False)
        assert rig.asked() == ["slots"]

    run(main())


def test_while_a_token_is_missed_looks_are_close_once_a_second(rig: Rig) -> None:
    async def main() -> None:
        await rig.look()
        rig.slots.tokens.remove(rig.home)
        await rig.look()
        await rig.look()  # by a fresh worker
        rig.asked()
        await rig.look(closely=False)
        assert rig.asked() == ["slots"]
        rig.module._close_look -= 1
        await rig.look(closely=False)
        assert rig.asked() == ["slots", "scan"]

    run(main())


def test_tokens_that_cannot_be_removed_are_looked_at_seldom_while_all_are_there(rig: Rig) -> None:
    async def main() -> None:
        assert rig.module.pace is Pace.USUAL  # nobody knows yet
        rig.slots.removable = False
        await rig.look()
        assert rig.module.pace is Pace.SELDOM
        rig.slots.tokens.remove(rig.home)
        await rig.look()
        assert rig.module.pace is Pace.QUICK
        rig.slots.tokens.append(rig.home)
        await rig.look()
        assert rig.module.pace is Pace.SELDOM
        rig.slots.fail_next("scan", lost(), lost())
        with pytest.raises(ModuleUnreachableError):
            await rig.look()
        assert rig.module.pace is not Pace.SELDOM

    run(main())


def test_tokens_that_can_be_removed_are_looked_at_as_usual(rig: Rig) -> None:
    async def main() -> None:
        await rig.look()
        assert rig.module.pace is Pace.USUAL

    run(main())


@pytest.mark.parametrize("again", [False, True])
def test_a_card_that_leaves_its_reader_ends_the_sessions(rig: Rig, again: bool) -> None:
    async def main() -> None:
        await rig.look()
        await rig.served(rig.work).log_in(Pin(PIN))
        rig.module.cards_changed({"some other reader": False}, arrived=False)
        assert len(rig.slots.alive) == 1
        rig.module.cards_changed({rig.slots.reader_of(rig.work): again}, arrived=again)
        assert rig.slots.alive == []
        # Who is in the reader now is found out by the next look.
        assert rig.served(rig.work).present == again
        assert rig.served(rig.home).present
        rig.asked()
        await rig.look(closely=False)
        assert rig.asked() == ["load", "slots", "scan"]

    run(main())


def test_a_token_that_is_out_is_expected_when_a_card_arrives_until_one_is_read(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        rig.slots.uses_pcscd = True
        await rig.look()
        rig.module.cards_changed({}, arrived=True)
        assert not rig.module.expects_a_token  # none is missed
        rig.slots.tokens.remove(rig.work)
        await rig.look()
        rig.module.cards_changed({}, arrived=False)
        assert not rig.module.expects_a_token
        rig.module.cards_changed({}, arrived=True)
        await rig.look()
        assert rig.module.expects_a_token  # the module does not see it yet
        rig.slots.tokens.append(rig.work)
        await rig.look()
        assert not rig.module.expects_a_token

        rig.slots.tokens.remove(rig.work)
        await rig.look()
        rig.module.cards_changed({}, arrived=True)
        assert rig.module.expects_a_token
        monkeypatch.setattr("replug.token.modules.module._READ_WITHIN", 0.0)
        assert not rig.module.expects_a_token

    run(main())


def test_a_card_that_comes_and_goes_and_is_never_read_is_waited_for_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        rig.slots.uses_pcscd = True
        await rig.look()
        rig.slots.tokens.remove(rig.work)
        await rig.look()
        loop, now = asyncio.get_running_loop(), 1000.0
        monkeypatch.setattr(loop, "time", lambda: now)
        expected = []
        for pause in (0.0, 1.0, 1.0, 1.0, 1.9, 2.1):
            now += pause
            rig.module.cards_changed({}, arrived=True)
            expected.append(rig.module.expects_a_token)
        assert expected == [True, True, False, False, False, True]

    run(main())


def test_a_card_that_arrives_while_a_token_is_out_is_looked_at_by_a_fresh_worker(rig: Rig) -> None:
    """A module that could not reach a card at its first attempt may not try again."""

    async def main() -> None:
        rig.slots.uses_pcscd = True
        await rig.look()
        rig.module.cards_changed({}, arrived=True)
        assert len(rig.slots.alive) == 1
        rig.slots.tokens.remove(rig.home)
        await rig.look()
        await rig.look()
        before = rig.slots.alive
        # Not while a card leaves: at its end the old process resets the card, which pcscd may be exchanging.
        rig.module.cards_changed({}, arrived=False)
        assert rig.slots.alive == before
        rig.module.cards_changed({}, arrived=True)
        assert rig.slots.alive == []
        # But no login of another token is lost for that.
        await rig.look()
        await rig.served(rig.work).log_in(Pin(PIN))
        rig.module.cards_changed({}, arrived=True)
        assert len(rig.slots.alive) == 1
        assert rig.slots.alive != before

    run(main())


@pytest.mark.parametrize(
    ("left", "graces"), [("work", [0.4]), ("home", [])], ids=["its own card", "another card"]
)
def test_a_card_that_leaves_during_its_signature_ends_it(rig: Rig, left: str, graces: list[float]) -> None:
    async def main() -> None:
        await rig.look()
        await rig.served(rig.work).log_in(Pin(PIN))
        gate = rig.slots.hold_next("sign")
        [key] = rig.work.keys
        served = rig.served(rig.work)
        signing = asyncio.create_task(served.sign(key.token_key(), b"data", 0, Asker("ssh")))
        await gate.entered.wait()
        worker = rig.slots.workers[-1]
        worker.asked, worker.token_in_use = True, rig.work.identity.fields
        rig.module.cards_changed({rig.slots.reader_of(getattr(rig, left)): False}, arrived=False)
        assert worker.removals == graces
        gate.opened.set()
        await signing

    run(main())


def test_a_card_that_leaves_may_end_a_scan_a_little_later(rig: Rig) -> None:
    async def main() -> None:
        await rig.look()
        gate = rig.slots.hold_next("scan")
        looking = asyncio.create_task(rig.look())
        await gate.entered.wait()
        [worker] = rig.slots.workers
        worker.asked = True
        rig.module.cards_changed({rig.slots.reader_of(rig.work): False}, arrived=False)
        assert worker.removals == [1.0]
        gate.opened.set()
        await looking

    run(main())


def test_a_scan_that_began_before_a_card_left_does_not_bring_it_back(rig: Rig) -> None:
    async def main() -> None:
        await rig.look()
        [worker] = rig.slots.workers
        scan = worker.scan
        pulled = False

        async def slow_scan() -> list[TokenInfo]:
            nonlocal pulled
            infos = await scan()
            if not pulled:
                pulled = True
                reader = rig.slots.reader_of(rig.work)
                rig.slots.tokens.remove(rig.work)
                rig.module.cards_changed({reader: False}, arrived=False)
            return infos

        worker.scan = slow_scan  # type: ignore[method-assign]
        await rig.look()
        assert not rig.served(rig.work).present
        assert rig.served(rig.home).present

    run(main())


def test_what_another_module_sees_leave_ends_what_is_under_way_unless_pcscd_knows_better(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main(uses_pcscd: bool) -> None:
        rig = Rig(monkeypatch)
        rig.slots.uses_pcscd = uses_pcscd
        await rig.look()
        await rig.served(rig.work).log_in(Pin(PIN))
        stranger = Rig(monkeypatch, "/other.so")
        await stranger.look()
        await stranger.served(stranger.work).log_in(Pin(PIN))
        same = Rig(monkeypatch, "/other.so")
        same.work.keys = rig.work.keys
        await same.look()
        await same.served(same.work).log_in(Pin(PIN))
        alive = rig.slots.alive
        rig.module.tokens_left_elsewhere([stranger.served(stranger.work)])
        assert rig.slots.alive == alive
        rig.module.tokens_left_elsewhere([same.served(same.work)])
        assert rig.slots.alive == (alive if uses_pcscd else [])

    run(main(uses_pcscd=False))
    run(main(uses_pcscd=True))


@pytest.mark.parametrize(
    ("uses_pcscd", "removable", "ended"),
    [
        (False, True, True),
        (True, True, False),
        (False, False, False),
    ],
)
def test_when_no_usb_device_is_left_sessions_on_removable_tokens_end(
    monkeypatch: pytest.MonkeyPatch, uses_pcscd: bool, removable: bool, ended: bool
) -> None:
    async def main() -> None:
        rig = Rig(monkeypatch)
        rig.slots.uses_pcscd, rig.slots.removable = uses_pcscd, removable
        await rig.look()
        rig.module.readers_unplugged()
        assert (rig.slots.alive == []) == ended

    run(main())


def test_a_module_that_shows_other_tokens_at_each_look_is_bounded(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each token costs at every later change, and a change costs all of them."""

    async def main() -> None:
        await rig.look()
        for number in range(5):
            rig.slots.tokens[2:] = [
                StandInToken(Key("key"), serial=f"{number}.{other}") for other in range(40)
            ]
            rig.changes.clear()
            await rig.look()
            assert len(rig.changes) <= 1
        assert len(rig.module.tokens) == 128
        assert rig.served(rig.work).present
        # Those that left a while ago make room.
        monkeypatch.setattr("replug.token.modules.served_tokens.boottime", lambda: boottime() + 1000)
        rig.slots.tokens[2:] = [StandInToken(Key("key"), serial="new")]
        assert await rig.look() == ["work"]
        assert len(rig.module.tokens) == 128

    run(main())


def test_others_have_their_turn_while_a_hundred_new_tokens_are_taken_in(rig: Rig) -> None:
    async def main() -> None:
        await rig.look()
        rig.slots.tokens += [StandInToken(Key("key"), serial=f"new {number}") for number in range(100)]
        looking, turns = asyncio.create_task(rig.look()), 0
        while not looking.done():
            turns += 1
            await asyncio.sleep(0)
        assert len(await looking) == 100
        assert turns > 100

    run(main())
