"""An answer is made once for all who wait when it is begun, and is never older than the question."""

from __future__ import annotations

import asyncio
import json

from doubles.stand_ins import run

from replug.agent.control.shared_answer import SharedAnswer


def test_those_who_ask_meanwhile_get_the_next_one_together() -> None:
    async def main() -> None:
        begun, has_begun, may_end = 0, asyncio.Event(), asyncio.Event()

        async def make() -> dict[str, int]:
            nonlocal begun
            begun += 1
            number = begun
            has_begun.set()
            await may_end.wait()
            return {"number": number}

        shared = SharedAnswer(make)
        first = [asyncio.create_task(shared.get()) for _ in range(100)]
        await has_begun.wait()
        second = [asyncio.create_task(shared.get()) for _ in range(100)]
        await asyncio.sleep(0)
        assert begun == 1
        may_end.set()
        answers = [json.loads(await one)["number"] for one in (*first, *second)]
        assert answers == [1] * 100 + [2] * 100

    run(main())


def test_what_fails_fails_for_those_who_waited_only() -> None:
    async def main() -> None:
        outcomes = [ValueError("no"), None]

        def make() -> dict[str, int]:
            error = outcomes.pop(0)
            if error is not None:
                raise error
            return {"answer": 1}

        shared = SharedAnswer(make)
        failed = await asyncio.gather(shared.get(), shared.get(), return_exceptions=True)
        assert [str(error) for error in failed] == ["no", "no"]
        assert json.loads(await shared.get()) == {"answer": 1}

    run(main())


def test_who_leaves_takes_it_from_nobody() -> None:
    async def main() -> None:
        may_end = asyncio.Event()

        async def make() -> dict[str, int]:
            await may_end.wait()
            return {"answer": 1}

        shared = SharedAnswer(make)
        leaving, staying = asyncio.create_task(shared.get()), asyncio.create_task(shared.get())
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait([leaving])
        may_end.set()
        assert json.loads(await staying) == {"answer": 1}

    run(main())
