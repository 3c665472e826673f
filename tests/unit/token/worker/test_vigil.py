"""When a worker counts as hung: by the time since its last sign of life."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from doubles.stand_ins import run

from replug.token.worker.deadlines import Deadlines, Patience
from replug.token.worker.vigil import StoppedProcessError, Vigil

LONG = 600.0
SILENCE = 1.2  # seconds; more than one look at the process
LONGEST = 4.0
BUSY = "import time\nwhile True: time.sleep(0.05)"


@pytest.fixture
def sleeper() -> Iterator[int]:
    """A process that waits for ever for something that does not come."""
    yield from process("import signal; signal.pause()")


@pytest.fixture
def busy() -> Iterator[int]:
    """A process that sleeps and wakes, as one that talks to a card."""
    yield from process(BUSY)


@pytest.fixture
def spinning() -> Iterator[int]:
    """A process that computes for ever."""
    yield from process("while True: pass")


def process(program: str) -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", program]) as started:
        yield started.pid
        started.kill()


async def verdict(pid: int, patience: Patience, signs: int = 0) -> tuple[Exception, float]:
    """Why the process counted as hung, and after how many seconds; it shows a sign of life every second."""
    loop = asyncio.get_running_loop()
    given_up: asyncio.Future[Exception] = loop.create_future()
    begin = loop.time()
    vigil = Vigil(pid, given_up.set_result)
    vigil.begin(patience)
    for _ in range(signs):
        await asyncio.sleep(1)
        vigil.last_sign = asyncio.get_running_loop().time()
    error = await asyncio.wait_for(given_up, 60)
    return error, loop.time() - begin


def test_silence_is_the_end(sleeper: int) -> None:
    error, after = run(verdict(sleeper, Patience(SILENCE, LONG)))
    assert isinstance(error, TimeoutError)
    assert after < LONGEST


def test_time_counts_from_the_last_sign_of_life(sleeper: int) -> None:
    error, after = run(verdict(sleeper, Patience(SILENCE, LONG), signs=3))
    assert isinstance(error, TimeoutError)
    assert after >= 3 + SILENCE


def test_a_process_that_sleeps_and_wakes_is_slow_and_not_for_ever(busy: int) -> None:
    error, after = run(verdict(busy, Patience(SILENCE, LONGEST)))
    assert isinstance(error, TimeoutError)
    assert after >= LONGEST


def test_a_process_that_only_computes_is_hung(spinning: int) -> None:
    error, _ = run(verdict(spinning, Patience(SILENCE, LONG)))
    assert isinstance(error, TimeoutError)


def test_a_stopped_process_is_hung_at_once(sleeper: int) -> None:
    os.kill(sleeper, signal.SIGSTOP)
    error, _ = run(verdict(sleeper, Patience(LONG, LONG)))
    assert isinstance(error, StoppedProcessError)


def test_a_look_that_was_meant_for_an_earlier_request_says_nothing_of_the_next(sleeper: int) -> None:
    """It finds the process stopped a moment after its request, and the next look may come soon, too."""

    async def main() -> None:
        given_up: list[Exception] = []
        vigil = Vigil(sleeper, given_up.append)
        vigil.begin(Patience(0.05, LONG))
        vigil.end()
        os.kill(sleeper, signal.SIGSTOP)
        vigil.begin(Patience(0.1, LONG))
        await asyncio.sleep(0.3)
        assert [type(error) for error in given_up] == [TimeoutError]

    run(main())


def test_an_answer_ends_the_watching(sleeper: int) -> None:
    async def main() -> None:
        given_up: list[Exception] = []
        vigil = Vigil(sleeper, given_up.append)
        vigil.begin(Patience(0.01, 0.01))
        vigil.end()
        await asyncio.sleep(0.1)
        assert given_up == []
        vigil.begin(Patience(LONG, LONG))
        vigil.end()
        vigil.begin(Patience(0.01, 0.01))  # not when the one before would have been looked for
        await asyncio.sleep(0.1)
        assert [type(error) for error in given_up] == [TimeoutError]

    run(main())


def test_the_second_attempt_has_more_time_and_the_user_has_not() -> None:
    once, twice = Deadlines(), Deadlines().doubled
    assert twice.for_operation.silence == 2 * once.for_operation.silence
    assert twice.for_signature.silence == once.for_signature.silence
