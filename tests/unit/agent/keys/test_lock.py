"""ssh-add -x and -X: what locks, what unlocks, and what a wrong passphrase costs."""

from __future__ import annotations

import asyncio
import threading

import pytest
from doubles.stand_ins import run, settle

from replug.agent.keys import lock as lock_module
from replug.agent.keys.lock import Lock
from replug.agent.keys.refusal import RequestRefusedError
from replug.token import seal


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cost of a derivation is not what is tested here."""
    monkeypatch.setattr(seal, "_SCRYPT_COST", 2)


def new_lock() -> Lock:
    """A lock with nothing to put away."""
    return Lock(seal.Seal(), lambda: None, lambda: None)


class Delays(list[float]):
    """Takes the place of `asyncio.sleep`: notes the delays, and ends them when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self._sleep = asyncio.sleep
        self.over = asyncio.Event()
        self.over.set()
        self.begun = asyncio.Event()
        monkeypatch.setattr(asyncio, "sleep", self._note)

    async def _note(self, seconds: float) -> None:
        if seconds == 0:
            await self._sleep(0)
            return
        self.append(seconds)
        self.begun.set()
        await self.over.wait()


@pytest.fixture
def delays(monkeypatch: pytest.MonkeyPatch) -> Delays:
    return Delays(monkeypatch)


async def refusal(request: object) -> str:
    with pytest.raises(RequestRefusedError) as caught:
        await request  # type: ignore[misc]
    return caught.value.reason


def test_locking_and_unlocking() -> None:
    async def main() -> None:
        lock = new_lock()
        assert not lock.locked
        for passphrase in (b"secret", b"\xff\x01", b"x" * 10_000):
            await lock.lock(passphrase)
            assert lock.locked
            await lock.unlock(1, passphrase)
            assert not lock.locked

    run(main())


def test_requests_in_the_wrong_order(delays: Delays) -> None:
    async def main() -> None:
        lock = new_lock()
        assert await refusal(lock.unlock(1, b"secret")) == "unlock: not locked"
        assert await refusal(lock.lock(b"")) == "lock: the passphrase is empty"
        assert not lock.locked
        await lock.lock(b"secret")
        assert await refusal(lock.lock(b"secret")) == "lock: already locked"
        assert await refusal(lock.lock(b"other")) == "lock: already locked"
        assert delays == []
        # None of it changed the passphrase.
        await lock.unlock(1, b"secret")
        assert await refusal(lock.unlock(1, b"secret")) == "unlock: not locked"

    run(main())


@pytest.mark.parametrize("wrong", [b"", b"Secret", b"secret ", b"secre", b"\0"])
def test_a_wrong_passphrase_keeps_it_locked(wrong: bytes, delays: Delays) -> None:
    async def main() -> None:
        lock = new_lock()
        await lock.lock(b"secret")
        assert await refusal(lock.unlock(1, wrong)) == "unlock: wrong passphrase"
        assert lock.locked
        await lock.unlock(1, b"secret")

    run(main())


def test_every_failure_makes_the_next_answer_slower_up_to_ten_seconds(delays: Delays) -> None:
    async def main() -> None:
        lock = new_lock()
        await lock.lock(b"secret")
        for _ in range(102):
            await refusal(lock.unlock(1, b"wrong"))
        assert delays[:3] == pytest.approx([0.1, 0.2, 0.3])
        assert delays[98:] == pytest.approx([9.9, 10.0, 10.0, 10.0])

    run(main())


def test_success_makes_answers_fast_again(delays: Delays) -> None:
    async def main() -> None:
        lock = new_lock()
        await lock.lock(b"secret")
        for _ in range(3):
            await refusal(lock.unlock(1, b"wrong"))
        await lock.unlock(1, b"secret")
        await lock.lock(b"secret")
        await refusal(lock.unlock(1, b"wrong"))
        assert delays == pytest.approx([0.1, 0.2, 0.3, 0.1])

    run(main())


def test_a_wrong_passphrase_delays_nobody_who_knows_the_right_one(delays: Delays) -> None:
    async def main() -> None:
        lock = new_lock()
        await lock.lock(b"secret")
        delays.over.clear()
        wrong = asyncio.create_task(refusal(lock.unlock(1, b"wrong")))
        await delays.begun.wait()
        await lock.unlock(1, b"secret")
        assert not lock.locked
        assert not wrong.done()
        delays.over.set()
        assert await wrong == "unlock: wrong passphrase"

    run(main())


def test_who_hangs_up_does_not_shorten_the_delay(delays: Delays, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else to connect anew would be a way around the limit of attempts at once."""

    async def main() -> None:
        monkeypatch.setattr(lock_module, "_MOST_ATTEMPTS", 1)
        lock = new_lock()
        await lock.lock(b"secret")
        delays.over.clear()
        wrong = asyncio.create_task(lock.unlock(1, b"wrong"))
        await delays.begun.wait()
        wrong.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wrong
        assert await refusal(lock.unlock(1, b"secret")) == "unlock: too many attempts at once"
        delays.over.set()
        await settle()
        await lock.unlock(1, b"secret")

    run(main())


def test_there_may_be_only_so_many_attempts_at_once(delays: Delays) -> None:
    async def main() -> None:
        lock = new_lock()
        await lock.lock(b"secret")
        delays.over.clear()
        most = lock_module._MOST_ATTEMPTS
        waiting = [asyncio.create_task(refusal(lock.unlock(1, b"wrong"))) for _ in range(most)]
        await delays.begun.wait()
        assert await refusal(lock.unlock(1, b"secret")) == "unlock: too many attempts at once"
        delays.over.set()
        assert await asyncio.gather(*waiting) == ["unlock: wrong passphrase"] * most
        await lock.unlock(1, b"secret")

    run(main())


def test_of_two_who_lock_at_once_one_wins() -> None:
    async def main() -> None:
        lock = new_lock()
        results = await asyncio.gather(lock.lock(b"one"), lock.lock(b"two"), return_exceptions=True)
        [winner] = [
            passphrase for passphrase, result in zip((b"one", b"two"), results, strict=True) if not result
        ]
        [loser] = [result for result in results if result]
        assert isinstance(loser, RequestRefusedError)
        await lock.unlock(1, winner)

    run(main())


def test_the_loop_runs_on_while_a_key_is_derived(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        loop, asked, may_answer = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

        def derive(_passphrase: bytearray, _salt: bytes) -> bytearray:
            loop.call_soon_threadsafe(asked.set)
            return asyncio.run_coroutine_threadsafe(waited(), loop).result(10)

        async def waited() -> bytearray:
            await may_answer.wait()
            return bytearray(seal.KEY_SIZE)

        monkeypatch.setattr(lock_module, "derive_key", derive)
        lock = new_lock()
        locking = asyncio.create_task(lock.lock(b"secret"))
        await asked.wait()
        may_answer.set()
        await locking
        await settle()

    run(main())


def test_a_guess_of_a_client_that_is_gone_is_not_tried(
    delays: Delays, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a crowd of processes that end at once would keep the agent busy after them."""
    tried, begun, may_go_on = list[bytes](), threading.Semaphore(0), threading.Event()

    def derive(passphrase: bytearray, _salt: bytes) -> bytearray:
        tried.append(bytes(passphrase))
        begun.release()
        may_go_on.wait(10)
        return bytearray(seal.KEY_SIZE)

    async def main() -> None:
        lock = new_lock()
        await lock.lock(b"secret")
        monkeypatch.setattr(lock_module, "derive_key", derive)
        guesses = [bytearray(b"guess %d" % number) for number in range(lock_module._MOST_AT_ONCE + 1)]
        asked = [asyncio.create_task(lock.unlock(number, one)) for number, one in enumerate(guesses)]
        for _ in range(lock_module._MOST_AT_ONCE):
            await asyncio.to_thread(begun.acquire)
        for one in asked:
            one.cancel()
        await asyncio.wait(asked)
        may_go_on.set()
        assert await refusal(lock.unlock(50, b"last")) == "unlock: wrong passphrase"
        assert sorted(tried) == [b"guess 0", b"guess 1", b"last"]
        assert not any(map(any, guesses))
        monkeypatch.setattr(lock_module, "derive_key", seal.derive_key)
        await lock.unlock(1, b"secret")

    run(main())


def test_nothing_kept_tells_the_passphrase() -> None:
    async def main() -> None:
        lock = new_lock()
        await lock.lock(b"secret")
        assert b"secret" not in repr(vars(lock)).encode()
        first = dict(vars(lock))
        await lock.unlock(1, b"secret")
        await lock.lock(b"secret")
        # The same passphrase does not look the same the second time.
        assert vars(lock) != first

    run(main())
