"""Nothing is configured: the modules that p11-kit has registered are found, each by itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rigs.agent import Agent, StartAgent
from rigs.askpass import Askpass
from rigs.doctor import Diagnosis
from rigs.faulty import Faulty
from rigs.home import Home
from rigs.registered import PACKAGES, Registered
from rigs.softhsm import MODULE, PIN, Token
from rigs.terminal import eventually

PROGRAMS = Path(sys.executable)
REPLUG = PROGRAMS.with_name("replug")
LIBRARIES = next(Path("/usr/lib").glob("*-linux-gnu"))
PROXY = LIBRARIES / "p11-kit-proxy.so"
CLIENT = LIBRARIES / "pkcs11/p11-kit-client.so"


@pytest.fixture
def registered(home: Home) -> Registered:
    """p11-kit knows no modules, and there is no configuration file."""
    (home.folder / ".config" / "replug" / "config.toml").unlink()
    return Registered(home)


@pytest.fixture
def token(home: Home) -> Token:
    """A token with one key."""
    token = Token(home)
    token.add("p256")
    return token


@pytest.fixture
def discovering(registered: Registered, askpass: Askpass, start_agent: StartAgent) -> Callable[[], Agent]:
    """Starts an agent that finds what is registered."""
    program = registered.program(PROGRAMS.with_name("replug-agent"))
    return lambda: start_agent(program=program, env=askpass.env)


def status(agent: Agent) -> dict[str, Any]:
    """What `replug status` says."""
    said: dict[str, Any] = json.loads(agent.run(REPLUG, "status", "--json").out)
    return said


def comments(agent: Agent) -> list[str]:
    """The comments of the keys that ssh-add -L shows."""
    done = agent.ssh_add("-L")
    return [line.split(" ", 2)[2] for line in done.lines] if done.status == 0 else []


def with_module(agent: Agent, module: Path) -> list[int]:
    """The processes that have the module loaded."""
    return [pid for pid in agent.children() if str(module.resolve()) in Path(f"/proc/{pid}/maps").read_text()]


def test_found_and_named_are_one_module(
    registered: Registered, token: Token, discovering: Callable[[], Agent]
) -> None:
    registered.register("softhsm2", f"module: {MODULE}")
    agent = discovering()
    assert comments(agent) == ["p256"], agent.log
    assert agent.add_provider(MODULE, PIN).status == 0, agent.log

    assert comments(agent) == ["p256"]
    [shown] = status(agent)["tokens"]
    assert (shown["label"], shown["state"], len(shown["keys"])) == ("work", "ready", 1)
    assert {one["module"] for one in status(agent)["providers"]} == {str(MODULE.resolve())}
    assert len(with_module(agent, MODULE)) == 1
    assert agent.ssh_add("-T", token.public("p256")).status == 0, agent.log


def test_a_uri_without_a_module_finds_the_token(
    registered: Registered, home: Home, token: Token, discovering: Callable[[], Agent]
) -> None:
    """At whichever of the modules, and the PIN goes to that token alone; the proxy is not loaded."""
    home.configure("modules = []")
    registered.register("empty", f"module: {CLIENT}", "priority: 10")
    registered.register("softhsm2", f"module: {MODULE}")
    agent = discovering()
    missing = agent.add_provider("pkcs11:token=other", PIN)
    assert missing.status == 1
    assert "no such token is present at any registered module" in agent.log

    assert agent.add_provider("pkcs11:token=work", PIN).status == 0, agent.log
    assert comments(agent) == ["p256"]
    assert agent.ssh_add("-T", token.public("p256")).status == 0, agent.log
    assert agent.ssh_add("-e", "pkcs11:token=work").status == 0, agent.log
    assert comments(agent) == []


def test_disable_in_is_obeyed(
    registered: Registered, home: Home, token: Token, discovering: Callable[[], Agent]
) -> None:
    registered.register("softhsm2", f"module: {MODULE}", "disable-in: ssh, replug-agent")
    agent = discovering()
    assert comments(agent) == []
    assert status(agent)["providers"] == []
    # By its own name it is still served, as the user asked for it; by the proxy's it is not.
    assert agent.add_provider(PROXY, PIN).status == 1
    assert agent.add_provider(MODULE, PIN).status == 0, agent.log


def test_the_proxy_where_somebody_names_it(
    registered: Registered, home: Home, token: Token, discovering: Callable[[], Agent]
) -> None:
    home.configure(f'modules = ["{PROXY}"]')
    registered.register("softhsm2", f"module: {MODULE}", "enable-in: replug-agent")
    agent = discovering()
    assert comments(agent) == ["p256"]
    assert [one["module"] for one in status(agent)["providers"]] == [str(PROXY.resolve())]


def test_one_that_crashes_takes_no_other_with_it(
    registered: Registered, home: Home, token: Token, discovering: Callable[[], Agent], faulty: Faulty
) -> None:
    home.configure('allowed_modules = ["/*"]')
    home.env |= faulty.env
    faulty.tell("C_GetSlotList", "crash")
    registered.register("broken", f"module: {faulty.module}", "critical: yes", "priority: 1")
    registered.register("missing", "module: nowhere.so", "critical: yes", "priority: 1")
    registered.register("softhsm2", f"module: {MODULE}")
    agent = discovering()
    assert comments(agent) == ["p256"]
    assert faulty.entered("C_GetSlotList") > 0
    assert "nowhere.so is not installed" in agent.log


# Tokens of other machines.


@contextmanager
def p11_kit_server(home: Home, path: Path) -> Iterator[None]:
    """`p11-kit server` for the token of this home."""
    with subprocess.Popen(
        ["p11-kit", "server", "--provider", MODULE, "--foreground", "--name", path, "pkcs11:token=work"],
        env=home.env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as server:  # fmt: skip
        try:
            eventually(path.exists, "p11-kit server listens")
            yield
        finally:
            server.send_signal(signal.SIGTERM)


def test_remote_by_a_socket(
    registered: Registered, home: Home, token: Token, discovering: Callable[[], Agent], askpass: Askpass
) -> None:
    path = home.folder / "far.sock"
    registered.register("far", f"remote: unix:path={path}")
    registered.register("farther", f"remote: unix:path={path}.not-there")
    askpass.answers(PIN)
    with p11_kit_server(home, path):
        agent = discovering()
        assert comments(agent) == ["p256"], agent.log
        assert agent.ssh_add("-T", token.public("p256")).status == 0, agent.log
        assert [one["name"] for one in status(agent)["providers"]] == [
            "pkcs11:?module-name=far", "pkcs11:?module-name=farther"
        ]  # fmt: skip
        assert agent.add_provider("pkcs11:?module-name=far", PIN).status == 0, agent.log
        assert len(status(agent)["tokens"]) == 1
        assert agent.ssh_add("-e", "pkcs11:?module-name=far").status == 0, agent.log
        assert comments(agent) == []


def test_remote_by_a_command(
    registered: Registered, token: Token, discovering: Callable[[], Agent], askpass: Askpass
) -> None:
    registered.register("far", f"remote: |p11-kit remote {MODULE}")
    askpass.answers(PIN)
    agent = discovering()
    assert comments(agent) == ["p256"], agent.log
    assert agent.ssh_add("-T", token.public("p256")).status == 0, agent.log


def test_a_pin_does_not_go_to_a_server_that_only_shows_the_same_key(
    registered: Registered, home: Home, token: Token, discovering: Callable[[], Agent], askpass: Askpass
) -> None:
    """Public keys are no secret: whatever answers at the socket can show them."""
    path = home.folder / "far.sock"
    registered.register("far", f"remote: unix:path={path}", "priority: 1")
    registered.register("near", f"module: {MODULE}")
    with p11_kit_server(home, path):
        agent = discovering()
        assert agent.add_provider(MODULE, PIN).status == 0, agent.log
        # What is found unasked is read beside the token that was asked for, and may take longer.
        eventually(lambda: len(status(agent)["tokens"]) == 2, "both tokens are read", 30)
        far, near = sorted(status(agent)["tokens"], key=lambda one: one["pin_remembered"])
        assert (far["pin_remembered"], near["pin_remembered"]) == (False, True)


# What the module needs to be told.


def test_nss_is_told_where_its_database_is(
    registered: Registered, home: Home, discovering: Callable[[], Agent], askpass: Askpass
) -> None:
    database = home.folder / "nss"
    database.mkdir()
    pin, noise = home.write("nss.pin", PIN + "\n"), home.write("noise", os.urandom(64))
    at = ("-d", f"sql:{database}", "-f", pin)
    assert home.run("certutil", "-N", *at).status == 0
    made = home.run(
        "certutil", "-S", *at, "-z", noise, "-n", "mine", "-s", "CN=mine", "-x", "-t", ",,",
        "-k", "ec", "-q", "nistp256",
    )  # fmt: skip
    assert made.status == 0, made
    reserved = f"configDir='sql:{database}' certPrefix='' keyPrefix='' secmod='secmod.db' flags=readOnly"
    nss = LIBRARIES / "libsoftokn3.so"
    registered.register("nss", f"module: {nss}", f"x-init-reserved: {reserved}")
    agent = discovering()
    askpass.answers(PIN)
    listed = agent.ssh_add("-L")
    assert listed.status == 0, agent.log
    public = home.write("nss.pub", listed.out)
    assert agent.ssh_add("-T", public).status == 0, agent.log
    # By its path it is the module as it is registered.
    assert agent.add_provider(nss, PIN).status == 0, agent.log
    assert len([one for one in status(agent)["tokens"] if one["keys"]]) == 1


# What doctor says.


def test_doctor_says_what_is_registered(
    registered: Registered, home: Home, token: Token, discovering: Callable[[], Agent]
) -> None:
    registered.register("softhsm2", f"module: {MODULE}")
    off = registered.register("off", f"module: {CLIENT}", "disable-in: replug-agent")
    odd = registered.register("odd", "remote: tcp:host")
    missing = registered.register("missing", "module: nowhere.so", "critical: yes")
    agent = discovering()
    assert comments(agent) == ["p256"]
    seen = PACKAGES
    expected = {
        ("ok", f"{MODULE.resolve()} is allowed"),
        ("ok", f"off is registered but not used: {seen / off.name}: its disable-in leaves out replug-agent"),
        (
            "warn",
            f"odd is registered but not used: {seen / odd.name}: remote: tcp:host is none of |COMMAND,"
            " unix:path=/SOCKET and vsock:ADDRESS",
        ),
        ("fail", f"missing is registered but not used: {seen / missing.name}: nowhere.so is not installed"),
    }
    program = registered.program(REPLUG)
    for env in (agent.env, {}):
        found = Diagnosis(home, env=env, program=program)
        assert {(one.outcome, one.reason) for one in found.all("module")} == expected

    registered.register("late", f"module: {LIBRARIES / 'opensc-pkcs11.so'}")
    late = {one.reason: one.fix for one in Diagnosis(home, env=agent.env, program=program).all("module")}
    path = (LIBRARIES / "opensc-pkcs11.so").resolve()
    assert late[f"{path} is registered, but this agent does not serve it"] == "replug reload"
