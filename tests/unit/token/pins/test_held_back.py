"""PIN prompts of programs that decline theirs, and what others notice of that."""

from __future__ import annotations

import asyncio

import pytest
from doubles.stand_ins import PIN, WRONG_PIN, AtOneDesk, Person, run, settle
from doubles.token_bench import Bench

from replug.token.errors import DeclinedError
from replug.token.pins.pin import Pin
from replug.token.prompts.request import Asker, HeldBackError, PinRequest

BOMBER = Asker("ssh (pid 1)", executable=(1, "1"), host=b"host")
USER = Asker("ssh (pid 2)", executable=(1, "1"))


@pytest.fixture
def bombed(asking: Bench) -> Bench:
    """A token whose PIN prompts of BOMBER are held back."""
    asking.served._prompter = AtOneDesk(asking.person, lambda: 1000.0)

    async def main() -> None:
        asking.person.answers = [None, None]
        for _ in range(2):
            with pytest.raises(DeclinedError):
                await sign(asking, BOMBER)

    run(main())
    return asking


async def sign(bench: Bench, asker: Asker) -> bytes:
    return await bench.served.sign(bench.token.keys[0].token_key(), b"data", 0, asker)


def test_prompts_that_are_cancelled_come_ever_more_slowly(bombed: Bench) -> None:
    async def main() -> None:
        for _ in range(25):
            with pytest.raises(HeldBackError, match="the last questions of this program, for the same host"):
                await sign(bombed, BOMBER)
        assert len(bombed.person.requests) == 2
        assert bombed.slots.pins_sent == []

    run(main())


@pytest.mark.parametrize("first", [BOMBER, USER])
def test_another_client_is_asked_at_the_same_moment(bombed: Bench, first: Asker) -> None:
    async def main() -> None:
        second = USER if first is BOMBER else BOMBER
        bombed.person.answers = [PIN]
        signing = {id(asker): asyncio.create_task(sign(bombed, asker)) for asker in (first, second)}
        await settle()
        assert await signing[id(USER)]
        assert len(bombed.person.requests) == 3
        assert bombed.person.requests[-1].asker is USER
        await asyncio.gather(*signing.values(), return_exceptions=True)

    run(main())


class Two(dict[str, Person]):
    """Each program's own terminal, by the program, and somebody at each who answers when told."""

    def __init__(self) -> None:
        super().__init__({BOMBER.program: Person(), USER.program: Person()})
        self.told = {program: asyncio.Event() for program in self}

    async def ask(self, request: PinRequest) -> Pin:
        person = self[request.asker.program]
        person.requests.append(request)
        person.asked.set()
        await self.told[request.asker.program].wait()
        self.told[request.asker.program].clear()
        person.requests.pop()
        return await person.ask(request)

    def answer(self, asker: Asker, pin: bytes | None) -> None:
        self[asker.program].answers.append(pin)
        self.told[asker.program].set()


async def both_asked(bench: Bench) -> tuple[Two, asyncio.Task[bytes], asyncio.Task[bytes]]:
    """Both want the same token, and each has been asked on its own terminal."""
    bench.served._prompter = desks = Two()
    bomber, user = (asyncio.create_task(sign(bench, asker)) for asker in (BOMBER, USER))
    for person in desks.values():
        await asyncio.wait_for(person.asked.wait(), 5)
    return desks, bomber, user


def test_who_declines_decides_for_nobody_else(asking: Bench) -> None:
    async def main() -> None:
        desks, bomber, user = await both_asked(asking)
        desks.answer(BOMBER, None)
        with pytest.raises(DeclinedError):
            await bomber
        desks.answer(USER, PIN)
        assert await user
        assert asking.slots.logins == [PIN]

    run(main())


def test_one_pin_that_logs_in_is_for_all(asking: Bench) -> None:
    async def main() -> None:
        desks, bomber, user = await both_asked(asking)
        desks.answer(USER, PIN)
        assert await asyncio.gather(bomber, user)
        assert asking.slots.logins == [PIN]
        assert len(desks[BOMBER.program].requests) == 1

    run(main())


def test_after_a_wrong_pin_the_others_are_asked_again_and_told(asking: Bench) -> None:
    """Else a PIN would be typed at a question that does not say that it is the last try."""

    async def main() -> None:
        desks, bomber, user = await both_asked(asking)
        desks[USER.program].asked.clear()
        desks.answer(BOMBER, WRONG_PIN)
        await asyncio.wait_for(desks[USER.program].asked.wait(), 5)
        assert len(desks[USER.program].requests) == 2
        desks.answer(USER, PIN)
        # Whoever typed the wrong one is asked again, too; the right one is for both.
        assert await user
        assert await bomber
        assert asking.slots.logins == [WRONG_PIN, PIN]

    run(main())


def test_the_same_wrong_pin_at_two_prompts_is_sent_once(asking: Bench) -> None:
    async def main() -> None:
        desks, bomber, user = await both_asked(asking)
        desks[USER.program].asked.clear()
        for asker in (BOMBER, USER):
            desks.answer(asker, WRONG_PIN)
        await asyncio.wait_for(desks[USER.program].asked.wait(), 5)
        desks.answer(USER, PIN)
        assert await asyncio.gather(bomber, user)
        assert asking.slots.logins == [WRONG_PIN, PIN]

    run(main())


def test_a_prompt_that_another_pin_has_closed_is_not_counted_as_declined(asking: Bench) -> None:
    async def main() -> None:
        slow, quick = Person(), Person(PIN)
        slow.may_answer = asyncio.Event().wait()
        desk = AtOneDesk(slow)
        quick.may_answer = slow.asked.wait()

        class Desks:
            async def ask(self, request: PinRequest) -> Pin:
                return await (desk if request.asker is BOMBER else quick).ask(request)

        asking.served._prompter = Desks()
        assert await asyncio.gather(sign(asking, BOMBER), sign(asking, USER))
        assert len(slow.requests) == 1
        assert desk._restraint._declined == {}

    run(main())
