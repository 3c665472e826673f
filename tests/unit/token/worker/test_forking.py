"""The fork server, for real: workers come quickly, end when they are told to, and never outlive the agent."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from doubles.fork_servers import FORK_SERVER, RunningForkServer, running_fork_server
from doubles.stand_ins import ended, has_been_reaped, reaped, run
from rigs.agent import descendants
from rigs.home import Home
from rigs.softhsm import MODULE
from rigs.terminal import eventually

from replug.token.errors import WorkerLostError, WorkerRefusedError
from replug.token.worker.client import WorkerClient
from replug.token.worker.deadlines import Deadlines, Patience
from replug.token.worker.forking import ForkServer
from replug.token.worker.frames import Request
from replug.token.worker.vigil import is_stopped

PATIENCE = 15.0
READABLE = FORK_SERVER.replace("\nrefuse_tracing()", "")
"""One whose descriptors a user may list who is not root."""
PROGRAM = "replug.token.worker.inside.program"


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.fixture(autouse=True)
def softhsm(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The machine's own configuration of SoftHSM is root's."""
    home = Home()
    monkeypatch.setenv("SOFTHSM2_CONF", home.env["SOFTHSM2_CONF"])
    yield
    home.remove()


@pytest.fixture
def server() -> Iterator[RunningForkServer]:
    with running_fork_server() as server:
        yield server


async def forked_worker(server: ForkServer) -> WorkerClient:
    return WorkerClient(Deadlines(), await server.fork(PROGRAM, PATIENCE))


def test_workers_are_forked_of_one_process(server: RunningForkServer) -> None:
    async def main() -> None:
        workers = [await forked_worker(server) for _ in range(3)]
        assert {parent(worker.pid) for worker in workers} == {server.process.pid}
        for worker in workers:
            assert "SoftHSM" in await worker.load(str(MODULE))

    run(main())


def test_a_worker_that_is_killed_is_gone_and_its_neighbour_is_not(server: RunningForkServer) -> None:
    async def main() -> None:
        one, other = [await forked_worker(server) for _ in range(2)]
        one.kill()
        await reaped(one)
        assert not one.alive
        with pytest.raises(WorkerLostError):
            await one.load(str(MODULE))
        assert "SoftHSM" in await other.load(str(MODULE))

    run(main())


def test_a_worker_that_ends_by_itself_is_noticed(server: RunningForkServer) -> None:
    async def main() -> None:
        worker = await forked_worker(server)
        os.kill(worker.pid, signal.SIGSEGV)
        await reaped(worker)
        assert not worker.alive

    run(main())


def test_a_spare_is_forked_for_the_next_time_and_used_once(server: RunningForkServer) -> None:
    async def main() -> None:
        first = await server.fork_or_spare(PROGRAM, PATIENCE)
        spare = await server.spare(PROGRAM)
        assert spare != first.pid
        one, other = [
            WorkerClient(Deadlines(), await server.fork_or_spare(PROGRAM, PATIENCE)) for _ in range(2)
        ]
        assert one.pid == spare != other.pid
        for worker in (one, other):
            assert "SoftHSM" in await worker.load(str(MODULE))
        unused = await server.spare(PROGRAM)
        server.close()
        await ended(unused)

    run(main())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_spare_that_another_program_has_ended_or_stopped_is_not_used(
    number: signal.Signals, server: RunningForkServer
) -> None:
    async def main() -> None:
        await server.fork_or_spare(PROGRAM, PATIENCE)
        spare = await server.spare(PROGRAM)
        os.kill(spare, number)
        eventually(lambda: is_stopped(spare) or has_been_reaped(spare), "it is stopped or has ended")
        worker = WorkerClient(Deadlines(), await server.fork_or_spare(PROGRAM, PATIENCE))
        assert worker.pid != spare
        assert "SoftHSM" in await worker.load(str(MODULE))
        await ended(spare)

    run(main())


def test_many_workers_leave_no_descriptor_behind() -> None:
    async def main(server: RunningForkServer) -> None:
        await reaped_worker(server)
        before = os.listdir("/proc/self/fd")
        servers = os.listdir(f"/proc/{server.process.pid}/fd")
        for _ in range(10):
            await reaped_worker(server)
        # Fewer, when something of another test is collected meanwhile.
        assert len(os.listdir("/proc/self/fd")) <= len(before)
        assert os.listdir(f"/proc/{server.process.pid}/fd") == servers

    async def reaped_worker(server: RunningForkServer) -> None:
        worker = await forked_worker(server)
        worker.kill()
        await reaped(worker)

    with running_fork_server(READABLE) as server:
        run(main(server))


def test_a_worker_has_its_own_connection_and_nothing_else() -> None:
    """Not those of its neighbours, not the one to the server, which would keep that alive, and nothing that
    the server has open for itself."""

    async def main(server: ForkServer) -> None:
        await forked_worker(server)
        worker = await forked_worker(server)
        with pytest.raises(WorkerRefusedError):
            await worker.slots()  # no module is loaded; but its start is over
        folder = f"/proc/{worker.pid}/fd"
        links = [os.readlink(f"{folder}/{fd}") for fd in os.listdir(folder)]
        null = [link for link in links if link == os.devnull]
        sockets = [link for link in links if link.startswith("socket:")]
        assert (len(null), len(sockets)) == (2, 1)
        assert len(links) == 4  # and standard error
        assert os.readlink(f"/proc/{worker.pid}/cwd") == os.getcwd()  # the agent's

    with running_fork_server("import os\nos.pidfd_open(os.getppid())\n" + READABLE) as server:
        run(main(server))


def test_a_lowered_limit_leaves_a_worker_nothing_either() -> None:
    """Any process of the user may set it; what the server has open above it is not to reach a module."""
    high = "import os\nos.dup2(os.pidfd_open(os.getppid()), 50)\n"

    async def main(server: RunningForkServer) -> None:
        await forked_worker(server)
        _, hard = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (20, hard))
        worker = await forked_worker(server)
        with pytest.raises(WorkerRefusedError):
            await worker.slots()
        folder = f"/proc/{worker.pid}/fd"
        links = [os.readlink(f"{folder}/{fd}") for fd in os.listdir(folder)]
        assert [link for link in links if "pidfd" in link] == []
        assert len(links) == 4

    with running_fork_server(high + READABLE) as server:
        run(main(server))


def test_ctrl_c_is_not_meant_for_a_worker(server: RunningForkServer) -> None:
    async def main() -> None:
        worker = await forked_worker(server)
        os.kill(worker.pid, signal.SIGINT)
        assert "SoftHSM" in await worker.load(str(MODULE))

    run(main())


def test_a_worker_is_not_dumpable_and_leaves_no_core() -> None:
    """Asked of the worker itself: from outside, root sees no difference."""
    report = (
        "import ctypes, resource\n"
        "from replug.token.worker.inside import program\n"
        "def protection(self, header, body):\n"
        "    core = resource.getrlimit(resource.RLIMIT_CORE)\n"
        "    return {'dumpable': ctypes.CDLL(None).prctl(3), 'core': core}, b''\n"
        "program.Operations.protection = protection\n"
    )

    async def main(server: ForkServer) -> None:
        worker = await forked_worker(server)
        patience = Patience(PATIENCE, PATIENCE)
        reply = await worker.ask(Request("protection", {}), patience, lambda reply, _: reply)
        assert reply == {"dumpable": 0, "core": [0, 0]}

    with running_fork_server(report + FORK_SERVER) as server:
        run(main(server))


def test_a_server_that_is_gone(server: RunningForkServer) -> None:
    async def main() -> None:
        lost = await forked_worker(server)
        os.kill(server.process.pid, signal.SIGKILL)
        await reaped(lost)
        with pytest.raises(OSError):  # noqa: PT011 - EPIPE or ECONNRESET
            await forked_worker(server)

    run(main())


def test_a_server_that_does_not_answer(server: RunningForkServer) -> None:
    async def main() -> None:
        os.kill(server.process.pid, signal.SIGSTOP)
        with pytest.raises(OSError, match="the process that forks workers does not answer"):
            await server.fork(PROGRAM, 0.1)
        os.kill(server.process.pid, signal.SIGCONT)
        assert "SoftHSM" in await (await forked_worker(server)).load(str(MODULE))

    run(main())


def test_a_program_that_cannot_be_loaded_costs_no_other_worker(server: RunningForkServer) -> None:
    """As when the package was removed."""

    async def main() -> None:
        worker = await forked_worker(server)
        with pytest.raises(OSError, match="replug was removed or replaced since the agent started"):
            await server.fork("replug.token.worker.gone", PATIENCE)
        assert "SoftHSM" in await worker.load(str(MODULE))
        await forked_worker(server)

    run(main())


def test_a_request_that_fails_too_late_costs_no_other_worker(server: RunningForkServer) -> None:
    async def main() -> None:
        worker = await forked_worker(server)
        os.kill(server.process.pid, signal.SIGSTOP)
        with pytest.raises(OSError, match="the process that forks workers does not answer"):
            await server.fork("replug.token.worker.gone", 0.1)
        os.kill(server.process.pid, signal.SIGCONT)
        await forked_worker(server)
        assert "SoftHSM" in await worker.load(str(MODULE))

    run(main())


def test_a_program_of_another_version_costs_no_other_worker(server: RunningForkServer) -> None:
    async def main() -> None:
        with pytest.raises(OSError, match="replug was removed or replaced since the agent started"):
            await server.fork("replug.token.worker.frames", PATIENCE)  # it has no `work`
        await forked_worker(server)

    run(main())


def test_a_fork_that_fails_says_why_and_costs_no_other_worker() -> None:
    program = (
        "import errno, os, signal, socket, sys\n"
        "from replug.token.worker.forkserver import serve_forks\n"
        "fork, forks = os.fork, []\n"
        "def failing():\n"
        "    forks.append(1)\n"
        "    if len(forks) == 2: raise OSError(errno.ENOMEM, 'as in tight times')\n"
        "    return fork()\n"
        "os.fork = failing\n"
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "serve_forks(socket.socket(fileno=int(sys.argv[1])), print)\n"
    )

    async def main(server: ForkServer) -> None:
        worker = await forked_worker(server)
        with pytest.raises(OSError, match=os.strerror(errno.ENOMEM)):
            await forked_worker(server)
        assert "SoftHSM" in await worker.load(str(MODULE))
        await forked_worker(server)

    with running_fork_server(program) as server:
        run(main(server))


def test_a_signal_that_does_not_interrupt_the_wait_is_handled() -> None:
    """As one that comes just before the wait. Here another thread gets it, to be sure of that."""
    program = (
        "import signal, socket, sys, threading, time\n"
        "from replug.token.worker.forkserver import serve_forks\n"
        "signal.signal(signal.SIGHUP, lambda *_: print('handled', flush=True))\n"
        "threading.Thread(target=time.sleep, args=[600], daemon=True).start()\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])\n"
        "serve_forks(socket.socket(fileno=int(sys.argv[1])), lambda _: print('waiting', flush=True))\n"
    )
    with running_fork_server(program) as server:
        assert server.process.stdout
        server.requests.send(b"anything")
        assert server.process.stdout.readline() == b"waiting\n"
        time.sleep(0.2)
        server.process.send_signal(signal.SIGHUP)
        assert select.select([server.process.stdout], [], [], 20)[0]
        assert server.process.stdout.readline() == b"handled\n"


def test_its_end_is_that_of_all_it_has_forked(server: RunningForkServer) -> None:
    async def main() -> None:
        workers = [await forked_worker(server) for _ in range(2)]
        os.kill(workers[0].pid, signal.SIGSTOP)  # as if in a driver
        server.end()
        for worker in workers:
            await reaped(worker)

    run(main())


def test_whoever_wanted_a_worker_may_leave(server: RunningForkServer) -> None:
    async def main() -> None:
        await forked_worker(server)
        leaving = asyncio.create_task(server.fork(PROGRAM, PATIENCE))
        await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert "SoftHSM" in await (await forked_worker(server)).load(str(MODULE))

    run(main())


def test_what_is_no_request_for_a_process_is_passed_on(server: RunningForkServer) -> None:
    server.requests.send(b"READY=1")
    assert server.process.stdout
    assert server.process.stdout.readline() == b"READY=1\n"


def test_no_process_outlives_an_agent_that_is_killed() -> None:
    program = (
        "import asyncio, sys, time\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[3])!r})\n"
        "from doubles.fork_servers import FORK_SERVER, RunningForkServer\n"
        "async def main():\n"
        "    server = RunningForkServer()\n"
        f"    forked = await server.fork({PROGRAM!r}, 15)\n"
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
        "from replug.token.worker.forkserver import load\n"
        f"load({PROGRAM!r})\n"
        "assert 'asn1crypto' not in sys.modules and 'pkcs11._pkcs11' in sys.modules\n"
        "from pkcs11.util.ec import encode_named_curve_parameters\n"
        "print(encode_named_curve_parameters('secp256r1').hex())\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "06082a8648ce3d030107\n"
