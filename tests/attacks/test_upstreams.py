"""Other agents behind this one that answer as they like cost a bounded amount, and delay nobody else."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from rigs.agent import FAILURE, LIST_REQUEST, Connection, StartAgent, frame, sign_request, string
from rigs.doctor import REPLUG
from rigs.home import Home
from rigs.key_files import blob_of, make_key, public_of
from rigs.lingering import lingering
from rigs.other_agent import Asked, Behaviour, OtherAgent
from rigs.sshd import Server
from rigs.terminal import eventually

_EMPTY = frame(b"\x0c" + bytes(4))
_UNKNOWN = frame(b"\x1b" + string(b"nobody@example.org"))
"""A request that is answered at once."""
_MOST_KEYS, _LONGEST = 2048, 256 * 1024
_LONG = 1500
"""Bytes of a request, to one that ends the connection then."""


def blob(number: int) -> bytes:
    """What looks like a key."""
    return string(b"ssh-ed25519") + string(number.to_bytes(32, "big"))


def listed(*blobs: bytes) -> bytes:
    """A reply with these keys."""
    entries = b"".join(string(one) + string(b"other") for one in blobs)
    return frame(b"\x0c" + len(blobs).to_bytes(4, "big") + entries)


def says(reply: bytes) -> Behaviour:
    """One that answers the same to everything."""

    def behave(asked: Asked) -> None:
        while asked.request():
            asked.socket.sendall(reply)

    return behave


def endless(asked: Asked) -> None:
    """It never ends what it says."""
    asked.request()
    while True:
        asked.socket.sendall(_EMPTY * 1000)


def dripping(asked: Asked) -> None:
    """It takes its time for each byte."""
    asked.request()
    for byte in listed(*map(blob, range(3000))):
        asked.socket.sendall(bytes([byte]))
        if asked.is_over.wait(0.001):
            return


def passing(asked: Asked) -> None:
    """It passes what takes its time when it is closed."""
    asked.request()
    with lingering() as one, suppress(PermissionError):  # newer kernels refuse it
        socket.send_fds(asked.socket, [_EMPTY], [one.fileno()])
        one.close()
        asked.is_over.wait()


class Others:
    """Starts other agents, and ends them."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self.all: list[OtherAgent] = []

    def start(self, name: str, behaviour: Behaviour) -> OtherAgent:
        self.all.append(OtherAgent(self._home.folder / f"{name}.sock", behaviour))
        return self.all[-1]


@pytest.fixture
def others(home: Home) -> Iterator[Others]:
    started = Others(home)
    yield started
    for one in started.all:
        one.stop()


def behind(home: Home, *sockets: Path) -> None:
    home.configure(f"modules = []\nupstreams = {[str(one) for one in sockets]}")


def keys_in(reply: bytes) -> list[bytes]:
    """The blobs in a list."""
    assert reply[:1] == b"\x0c"
    found, place = [], 5
    while place < len(reply):
        length = int.from_bytes(reply[place : place + 4], "big")
        found.append(reply[place + 4 : place + 4 + length])
        place += 4 + length
        place += 4 + int.from_bytes(reply[place : place + 4], "big")
    assert len(found) == int.from_bytes(reply[1:5], "big")
    return found


def resident(pid: int) -> int:
    """Bytes of memory that the process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def test_whatever_they_answer(home: Home, others: Others, start_agent: StartAgent) -> None:
    full = home.folder / "full.sock"
    hostile = {
        "huge": says(b"\xff\xff\xff\xff\x0c"),
        "garbage": says(frame(b"\x63what")),
        "endless": endless,
        "dripping": dripping,
        "passing": passing,
    }
    sockets = [others.start(name, behaviour).path for name, behaviour in hostile.items()]
    good = others.start("good", says(listed(blob(1), blob(2), blob(1), b"", b"no key")))
    many = others.start("many", says(listed(*map(blob, range(3000)))))
    behind(home, *sockets, full, good.path, many.path)
    with ExitStack() as open_until_the_end:
        listener = open_until_the_end.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(full))
        listener.listen(0)
        with suppress(BlockingIOError):
            while True:
                waiting = open_until_the_end.enter_context(socket.socket(socket.AF_UNIX))
                waiting.setblocking(False)
                waiting.connect(str(full))
        agent = start_agent()
        assert agent.ssh_add("-q", make_key(home, "own")).status == 0
        before = resident(agent.pid)
        connection, another = (open_until_the_end.enter_context(agent.connect()) for _ in range(2))
        asking = threading.Thread(target=connection.ask, args=(LIST_REQUEST,))
        asking.start()
        while asking.is_alive():
            begun = time.monotonic()
            assert another.ask(_UNKNOWN) == FAILURE
            assert time.monotonic() - begun < 2
        asking.join()

        begun = time.monotonic()
        for _ in range(20):
            reply = connection.ask(LIST_REQUEST)
            found = keys_in(reply)
            assert len(found) == len(set(found)) == _MOST_KEYS
            assert len(reply) <= _LONGEST
            assert found[1:4] == [blob(1), blob(2), blob(0)]  # after our own
        assert time.monotonic() - begun < 15
        for _ in range(40):
            with agent.connect() as one:
                one.ask(LIST_REQUEST)
        assert resident(agent.pid) - before < 32 * 2**20
        log = agent.log
        assert "Traceback" not in log
        assert "huge.sock gives no usable answer: message of 4294967295 bytes" in log
        assert "garbage.sock gives no usable answer: unexpected message type 99" in log
        assert "full.sock" in log
        assert "many.sock" not in log
        assert "good.sock" not in log


def test_who_is_gone_is_gone_there_too(home: Home, others: Others, start_agent: StartAgent) -> None:
    """Also while it waits for a signature; nobody else's connection ends."""

    def behave(asked: Asked) -> None:
        asked.request()
        asked.socket.sendall(listed(blob(1)))
        asked.request()  # to sign
        asked.request()  # the end

    other = others.start("other", behave)
    behind(home, other.path)
    agent = start_agent()

    def begin(connection: Connection) -> Asked:
        assert keys_in(connection.ask(LIST_REQUEST)) == [blob(1)]
        return other.asked[-1]

    with agent.connect() as stays:
        kept = begin(stays)
        with agent.connect() as idle:
            first = begin(idle)
        assert first.has_ended.wait(10)
        with agent.connect() as signing:
            second = begin(signing)
            signing.socket.sendall(sign_request(blob(1), b"data"))
            eventually(lambda: len(second.requests) == 2, "it is asked to sign")
        assert second.has_ended.wait(10)
        assert not kept.has_ended.is_set()
        assert agent.ssh_add("-x", typing=[("password: ", "a"), ("Again: ", "a")]).status == 0
        assert stays.ask(sign_request(blob(1), b"data")) == FAILURE
        assert stays.ask(LIST_REQUEST) == b"\x0c" + bytes(4)
        assert agent.run(REPLUG, "status").status == 0
        assert [len(asked.requests) for asked in other.asked] == [1, 1, 2]
        behind(home)
        assert agent.run(REPLUG, "reload").status == 0
        assert kept.has_ended.wait(10)


def test_binds_come_first_and_as_they_are(home: Home, others: Others, start_agent: StartAgent) -> None:
    """Valid or not; of a client with too many of them other agents are not asked."""

    def behave(asked: Asked) -> None:
        while True:
            asked.socket.sendall(listed(blob(1)) if asked.request() == b"\x0b" else frame(FAILURE))

    other = others.start("other", behave)
    behind(home, other.path)
    agent = start_agent()
    binds = [b"\x1b" + string(b"session-bind@openssh.com") + bytes([number]) * number for number in range(17)]
    with agent.connect() as connection:
        for bind in binds[:2]:
            connection.ask(frame(bind))
        assert keys_in(connection.ask(LIST_REQUEST)) == [blob(1)]
        connection.ask(frame(binds[2]))
        assert keys_in(connection.ask(LIST_REQUEST)) == [blob(1)]
        [asked] = other.asked
        assert asked.requests == [*binds[:2], b"\x0b", binds[2], b"\x0b"]
        for bind in binds[3:]:
            connection.ask(frame(bind))
        assert keys_in(connection.ask(LIST_REQUEST)) == []
        assert connection.ask(sign_request(blob(1), b"data")) == FAILURE
        assert asked.has_ended.wait(10)
        assert len(other.asked) == 1


def test_what_one_client_says_takes_no_keys_from_others(
    home: Home, others: Others, start_agent: StartAgent
) -> None:
    """As gpg-agent ends the connection when a request is long; and as one waits for signatures."""
    key = public_of(make_key(home, "key"))
    there = blob_of(key)

    def behave(asked: Asked) -> None:
        while len(request := asked.request()) < _LONG:
            if request[:1] == b"\x0d":
                asked.is_over.wait()
            asked.socket.sendall(listed(there) if request == b"\x0b" else frame(FAILURE))

    other = others.start("choosy", behave)
    behind(home, other.path)
    agent = start_agent()
    long = frame(b"\x1b" + string(b"session-bind@openssh.com") + bytes(2000))
    with ExitStack() as open_until_the_end:
        good = open_until_the_end.enter_context(agent.connect())
        for number in range(6):
            eventually(lambda: keys_in(good.ask(LIST_REQUEST)) == [there], "it is listed")
            with agent.connect() as bad:
                if number % 2:
                    assert bad.ask(sign_request(there, bytes(2000))) == FAILURE
                else:
                    bad.ask(long)
                    assert keys_in(bad.ask(LIST_REQUEST)) == []
        waiting = [open_until_the_end.enter_context(agent.connect()) for _ in range(32)]
        for one in waiting:
            one.socket.sendall(sign_request(there, b"data"))
        eventually(lambda: _asked_to_sign(other) == 32, "as many as may wait")
        another = subprocess.Popen(["ssh-add", "-T", key], env=home.env | agent.env)
        try:
            eventually(lambda: _asked_to_sign(other) == 33, "one makes room")
        finally:
            another.kill()
            another.wait()
        behind(home)
        assert agent.run(REPLUG, "reload").status == 0
        assert waiting[-1].reply() == FAILURE
    about = [line for line in agent.log.splitlines() if "signatures by other agents wait already" in line]
    assert about
    assert not any("left out" in line for line in about)
    assert agent.log.count("ended a connection") < 3


def _asked_to_sign(other: OtherAgent) -> int:
    return sum(
        request[:1] == b"\x0d" and len(request) < _LONG for one in other.asked for request in one.requests
    )


def test_a_signature_that_the_key_has_not_made(
    home: Home, others: Others, server: Server, start_agent: StartAgent
) -> None:
    key = public_of(make_key(home, "key"))

    def behave(asked: Asked) -> None:
        while request := asked.request():
            lie = frame(b"\x0e" + string(string(b"ssh-ed25519") + string(bytes(64))))
            asked.socket.sendall(listed(blob_of(key)) if request == b"\x0b" else lie)

    other = others.start("liar", behave)
    behind(home, other.path)
    agent = start_agent()
    server.authorize(key)
    assert server.login(agent).status == 255
    assert "gave a signature that key" in agent.run(REPLUG, "explain").out
    assert " signed " not in agent.log
