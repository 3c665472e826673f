"""`replug doctor`, with a real pcscd that does not run, does not answer, or whose card is taken."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest
from rigs.agent import Agent, StartAgent
from rigs.doctor import Diagnosis
from rigs.home import Home
from rigs.pcscd import OPENSC, READER, Pcscd
from rigs.piv_card import Card
from rigs.refusing_pcscd import refusing_pcscd

WRONG_PIN = "000000"


def test_a_card_that_can_be_used(home: Home, pcscd: Pcscd, card: Card) -> None:
    found = Diagnosis(home)
    assert (found["pcscd"].outcome, found["pcscd"].reason) == ("ok", "answers")
    # The rig's reader has two slots, which pcscd shows as two readers.
    assert found["card"].reason == f"{READER} 00 00: the card answers"
    assert found["reader"].reason.endswith(": no card in it")
    assert card.verifies == 0


def test_pcscd_has_never_run(home: Home) -> None:
    missing = str(home.folder / "pcscd.comm")
    found = Diagnosis(home, env={"PCSCLITE_CSOCK_NAME": missing})["pcscd"]
    assert (found.outcome, found.reason) == ("fail", f"pcscd is not running: its socket {missing} is missing")
    assert "pcscd" in found.fix


def test_pcscd_is_not_installed(home: Home) -> None:
    found = Diagnosis(home, env={"PCSCLITE_CSOCK_NAME": "/nowhere", "PATH": "/nowhere"})
    # /usr/sbin is looked at in any case: there it is, as tests/prepare installs it.
    assert "not running" in found["pcscd"].reason


def test_pcscd_was_killed(home: Home, pcscd: Pcscd) -> None:
    pcscd.stop(signal.SIGKILL)
    found = Diagnosis(home)["pcscd"]
    assert (found.outcome, found.reason) == (
        "fail",
        f"pcscd is not running: no process listens at {pcscd.socket}",
    )


def test_pcscd_does_not_answer(home: Home, pcscd: Pcscd) -> None:
    with pcscd.stopped():
        found = Diagnosis(home)["pcscd"]
    assert (found.outcome, found.reason) == ("fail", "pcscd accepts a connection but does not answer")


@pytest.mark.parametrize("over_ssh", [False, True])
def test_polkit_refuses(home: Home, over_ssh: bool) -> None:
    env = {"SSH_CONNECTION": "192.0.2.1 1 192.0.2.2 22"} if over_ssh else {}
    path = home.folder / "pcscd.comm"
    home.env["PCSCLITE_CSOCK_NAME"] = str(path)
    with refusing_pcscd(path):
        found = Diagnosis(home, env=env)["pcscd"]
    assert found.outcome == "fail"
    assert "polkit denies this shell access to pcscd" in found.reason
    assert ("over ssh" in found.reason) is over_ssh
    assert "/etc/polkit-1/rules.d/" in found.fix


def test_another_program_has_the_card_for_itself(home: Home, pcscd: Pcscd, card: Card) -> None:
    with pcscd.held_by_another() as holder:
        found = Diagnosis(home)["card"]
        assert found.outcome == "fail"
        assert "another program has exclusive access" in found.reason
        assert f"(pid {holder})" in found.reason
    assert Diagnosis(home)["card"].outcome == "ok"


def test_scdaemon_has_the_card(home: Home, pcscd: Pcscd, card: Card) -> None:
    gnupg = home.folder / "gnupg"
    gnupg.mkdir(mode=0o700)
    scdaemon = subprocess.check_output(["gpgconf", "--list-dirs", "libexecdir"], text=True).strip()
    with subprocess.Popen(
        [f"{scdaemon}/scdaemon", "--homedir", gnupg, "--disable-ccid", "--multi-server"],
        env=home.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        assert process.stdin
        assert process.stdout
        process.stdin.write("SERIALNO undefined\n")
        process.stdin.flush()
        said = []
        for line in process.stdout:
            said.append(line)
            if line.startswith(("OK", "ERR")) and "Pleased" not in line and "ready" not in line:
                break
        found = Diagnosis(home)["card"]
        process.kill()
    assert found.outcome == "fail", said
    assert f"scdaemon (pid {process.pid})" in found.reason
    assert found.fix.endswith("gpgconf --kill scdaemon")


@pytest.mark.parametrize(
    ("wrong", "outcome", "words"), [(2, "fail", "one PIN try is left"), (3, "fail", "the PIN is locked")]
)
def test_a_pin_with_few_tries(
    home: Home, pcscd: Pcscd, card: Card, start_agent: StartAgent, wrong: int, outcome: str, words: str
) -> None:
    for _ in range(wrong):
        pcscd.send_pin(WRONG_PIN)
    agent = start_agent()
    add_without_pin(agent)
    before = card.verifies
    found = Diagnosis(home, env=agent.env)["token"]
    assert found.outcome == outcome
    assert words in found.reason
    assert card.verifies == before == wrong


def add_without_pin(agent: Agent) -> None:
    assert agent.add_provider(OPENSC, "").status == 0, agent.log


def test_what_a_wrong_pin_did_is_shown_without_asking_the_card(
    home: Home, pcscd: Pcscd, card: Card, start_agent: StartAgent
) -> None:
    agent = start_agent()
    add_without_pin(agent)
    assert Diagnosis(home, env=agent.env)["token"].outcome == "ok"
    assert card.verifies == 0


def test_a_card_without_keys(home: Home, start_agent: StartAgent, pcscd: Pcscd, module: Path) -> None:
    """As it comes from the factory: it is in, so nobody is told to plug it in."""
    home.configure(f'modules = ["{module}"]')
    pcscd.slot.insert(Card(keys={}))
    pcscd.await_present()
    agent = start_agent()
    assert agent.ssh_add("-l").status == 1

    found = Diagnosis(home, env=agent.env)
    assert found["keys"].fix == "make one on the token: see the findings on it below"
    assert found["token"].outcome == "warn"
    assert found["token"].reason.endswith("it holds no keys for ssh yet")
    assert "ykman piv keys generate" in found["token"].fix
    assert found["token"].fix.endswith("; replug refresh")
