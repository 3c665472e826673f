"""A program of the user mounts a file system that never answers over folders that the agent uses."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from rigs.agent import LIST_REQUEST, Agent, Connection, frame, sign_request, string
from rigs.faulty import Faulty
from rigs.home import Home
from rigs.key_files import blob_of, make_key, public_of
from rigs.logind import Logind
from rigs.message_bus import MessageBus
from rigs.mute_folder import MuteFolder, Request, build
from rigs.pcscd import OPENSC
from rigs.softhsm import MODULE, Token
from rigs.terminal import eventually
from rigs.user_manager import UID, UserManager

_SOON = 3.0
"""Seconds: far less than what the agent waits for, and enough for a busy machine."""
Mute = Callable[[Agent, Path, Request], MuteFolder]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("mute"))


@pytest.fixture
def start(home: Home) -> Iterator[Callable[..., Agent]]:
    """Starts an agent in namespaces in which this user may mount."""
    if subprocess.run(["unshare", "-Um", "--map-current-user", "true"], capture_output=True).returncode:
        pytest.skip("no user namespaces here")
    program = Path(sys.executable).with_name("replug-agent")
    script = f'#!/bin/sh\nexec unshare -Um --map-current-user {program} "$@"\n'
    wrapper = home.write("in-namespaces", script, 0o755)
    with ExitStack() as agents:

        def start(*options: str, env: dict[str, str] | None = None) -> Agent:
            agent = Agent(wrapper, home, *options, env=env)
            agents.callback(lambda: agent.process.poll() is None and agent.stop())
            return agent

        yield start


@pytest.fixture
def mute(built: Path, start: object) -> Iterator[Mute]:
    """Mounts it over a folder that an agent uses, until the agent has ended."""
    with ExitStack() as stack:

        def mute(agent: Agent, folder: Path, request: Request) -> MuteFolder:
            words = [built, folder, os.getuid(), request.value, agent.process.pid]
            process = subprocess.Popen(
                [str(word) for word in words], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            muted = MuteFolder(process)
            stack.callback(muted.end)
            return muted

        yield mute


def goes_on(agent: Agent) -> None:
    """It answers, and then it ends when it is told to, though nothing else answers it."""
    begun = time.monotonic()
    assert agent.alive(), agent.log
    assert time.monotonic() - begun < _SOON, agent.log
    begun = time.monotonic()
    assert agent.stop() == 2, agent.log
    assert time.monotonic() - begun < 2 * _SOON, agent.log


@contextmanager
def signing(agent: Agent, public: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Somebody has a key sign, and waits."""
    with subprocess.Popen(["ssh-add", "-T", public], env=agent.home.env | agent.env) as client:
        try:
            yield client
        finally:
            client.kill()


def asking_password_agents(
    home: Home, start: Callable[..., Agent], faulty: Faulty, setting: str = ""
) -> tuple[Agent, Path]:
    """An agent with a token's key that asks by systemd's password agents only, and the folder of these."""
    folder = home.folder / "run" / "systemd" / "ask-password"
    folder.mkdir(parents=True)
    home.configure(f'modules = []\nprompt = "systemd"\n{setting}')
    agent = start("-P", "*", env=faulty.env)
    assert agent.add_provider(faulty.module, "").status == 0, agent.log
    return agent, folder


@pytest.mark.parametrize(
    "request_", [Request.LOOKUP, Request.MKNOD, Request.CREATE, Request.WRITE, Request.RENAME]
)
def test_the_folder_of_password_agents(
    request_: Request, home: Home, start: Callable[..., Agent], mute: Mute, faulty: Faulty
) -> None:
    agent, folder = asking_password_agents(home, start, faulty)
    muted = mute(agent, folder, request_)
    with signing(agent, faulty.public) as client:
        muted.await_question()
        with agent.connect(_SOON) as another:
            assert another.ask(LIST_REQUEST)[:1] == b"\x0c"
        assert client.wait(30) != 0
    assert f"{folder} does not answer" in agent.log
    goes_on(agent)


def test_a_question_that_cannot_be_taken_back(
    home: Home, start: Callable[..., Agent], mute: Mute, faulty: Faulty
) -> None:
    agent, folder = asking_password_agents(home, start, faulty, 'prompt_timeout = "1s"')
    muted = mute(agent, folder, Request.UNLINK)
    with signing(agent, faulty.public) as client:
        muted.await_question()
        assert client.wait(30) != 0
    goes_on(agent)


def test_the_folder_of_password_agents_of_the_service(
    home: Home, log_in: Callable[[], UserManager], built: Path
) -> None:
    Token(home).add("p256", "key")
    home.configure(f'modules = ["{MODULE}"]\nprompt = "systemd"')
    session = log_in()
    assert session.replug("setup").status == 0
    agent = {"SSH_AUTH_SOCK": session.environment()["SSH_AUTH_SOCK"]}
    assert session.run("sh", "-c", "ssh-add -L >key.pub", env=agent).status == 0
    folder = session.runtime / "systemd" / "ask-password"
    session.run("mkdir", "-p", folder)
    muted = MuteFolder(session.start(built, folder, str(UID), str(Request.LOOKUP.value), as_root=True))
    client = session.start("ssh-add", "-T", "key.pub", env=agent)
    muted.await_question()
    begun = time.monotonic()
    assert session.run("ssh-add", "-l", env=agent).status == 0
    assert time.monotonic() - begun < _SOON
    assert client.wait(30) != 0
    # What the kernel keeps from ending is no part of the next one.
    assert session.systemctl("stop", "replug-agent").status == 0
    assert session.run("ssh-add", "-l", env=agent).status == 0


def test_the_folder_of_a_program_that_asks(
    home: Home, start: Callable[..., Agent], mute: Mute, faulty: Faulty
) -> None:
    folder = home.folder / "programs"
    folder.mkdir()
    home.configure('modules = []\nprompt = "askpass"')
    asking = {"SSH_ASKPASS": str(folder / "program"), "SSH_ASKPASS_REQUIRE": "force"}
    agent = start("-P", "*", env=faulty.env | asking)
    assert agent.add_provider(faulty.module, "").status == 0, agent.log
    muted = mute(agent, folder, Request.OPEN)
    with signing(agent, faulty.public):
        muted.await_question()
        goes_on(agent)


def test_the_folder_of_the_sessions_bus(
    home: Home, start: Callable[..., Agent], mute: Mute, faulty: Faulty
) -> None:
    """However many notices wait for it, the system's bus does not."""
    session, system = home.folder / "run", home.folder / "system"
    system.mkdir()
    home.configure('modules = []\nforget_pin_on = ["screen-lock"]\ntouch_notification = "1s"')
    buses = {
        "DBUS_SESSION_BUS_ADDRESS": f"unix:path={session}/bus",
        "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={system}/bus",
    }
    agent = start("-P", "*", env=faulty.env | buses)
    assert agent.add_provider(faulty.module, "123456").status == 0, agent.log
    muted = mute(agent, session, Request.LOOKUP)
    faulty.tell("C_Sign", "hang")
    with signing(agent, faulty.public):
        muted.await_question()
        with agent.connect(_SOON) as another:
            assert another.ask(LIST_REQUEST)[:1] == b"\x0c"
        bus = MessageBus(system)
        logind = Logind(bus.address)
        try:
            eventually(lambda: "listening for screen lock" in agent.log, "it listens", 60)
        finally:
            logind.stop()
            bus.stop()
        goes_on(agent)


def test_the_folder_of_a_module_in_the_configuration(
    home: Home, start: Callable[..., Agent], mute: Mute, faulty: Faulty
) -> None:
    """Whether its entry is meant is asked for every token of any module."""
    folder = home.folder / "modules"
    folder.mkdir()
    home.configure(f'modules = []\n[[token]]\nuri = "pkcs11:"\nmodule = "{folder}/module.so"')
    agent = start("-P", "*", env=faulty.env)
    assert agent.alive(), agent.log
    mute(agent, folder, Request.LOOKUP)
    with agent.connect(15) as client:
        add = frame(b"\x14" + string(os.fsencode(faulty.module)) + string(b""))
        assert client.ask(add) == b"\x06", agent.log
    goes_on(agent)


def test_the_folder_of_pcscds_socket(home: Home, start: Callable[..., Agent], mute: Mute) -> None:
    folder = home.folder / "run" / "pcscd"
    folder.mkdir()
    home.configure(f'modules = ["{OPENSC}"]')
    agent = start(env={"PCSCLITE_CSOCK_NAME": str(folder / "pcscd.comm")})
    assert agent.alive(), agent.log  # it has looked for tokens once
    mute(agent, folder, Request.LOOKUP).await_question()
    goes_on(agent)


def test_the_folder_of_the_service_managers_socket(
    home: Home, start: Callable[..., Agent], mute: Mute
) -> None:
    """The process that forks all others tells it what the agent does."""
    folder = home.folder / "run" / "systemd"
    folder.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(folder / "notify"))
        manager.settimeout(30)
        agent = start(env={"NOTIFY_SOCKET": str(folder / "notify")})
        while b"READY=1" not in manager.recv(4096):
            pass
        mute(agent, folder, Request.LOOKUP)
        # A locked agent says so to its manager.
        with agent.connect(30) as client:
            assert client.ask(b"\x00\x00\x00\x08\x16\x00\x00\x00\x03abc") == b"\x06"
            while b"ocked" not in manager.recv(4096):
                pass
            assert client.ask(b"\x00\x00\x00\x08\x17\x00\x00\x00\x03abc") == b"\x06"
        key = make_key(home, "key")
        assert agent.ssh_add(key).status == 0, agent.log
        with agent.connect(10) as client:
            assert client.ask(sign_request(blob_of(public_of(key))))[:1] == b"\x0e"
        goes_on(agent)


@pytest.mark.parametrize("started", [False, True], ids=["at its start", "later"])
def test_the_folder_of_its_own_sockets(
    started: bool, home: Home, start: Callable[..., Agent], mute: Mute
) -> None:
    """They cannot be removed at the end, and who has forked all others ends as well."""
    agent = start()
    if started:
        eventually(lambda: "INFO started" in agent.log, "it has started")
    mute(agent, home.folder, Request.LOOKUP)
    goes_on(agent)


def test_the_folder_of_a_socket_for_some_of_the_keys(
    home: Home, start: Callable[..., Agent], mute: Mute
) -> None:
    """It is neither made nor removed, which is said, and others are."""
    dead, good = home.folder / "dead", home.folder / "run"
    dead.mkdir(mode=0o700)

    def configure(*names: str) -> None:
        tables = [
            f'[[socket]]\npath = "{folder}/{name}"\nkeys = "*"' for name in names for folder in (dead, good)
        ]
        home.configure("\n".join(["modules = []", *tables]))

    configure("a", "b")
    agent = start()
    eventually((good / "b").exists, "the sockets")
    mute(agent, dead, Request.LOOKUP)
    configure("b", "c")
    replug = Path(sys.executable).with_name("replug")
    assert agent.run(replug, "reload").status == 0, agent.log
    status = json.loads(agent.run(replug, "status", "--json").out)
    assert {one["path"]: one["failed"] for one in status["sockets"] if one["failed"]} == {
        f"{dead}/c": "its folder does not answer"
    }
    assert sorted(path.name for path in good.iterdir()) == ["b", "c"]
    for name in ("b", "c"):
        with Connection(good / name, 30) as connection:
            assert connection.ask(LIST_REQUEST)[:1] == b"\x0c"
    goes_on(agent)
    assert list(good.iterdir()) == []
