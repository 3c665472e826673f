"""The fork server, for real: workers come quickly, end when they are told to, and never outlive the agent."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from doubles.stand_ins import ended, reaped, run
from rigs.agent import descendants
from rigs.softhsm import MODULE

from replug.token.errors import WorkerLostError
from replug.token.worker.client import WorkerClient
from replug.token.worker.deadlines import Deadlines
from replug.token.worker.forking import ForkFailedError, ForkServer

PATIENCE = 15.0


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@asynccontextmanager
async def fork_server(patience: float = PATIENCE) -> AsyncIterator[ForkServer]:
    server = ForkServer(patience)
    try:
        yield server
    finally:
        server.close()
        for pid in descendants(os.getpid()):
            await ended(pid)


async def forked_worker(server: ForkServer) -> WorkerClient:
    return WorkerClient(Deadlines(), await server.fork())


def test_workers_are_forked_of_one_process() -> None:
    async def main() -> None:
        async with fork_server() as server:
            workers = [await forked_worker(server) for _ in range(3)]
            [forker] = {parent(worker.pid) for worker in workers}
            assert parent(forker) == os.getpid()
            for worker in workers:
                assert "SoftHSM" in await worker.load(str(MODULE))

    run(main())


def test_a_worker_that_is_killed_is_gone_and_its_neighbour_is_not() -> None:
    async def main() -> None:
        async with fork_server() as server:
            one, other = [await forked_worker(server) for _ in range(2)]
            one.kill()
            await reaped(one)
            assert not one.alive
            with pytest.raises(WorkerLostError):
                await one.load(str(MODULE))
            assert "SoftHSM" in await other.load(str(MODULE))

    run(main())


def test_a_worker_that_ends_by_itself_is_noticed() -> None:
    async def main() -> None:
        async with fork_server() as server:
            worker = await forked_worker(server)
            os.kill(worker.pid, signal.SIGSEGV)
            await reaped(worker)
            assert not worker.alive

    run(main())


def test_many_workers_leave_no_descriptor_behind() -> None:
    async def main() -> None:
        async with fork_server() as server:
            await reaped_worker(server)
            before = os.listdir("/proc/self/fd")
            for _ in range(10):
                await reaped_worker(server)
            # Fewer, when something of another test is collected meanwhile.
            assert len(os.listdir("/proc/self/fd")) <= len(before)

    async def reaped_worker(server: ForkServer) -> None:
        worker = await forked_worker(server)
        worker.kill()
        await reaped(worker)

    run(main())


@pytest.mark.parametrize(("how", "patience"), [(signal.SIGKILL, PATIENCE), (signal.SIGSTOP, 5.0)])
def test_a_server_that_is_gone_or_does_not_answer_is_replaced(how: signal.Signals, patience: float) -> None:
    async def main() -> None:
        async with fork_server(patience) as server:
            lost = await forked_worker(server)
            before = parent(lost.pid)
            os.kill(before, how)
            if how is signal.SIGKILL:
                await reaped(lost)
            worker = await forked_worker(server)
            assert parent(worker.pid) != before
            assert "SoftHSM" in await worker.load(str(MODULE))
            await reaped(lost)

    run(main())


def test_who_asks_a_server_that_is_gone_at_the_same_time_has_one_new_one() -> None:
    async def main() -> None:
        async with fork_server() as server:
            lost = await forked_worker(server)
            os.kill(parent(lost.pid), signal.SIGKILL)
            await reaped(lost)
            workers = await asyncio.gather(*(forked_worker(server) for _ in range(4)))
            assert len({parent(worker.pid) for worker in workers}) == 1

    run(main())


def test_closing_while_it_forks_leaves_no_process() -> None:
    async def main() -> None:
        async with fork_server() as server:
            forking = asyncio.create_task(server.fork())
            await asyncio.sleep(0)
            server.close()
            with pytest.raises(OSError, match="does not answer"):
                await forking
            with pytest.raises(OSError, match="does not answer"):
                await server.fork()

    run(main())


def test_a_fork_that_fails_says_why_and_costs_no_other_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "import errno, os, sys\n"
        "from replug.token.worker import forkserver\n"
        "fork, forks = os.fork, []\n"
        "def failing():\n"
        "    forks.append(1)\n"
        "    if len(forks) == 2: raise OSError(errno.ENOMEM, 'as in tight times')\n"
        "    return fork()\n"
        "os.fork = failing\n"
        "forkserver.main()\n"
    )
    popen = subprocess.Popen

    def start(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        return popen([sys.executable, "-I", "-c", program, *command[-2:]], **options)

    async def main() -> None:
        async with fork_server() as server:
            worker = await forked_worker(server)
            with pytest.raises(ForkFailedError, match=os.strerror(errno.ENOMEM)):
                await server.fork()
            assert "SoftHSM" in await worker.load(str(MODULE))
            await forked_worker(server)

    monkeypatch.setattr(subprocess, "Popen", start)
    run(main())


def test_closing_ends_all_it_has_forked() -> None:
    async def main() -> None:
        server = ForkServer(PATIENCE)
        workers = [await forked_worker(server) for _ in range(2)]
        forker = parent(workers[0].pid)
        server.close()
        for worker in workers:
            await reaped(worker)
        await ended(forker)

    run(main())


def test_whoever_wanted_a_worker_may_leave() -> None:
    async def main() -> None:
        async with fork_server() as server:
            await forked_worker(server)
            leaving = asyncio.create_task(server.fork())
            await asyncio.sleep(0)
            leaving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaving
            assert "SoftHSM" in await (await forked_worker(server)).load(str(MODULE))

    run(main())


def test_no_process_outlives_an_agent_that_is_killed() -> None:
    program = (
        "import asyncio, os, time\n"
        "from replug.token.worker.forking import ForkServer\n"
        "async def main():\n"
        "    server = ForkServer(15)\n"
        "    forked = await server.fork()\n"
        "    print(forked.pid, flush=True)\n"
        "    time.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-I", "-c", program], stdout=subprocess.PIPE) as agent:
        assert agent.stdout
        try:
            worker = int(agent.stdout.readline())
            processes = descendants(agent.pid)
            assert processes == [parent(worker), worker]
        finally:
            agent.kill()
    for pid in processes:
        run(ended(pid))


def test_the_worker_is_loaded_without_asn1crypto_which_who_wants_it_still_gets() -> None:
    program = (
        "import sys\n"
        "from replug.token.worker.forkserver import load_worker\n"
        "load_worker()\n"
        "assert 'asn1crypto' not in sys.modules and 'pkcs11._pkcs11' in sys.modules\n"
        "from pkcs11.util.ec import encode_named_curve_parameters\n"
        "print(encode_named_curve_parameters('secp256r1').hex())\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "06082a8648ce3d030107\n"
