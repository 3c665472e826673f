"""Modules with odd habits, with OpenSSH's agent and ours side by side: what works there works here."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from rigs.agent import OPENSSH, Agent, StartAgent
from rigs.home import Home
from rigs.odd import OddModule
from rigs.softhsm import PIN, Token
from rigs.terminal import eventually

REPLUG = Path(sys.executable).with_name("replug")
ANY_PATH = ("-P", "/*")


@pytest.fixture
def token(home: Home) -> Token:
    token = Token(home)
    token.add("p256")
    return token


@pytest.mark.parametrize(
    "habits",
    ["", "one-session", "logged-in", "no-token", "no-sign", "no-always", "whole-or-nothing", "eager-sign",
     "no-mechanisms", "removable", "slow-end"],
)  # fmt: skip
def test_both_agents_sign(
    habits: str, home: Home, token: Token, odd_built: Path, start_agent: StartAgent
) -> None:
    odd = OddModule(odd_built, home, *habits.split())
    for program in ({}, {"program": OPENSSH}):
        agent = start_agent(*ANY_PATH, env=odd.env, **program)
        assert agent.add_provider(odd.path, PIN).status == 0, agent.log
        assert agent.ssh_add("-T", token.public("p256")).status == 0, agent.log
        assert agent.ssh_add("-e", odd.path).status == 0


def test_what_openssh_does_not_manage(
    home: Home, token: Token, odd_built: Path, start_agent: StartAgent
) -> None:
    """Three keys with one CKA_ID and one label: ours finds out which private key is whose."""
    publics = [token.public("p256"), token.add("p256", "second"), token.add("p256", "third")]
    odd = OddModule(odd_built, home, "same-names")
    results = {}
    for name, program in (("ours", {}), ("theirs", {"program": OPENSSH})):
        agent = start_agent(*ANY_PATH, env=odd.env, **program)
        assert agent.add_provider(odd.path, PIN).status == 0, agent.log
        results[name] = [agent.ssh_add("-T", public).status for public in publics]
    assert results["ours"] == [0, 0, 0]
    assert sorted(results["theirs"]) == [0, 1, 1]


def test_one_worker_reads_and_logs_in(home: Home, token: Token, odd_built: Path) -> None:
    odd = OddModule(odd_built, home)
    agent = Agent(REPLUG.with_name("replug-agent"), home, *ANY_PATH, env=odd.env)
    for number in (1, 2):
        assert agent.add_provider(odd.path, PIN).status == 0, agent.log
        assert len(odd.processes) == number
    assert odd.calls["C_Login"] == 2
    # The first was ended when the second was wanted.
    assert odd.calls["C_Logout"] == odd.calls["C_CloseSession"] == odd.calls["C_Finalize"] == 1
    assert agent.stop() == 2
    assert odd.calls["C_Finalize"] == 2


@pytest.mark.parametrize("end", ["forget", "lock", "remove"])
def test_planned_ends_are_orderly(
    end: str, home: Home, token: Token, odd_built: Path, start_agent: StartAgent
) -> None:
    odd = OddModule(odd_built, home)
    agent = start_agent(*ANY_PATH, env=odd.env)
    assert agent.add_provider(odd.path, PIN).status == 0, agent.log
    [worker] = odd.processes
    if end == "forget":
        assert agent.run(REPLUG, "forget").status == 0
    elif end == "lock":
        assert (
            agent.ssh_add("-x", typing=[("Enter lock password: ", "secret"), ("Again: ", "secret")]).status
            == 0
        )
    else:
        assert agent.ssh_add("-e", odd.path).status == 0
    ended(worker)
    assert odd.sequence[-3:] == ["C_Logout", "C_CloseSession", "C_Finalize"]


def ended(process: int) -> None:
    """Waits for the end of a process."""
    eventually(lambda: not Path(f"/proc/{process}").exists(), "the worker's end")


def test_a_key_that_can_never_sign_is_left_out_and_named(
    home: Home, token: Token, odd_built: Path, start_agent: StartAgent
) -> None:
    token.add("ed25519")
    odd = OddModule(odd_built, home, "no-ecdsa")
    agent = start_agent(*ANY_PATH, env=odd.env)
    assert agent.add_provider(odd.path, PIN).status == 0, agent.log
    assert "ED25519" in agent.ssh_add("-l").out
    assert "ECDSA" not in agent.ssh_add("-l").out
    why = "the module has no mechanism for signatures of ecdsa-sha2-nistp256 keys (CKM_ECDSA)"
    assert f"left out a key: {why}" in agent.log
    assert f'left out: key "p256": {why}' in " ".join(agent.run(REPLUG, "status").out.split())


@pytest.mark.parametrize(
    ("habits", "reason"),
    [
        ("broken-login", "the login failed: C_Login: CKR_GENERAL_ERROR (the module gives no reason)"),
        (
            "no-session",
            "failed twice: C_OpenSession: CKR_SESSION_COUNT (the token allows no more sessions). "
            "What to do now: end other programs that use the token.",
        ),
    ],
)
def test_the_reason_is_the_first_error(
    habits: str, reason: str, home: Home, token: Token, odd_built: Path, start_agent: StartAgent
) -> None:
    odd = OddModule(odd_built, home, habits)
    agent = start_agent(*ANY_PATH, env=odd.env)
    assert agent.add_provider(odd.path, PIN).status == 1
    explained = " ".join(agent.run(REPLUG, "explain").out.split())
    assert reason in explained
    assert "no answer" not in explained
    assert "did not answer" not in explained


def test_tracebacks_of_the_library_do_not_reach_the_log(
    home: Home, token: Token, odd_built: Path, start_agent: StartAgent
) -> None:
    odd = OddModule(odd_built, home)
    agent = start_agent(*ANY_PATH, env=odd.env)
    assert agent.add_provider(odd.path, PIN).status == 0, agent.log
    for pid in agent.children():
        os.kill(pid, signal.SIGKILL)
    assert agent.ssh_add("-T", token.public("p256")).status == 0, agent.log
    assert "Traceback" not in agent.log
    assert "Exception ignored" not in agent.log
