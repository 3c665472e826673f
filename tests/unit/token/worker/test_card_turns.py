"""What only looks at cards comes after what a client waits for, and not for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from doubles.stand_ins import Slots, StandInToken, StandInWorker, use_slots
from doubles.virtual_time import run_in_no_time

from replug.token.requester import Requester, requester
from replug.token.serving.recovery import attempt
from replug.token.worker.card_turns import CardTurns
from replug.token.worker.client import Deadlines
from replug.token.worker.pool import WorkerPool

OPENING = 22.0  # seconds
SOON = 0.2
SETTLED = 3.2


class Rig:
    """Two modules that use the same cards; what their workers do is noted when it begins."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.token = StandInToken()
        self.slots = Slots(self.token)
        self.slots.uses_pcscd = True
        use_slots(monkeypatch, self.slots)
        cards = CardTurns()
        self.first, self.second = (
            WorkerPool(path, self.slots.fork_server, Deadlines(), cards)
            for path in ("/first.so", "/second.so")
        )
        self.begun: dict[str, float] = {}

    async def use_both(self) -> None:
        """Each was logged in for a client, the second last; then the card was out."""
        for pool in (self.first, self.second):
            await self.begin(pool, "", 0, client=True, logs_in=True)
            pool.restart()
            await asyncio.sleep(SETTLED)

    def begin(
        self, pool: WorkerPool, name: str, seconds: float, *, client: bool, logs_in: bool = False
    ) -> asyncio.Task[None]:
        """Begins what takes so long, for a client or for none."""

        async def operation(worker: StandInWorker) -> None:
            self.begun[name] = now()
            await asyncio.sleep(seconds)
            if logs_in:
                worker.opened.add(self.token.identity)
                worker.ready.add(self.token.identity)

        async def attempted() -> None:
            if client:
                requester.set(Requester(None, 4711))
            await attempt(pool, operation)

        return asyncio.create_task(attempted())


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(monkeypatch)


def test_a_look_waits_while_another_module_opens_a_card_for_a_client(rig: Rig) -> None:
    async def main() -> None:
        await rig.use_both()
        rig.begin(rig.second, "signature", OPENING, client=True, logs_in=True)
        await asyncio.sleep(SOON)
        await rig.begin(rig.first, "look", 0, client=False)
        waited = rig.begun["look"] - rig.begun["signature"]
        # After the opening for as long as it took: so long the look may take, too.
        assert 1.9 * OPENING <= waited <= 2 * OPENING + SETTLED

    run_in_no_time(main())


def test_so_it_does_where_nobody_waits_for_either_and_the_other_was_used_last(rig: Rig) -> None:
    """After an insertion the one that will sign is to be the first."""

    async def main() -> None:
        await rig.use_both()
        began = now()
        looks = [
            rig.begin(rig.second, "its look", OPENING, client=False),
            rig.begin(rig.first, "the other's", 0, client=False),
        ]
        await asyncio.gather(*looks)
        assert rig.begun["its look"] == began
        assert rig.begun["the other's"] >= began + OPENING

    run_in_no_time(main())


def test_it_waits_also_for_those_who_have_waited_for_the_opening(rig: Rig) -> None:
    async def main() -> None:
        await rig.use_both()
        rig.begin(rig.second, "opening", OPENING, client=False)
        await asyncio.sleep(SOON)
        rig.begin(rig.second, "a signature", 1, client=True, logs_in=True)
        rig.begin(rig.second, "another", 1, client=True)
        await rig.begin(rig.first, "look", 0, client=False)
        assert rig.begun["look"] > rig.begun["another"] + 1

    run_in_no_time(main())


def test_it_is_not_kept_by_a_module_that_finds_nothing_to_open(rig: Rig) -> None:
    """The slots of both are scanned all the time; a card that is only for this one may have come."""

    async def main() -> None:
        await rig.use_both()
        began = now()
        rig.begin(rig.second, "a scan of empty slots", 0.05, client=False)
        await rig.begin(rig.first, "look", 0, client=False)
        assert rig.begun["look"] - began <= SOON

    run_in_no_time(main())


def opened_and_used(rig: Rig) -> None:
    rig.begin(rig.second, "opening", 0, client=True, logs_in=True)
    rig.begin(rig.second, "a long signature", OPENING, client=True)


@pytest.mark.parametrize(
    ("hinder", "why"),
    [
        (opened_and_used, "it is open"),
        (lambda rig: rig.begin(rig.first, "other", 0, client=True, logs_in=True), "its module was used last"),
    ],
)
def test_a_look_does_not_wait(rig: Rig, hinder: Callable[[Rig], object], why: str) -> None:
    async def main() -> None:
        await rig.use_both()
        hinder(rig)
        await asyncio.sleep(SETTLED)
        began = now()
        await rig.begin(rig.first, "look", 0, client=False)
        assert rig.begun["look"] == began, why

    run_in_no_time(main())


def test_nor_does_a_module_that_uses_no_cards(rig: Rig) -> None:
    async def main() -> None:
        rig.slots.uses_pcscd = False
        await attempt(rig.first, StandInWorker.scan)
        rig.slots.uses_pcscd = True
        await rig.begin(rig.second, "", 0, client=True, logs_in=True)
        rig.second.restart()
        rig.begin(rig.second, "signature", OPENING, client=True)
        await asyncio.sleep(SOON)
        began = now()
        await rig.begin(rig.first, "look", 0, client=False)
        assert rig.begun["look"] == began

    run_in_no_time(main())


def test_a_client_waits_for_no_look_that_is_held_back(rig: Rig) -> None:
    async def main() -> None:
        await rig.use_both()
        rig.begin(rig.second, "other", OPENING, client=True)
        await asyncio.sleep(SOON)
        rig.begin(rig.first, "look", 0, client=False)
        await asyncio.sleep(SOON)
        asked = now()
        await rig.begin(rig.first, "signature", 0, client=True)
        assert rig.begun["signature"] <= asked + SOON

    run_in_no_time(main())


def test_nor_for_another_module_that_was_asked_after_it(rig: Rig) -> None:
    """Both wait for their answers; that the cards let only one go on at a time is the cards' affair."""

    async def main() -> None:
        await rig.use_both()
        began = now()
        rig.begin(rig.first, "what is under way", 5, client=True)
        await asyncio.sleep(SOON)
        signature = rig.begin(rig.first, "signature", 0, client=True)
        await asyncio.sleep(SOON)
        rig.begin(rig.second, "other", OPENING, client=True)
        await signature
        assert rig.begun["signature"] == pytest.approx(began + 5)

    run_in_no_time(main())


def test_between_requests_that_are_refused_is_no_gap_for_a_look(rig: Rig) -> None:
    """While a card is out, or just back, each request fails at once, and the next comes soon."""

    async def main() -> None:
        await rig.use_both()
        look = None
        for _ in range(10):
            await rig.begin(rig.second, "refused", 0.05, client=True)
            look = look or rig.begin(rig.first, "look", 0, client=False)
            await asyncio.sleep(0.3)
        assert look is not None
        assert "look" not in rig.begun
        await look

    run_in_no_time(main())


def test_a_look_waits_five_minutes_at_most_and_is_no_silence(rig: Rig) -> None:
    async def main() -> None:
        await rig.use_both()
        rig.begin(rig.second, "signature", 1000, client=True)
        await asyncio.sleep(SOON)
        look, began = rig.begin(rig.first, "look", 0, client=False), now()
        await asyncio.sleep(30)
        assert rig.first.last_sign == now()
        await look
        assert 300 <= rig.begun["look"] - began <= 301

    run_in_no_time(main())


def test_but_longer_while_the_other_opens_its_card_again_and_again(rig: Rig) -> None:
    """A card that another program resets, with clients that go on: a look would delay each by an opening."""

    async def main() -> None:
        await rig.use_both()
        look = None
        for _ in range(20):
            signature = rig.begin(rig.second, "signature", OPENING, client=True, logs_in=True)
            await asyncio.sleep(SOON)
            look = look or rig.begin(rig.first, "look", 0, client=False)
            await signature
            await asyncio.sleep(SOON)
            rig.second.restart()
        assert "look" not in rig.begun
        opened = now()
        rig.begin(rig.second, "what fails from now on", 1000, client=True)
        assert look is not None
        await look
        assert 300 <= rig.begun["look"] - opened <= 300 + OPENING + SETTLED

    run_in_no_time(main())


@pytest.mark.parametrize(
    ("opening", "open_here", "waited"),
    [
        (OPENING, False, 60 + OPENING),
        (OPENING, True, OPENING),  # it need not read a card to see what is in the slots
        (2.0, False, SETTLED),  # a look at a card like that delays nobody for long
    ],
)
def test_a_look_that_reads_a_card_waits_until_a_slow_one_is_not_used(
    rig: Rig, opening: float, open_here: bool, waited: float
) -> None:
    async def main() -> None:
        await rig.use_both()
        if open_here:
            await rig.begin(rig.first, "", 0, client=False, logs_in=True)
        signature = rig.begin(rig.second, "signature", opening, client=True, logs_in=True)
        await asyncio.sleep(SOON)
        look = rig.begin(rig.first, "look", 0, client=False)
        await signature
        opened = now()
        for _ in range(60):
            await rig.begin(rig.second, "another", 0, client=True)
            await asyncio.sleep(1)
        await look
        assert rig.begun["look"] - opened == pytest.approx(waited, abs=1.5)

    run_in_no_time(main())
