"""What a busy process of the same user cannot do to others: their keys, prompts and passphrases go on."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from attacks.largest import ADD_KEY, LOCK, UNLOCK, mpint
from attacks.waits import usual_signature
from doubles.private_keys import ed25519_key, message
from rigs.agent import FAILURE, LIST_REQUEST, Agent, frame, sign_request, string
from rigs.home import Home
from rigs.key_files import blob_of, make_key, public_of
from rigs.softhsm import Token
from rigs.terminal import eventually

SUCCESS, SIGNED = b"\x06", b"\x0e"
REPLUG = Path(sys.executable).with_name("replug")


def large_key(p_bits: int, q_bits: int) -> tuple[bytes, bytes]:
    """An RSA key of two Mersenne primes, as a request to add it, and its blob."""
    p, q, e = 2**p_bits - 1, 2**q_bits - 1, 65537
    n, d, iqmp = p * q, pow(e, -1, (p - 1) * (q - 1)), pow(q, -1, p)
    numbers = b"".join(map(mpint, (n, e, d, iqmp, p, q)))
    blob = string(b"ssh-rsa") + mpint(e) + mpint(n)
    return frame(ADD_KEY + string(b"ssh-rsa") + numbers + string(b"large")), blob


@contextmanager
def busy(
    agent: Agent, connections: int, *frames: bytes, program: str | Path = sys.executable
) -> Iterator[None]:
    """Another process, a Python, sends these again and again."""
    process = subprocess.Popen(
        [program, "-I", Path(__file__).with_name("flood.py"), agent.socket, str(connections)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    try:
        process.stdin.write(json.dumps([[[], [one.hex() for one in frames], []]]) + "\n")
        process.stdin.flush()
        yield
    finally:
        process.kill()
        process.communicate()


def seconds(call: Callable[[], object]) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started


@pytest.fixture
def signing(agent: Agent, home: Home) -> Callable[[], None]:
    """Makes a signature with a key that the agent has."""
    key = make_key(home, "key")
    assert agent.ssh_add(key).status == 0
    request = sign_request(blob_of(public_of(key)))

    def sign() -> None:
        with agent.connect() as connection:
            assert connection.ask(request)[:1] == SIGNED, agent.log

    sign()
    return sign


def test_refused_additions_cost_other_keys_nothing(agent: Agent, signing: Callable[[], None]) -> None:
    """Of a FIDO provider for a key that is none; of halves that do not belong together; of no key at all."""
    children = agent.children()
    provider = b"\xff" + string(b"sk-provider@openssh.com") + string(b"/usr/lib/sk.so")
    one, other = ed25519_key(), ed25519_key()
    wrong = bytes(message(one)).replace(one.public.point, other.public.point)
    refused = [bytes(message(one)) + provider, wrong, bytes(message(one))[:-3]]
    with busy(agent, 10, *(frame(b"\x19" + one[1:]) for one in refused)):
        waits = [seconds(signing) for _ in range(50)]
    assert statistics.median(waits) < 0.1, waits
    assert agent.children() == children, "the process for software keys was replaced"


def test_a_removal_costs_a_thousand_other_keys_little(agent: Agent, signing: Callable[[], None]) -> None:
    with agent.connect() as connection:
        for _ in range(1000):
            assert connection.ask(frame(bytes(message(ed25519_key())))) == SUCCESS
        removed = ed25519_key()
        times = []
        for _ in range(3):
            assert connection.ask(frame(bytes(message(removed)))) == SUCCESS
            assert connection.ask(frame(b"\x12" + string(removed.blob))) == SUCCESS
            times.append(seconds(signing))
    assert min(times) < 1.0, times


def test_large_rsa_keys_do_not_delay_an_ed25519_key(agent: Agent, signing: Callable[[], None]) -> None:
    add, blob = large_key(9689, 4423)
    with agent.connect() as connection:
        assert connection.ask(add) == SUCCESS, agent.log
    before = [seconds(signing) for _ in range(30)]
    with ThreadPoolExecutor(8) as others:
        connections = [agent.connect(170) for _ in range(8)]
        signatures = [others.submit(one.ask, sign_request(blob, flags=2)) for one in connections]
        during = [seconds(signing) for _ in range(30)]
        assert not all(one.done() for one in signatures), "they ended too early for this to show anything"
        with agent.connect() as connection:  # what is removed is computed no further
            assert connection.ask(frame(b"\x12" + string(blob))) == SUCCESS
        assert {one.result()[:1] for one in signatures} <= {SIGNED, FAILURE}
        for one in connections:
            one.socket.close()
    # Their process takes what is left of the processor: the median, as machines have other things to do.
    assert statistics.median(during) < 2 * statistics.median(before) + 0.01, (before, during)


def test_signatures_go_on_while_others_add_and_remove(agent: Agent, signing: Callable[[], None]) -> None:
    key = ed25519_key()
    with busy(agent, 4, frame(bytes(message(key))), frame(b"\x12" + string(key.blob))):
        for _ in range(10):
            signing()


def test_the_right_passphrase_gets_through_among_guesses(agent: Agent) -> None:
    with agent.connect() as owner:
        assert owner.ask(frame(LOCK + string(b"sesame"))) == SUCCESS
        with busy(agent, 24, frame(UNLOCK + string(b"guess"))):
            time.sleep(1)  # the guesses' delays have grown
            assert seconds(lambda: unlocked(owner.ask(frame(UNLOCK + string(b"sesame"))))) < 5


def test_the_right_passphrase_gets_through_among_guesses_of_many_processes(agent: Agent) -> None:
    """Each guesses and ends; what it has sent is not to stay behind."""
    with agent.connect() as owner:
        assert owner.ask(frame(LOCK + string(b"sesame"))) == SUCCESS
        crowd = subprocess.Popen([sys.executable, Path(__file__).with_name("crowd.py"), agent.socket])
        try:
            time.sleep(3)
            done = agent.ssh_add("-X", typing=[("Enter lock password: ", "sesame")])
            assert done.status == 0, agent.log
        finally:
            crowd.kill()
            crowd.wait()
    used = resident(agent)
    assert used < 150_000_000, used


def test_the_right_passphrase_gets_through_among_guesses_of_its_own_program(agent: Agent, home: Home) -> None:
    """Of `ssh-add -X` itself, run again and again."""
    askpass = home.write("guess", "#!/bin/sh\necho guess\n", 0o755)
    env = home.env | agent.env | {"SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force"}
    with agent.connect() as owner:
        assert owner.ask(frame(LOCK + string(b"sesame"))) == SUCCESS
    crowd = subprocess.Popen(
        "seq 1000000 | xargs -P 60 -n 1 sh -c 'exec timeout 1 ssh-add -X'",
        shell=True,
        env=env,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        time.sleep(3)
        started = time.monotonic()
        done = agent.ssh_add("-X", typing=[("Enter lock password: ", "sesame")])
        assert done.status == 0, agent.log
        assert time.monotonic() - started < 10
    finally:
        os.killpg(crowd.pid, signal.SIGKILL)
        crowd.wait()


def test_signatures_of_one_program_do_not_hold_up_another(agent: Agent, home: Home) -> None:
    slow, quick = home.folder / "slow", make_key(home, "quick")
    assert home.run("ssh-keygen", "-q", "-t", "rsa", "-b", "4096", "-N", "", "-f", slow).status == 0
    assert agent.ssh_add("-q", slow, quick).status == 0
    with busy(agent, 200, sign_request(blob_of(public_of(slow)), flags=4)):
        time.sleep(1)
        waits = [seconds(lambda: agent.ssh_add("-T", public_of(quick))) for _ in range(3)]
    assert min(waits) < 1, waits


def test_what_another_program_removes_holds_up_no_signature(agent: Agent, home: Home) -> None:
    """It ends the process that has the key."""
    other = home.folder / "other"
    shutil.copy(Path(sys.executable).resolve(), other)
    if subprocess.run([other, "-I", "-c", "import json"], capture_output=True).returncode:
        pytest.skip("this Python does not run from another folder")
    ours, removed = make_key(home, "ours"), ed25519_key()
    assert agent.ssh_add("-q", ours).status == 0
    request = sign_request(blob_of(public_of(ours)))
    before = usual_signature(agent, request)
    add, remove = frame(bytes(message(removed))), frame(b"\x12" + string(removed.blob))
    with busy(agent, 4, add, remove, program=other):
        time.sleep(0.5)
        during = usual_signature(agent, request)
    assert during < 2 * before + 0.002, (before, during)


def test_of_additions_whose_client_is_gone_few_go_on(agent: Agent, home: Home) -> None:
    request = frame(b"\x14" + string(str(Token(home).module).encode()) + string(b"1" * 200))
    for _ in range(100):
        with agent.connect() as connection:
            connection.socket.sendall(request)
    with agent.connect() as connection:
        assert connection.ask(request) == FAILURE
    assert "additions of the same program have not ended" in agent.log
    eventually(lambda: agent.ssh_add("-l").status == 1, "a listing")


def unlocked(reply: bytes) -> None:
    assert reply == SUCCESS


def test_a_reload_that_is_refused_says_so(agent: Agent, home: Home) -> None:
    home.configure('forget_pin_on = ["suspend"')
    done = agent.run(REPLUG, "reload")
    assert done.status == 1
    assert "the configuration is refused" in done.err
    assert "config.toml is refused" in agent.run(REPLUG, "status").out
    home.configure('forget_pin_on = ["suspend"]')
    assert agent.run(REPLUG, "reload").status == 0
    assert "refused" not in agent.run(REPLUG, "status").out


def test_without_memory_a_connection_ends_and_the_others_go_on(
    agent: Agent, signing: Callable[[], None]
) -> None:
    with agent.connect() as other, agent.connect() as hungry:
        assert other.ask(LIST_REQUEST)[:1] == b"\x0c"
        connections = [hungry, *(agent.connect() for _ in range(40))]
        assert {one.ask(LIST_REQUEST)[:1] for one in connections} == {b"\x0c"}
        used = int(Path(f"/proc/{agent.process.pid}/statm").read_text().split()[0]) * resource.getpagesize()
        unlimited = resource.prlimit(agent.process.pid, resource.RLIMIT_AS)
        resource.prlimit(agent.process.pid, resource.RLIMIT_AS, (used + 3_000_000, unlimited[1]))
        for connection in connections:
            with suppress(OSError):
                connection.socket.sendall(frame(b"\x12" + bytes(262_000))[:-1])
        time.sleep(1)
        resource.prlimit(agent.process.pid, resource.RLIMIT_AS, unlimited)
        assert other.ask(LIST_REQUEST)[:1] == b"\x0c"
        for connection in connections:
            connection.socket.close()
    assert agent.log.count("Traceback") == 0, agent.log
    assert agent.log.count("\n") < 150, agent.log


def test_large_requests_on_many_connections_take_little_memory(agent: Agent) -> None:
    """Such as are never complete, and such as wait for an answer. Others' large ones are served."""
    large = frame(b"\x12" + string(bytes(250_000)))
    patient = (
        f"import socket, time; s = socket.socket(1); s.connect({str(agent.socket)!r});"
        f"s.sendall({large[:9]!r} + bytes(200_000)); time.sleep(2);"
        "s.sendall(bytes(50_000)); print(s.recv(5)[4])"
    )
    with agent.connect() as owner, ExitStack() as crowd:
        assert owner.ask(frame(LOCK + string(b"sesame"))) == SUCCESS
        before = resident(agent)
        user = crowd.enter_context(
            subprocess.Popen([sys.executable, "-c", patient], stdout=subprocess.PIPE, text=True)
        )
        guess = frame(UNLOCK + string(bytes(200_000)))
        for number in range(400):
            one = crowd.enter_context(agent.connect())
            with suppress(OSError):  # closed, to make room for others
                one.socket.sendall(large[:-1] if number % 2 else guess + guess[:-1])
        assert resident(agent) - before < 60_000_000
        assert user.communicate(timeout=20)[0] == f"{FAILURE[0]}\n"
        assert agent.log.count("all requests together are too large") == 1


def resident(agent: Agent) -> int:
    """The memory of the process that serves, in bytes."""
    return int(Path(f"/proc/{agent.pid}/statm").read_text().split()[1]) * resource.getpagesize()


def test_few_descriptors_serve_more_than_one_client(home: Home, request: pytest.FixtureRequest) -> None:
    program = home.write(
        "few", f'#!/bin/sh\nulimit -n 32\nexec {request.config.getoption("agent")} "$@"\n', 0o755
    )
    agent = Agent(program, home)
    try:
        connections = [agent.connect() for _ in range(8)]
        assert [one.ask(LIST_REQUEST)[:1] for one in connections] == [b"\x0c"] * 8
        assert "the limit of open files is 32" in agent.log
        for one in connections:
            one.socket.close()
    finally:
        agent.stop()
