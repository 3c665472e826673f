"""FIDO keys (sk-): added, used, certified, constrained, locked; with PIN and touch, and helpers that fail."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

import pytest
from rigs.agent import Agent, StartAgent
from rigs.askpass import Askpass
from rigs.compared import Agents, compare_exactly
from rigs.home import Home
from rigs.key_files import certify, make_key, public_of
from rigs.security_keys import (
    KINDS,
    PIN,
    SK_DUMMY,
    Authenticator,
    add,
    answer_of,
    helper_that,
    make_sk_key,
)
from rigs.sshd import USER, Server, only
from rigs.terminal import Done, eventually

REPLUG = Path(sys.executable).with_name("replug")


@pytest.fixture
def authenticator(home: Home) -> Authenticator:
    return Authenticator(home)


@pytest.fixture
def key(home: Home) -> Path:
    return make_sk_key(home, "id_sk")


@pytest.fixture
def pin_agent(start_agent: StartAgent, authenticator: Authenticator, askpass: Askpass) -> Agent:
    """The agent under test, allowed to load the library that wants a PIN, and to ask for it."""
    authenticator.has("pin", PIN)
    return start_agent("-P", "*", env=askpass.env)


def use(agent: Agent, key: Path) -> Done:
    """One signature."""
    return agent.ssh_add("-T", public_of(key))


def explained(agent: Agent) -> str:
    return " ".join(agent.run(REPLUG, "explain").out.split())


def test_add_list_test_and_remove(agents: Agents, home: Home) -> None:
    ca = make_key(home, "ca")
    keys = [make_sk_key(home, f"id_{kind}", kind) for kind in KINDS]
    for key in keys:
        certify(home, ca, public_of(key), "-n", USER)

    def session(agent: Agent) -> list[Done]:
        return [
            agent.ssh_add("-S", SK_DUMMY, *keys),
            agent.ssh_add("-l"),
            agent.ssh_add("-L"),
            agent.ssh_add("-T", *map(public_of, keys)),
            agent.ssh_add("-d", keys[0]),
            agent.ssh_add("-l"),
            agent.ssh_add("-D"),
            agent.ssh_add("-l"),
        ]

    said = compare_exactly(agents, session)

    assert [done.status for done in said] == [0, 0, 0, 0, 0, 0, 0, 1]
    assert [line.rpartition(" ")[2] for line in said[1].out.splitlines()] == [
        "(ED25519-SK)",
        "(ED25519-SK-CERT)",
        "(ECDSA-SK)",
        "(ECDSA-SK-CERT)",
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_and_its_certificate_log_in_and_sign(kind: str, agent: Agent, home: Home) -> None:
    ca, key = make_key(home, "ca"), make_sk_key(home, "id_sk", kind)
    server = Server(home, name="host")
    server.authorize(public_of(key))
    trusting = Server(home, f"TrustedUserCAKeys {public_of(ca)}", "AuthorizedKeysFile none", name="trusting")
    certificate = certify(home, ca, public_of(key), "-n", USER)
    assert add(agent, key).status == 0, agent.log
    key.unlink()

    logins = [server.login(agent, *only(public_of(key))), trusting.login(agent, *only(certificate))]
    signed = agent.run("ssh-keygen", "-Y", "sign", "-n", "file", "-f", public_of(key), text="hello")

    assert [(done.status, done.out) for done in logins] == [(0, f"in {USER}\n")] * 2, (logins, agent.log)
    assert "BEGIN SSH SIGNATURE" in signed.out, (signed, agent.log)
    home.write("signature", signed.out)
    checked = home.run(
        "ssh-keygen", "-Y", "check-novalidate", "-n", "file", "-s", home.folder / "signature", text="hello"
    )
    assert checked.status == 0, checked
    assert f'token="security key ({SK_DUMMY})"' in agent.log


def test_constraints_hold(start_agent: StartAgent, askpass: Askpass, home: Home, key: Path) -> None:
    """A confirmation, a lifetime, a destination."""
    agent = start_agent(env=askpass.env)
    askpass.answers(None)
    assert add(agent, key, SK_DUMMY, "-c").status == 0
    assert use(agent, key).status == 1
    askpass.answers("yes")
    assert use(agent, key).status == 0, agent.log

    assert add(agent, key, SK_DUMMY, "-t", "1").status == 0
    eventually(lambda: agent.ssh_add("-l").status == 1, "the end of its lifetime")

    server, other = Server(home, name="host"), Server(home, name="other")
    for one in (server, other):
        one.authorize(public_of(key))
    # A host without an address: ssh-add looks up its key only.
    assert add(agent, key, SK_DUMMY, "-H", str(server.known_hosts), "-h", "host").status == 0, agent.log
    key.unlink()
    assert server.login(agent, *only(public_of(key))).out == f"in {USER}\n", agent.log
    assert other.login(agent, *only(public_of(key))).status == 255
    assert use(agent, key).status == 1


def test_a_locked_agent_has_it_again_when_it_is_unlocked(agent: Agent, key: Path) -> None:
    assert add(agent, key).status == 0
    lock = [("Enter lock password: ", "secret"), ("Again: ", "secret")]
    assert agent.ssh_add("-x", typing=lock).status == 0, agent.log

    assert agent.ssh_add("-l").lines == ["The agent has no identities."]
    assert use(agent, key).status == 1

    assert agent.ssh_add("-X", typing=lock[:1]).status == 0
    assert use(agent, key).status == 0, agent.log


def test_to_lock_ends_the_wait_for_a_touch(pin_agent: Agent, authenticator: Authenticator, key: Path) -> None:
    """And so does the client that goes; the listing never waits."""
    authenticator.has_no("pin")
    authenticator.has("untouched")
    assert add(pin_agent, key, authenticator.library).status == 0, pin_agent.log
    done: list[Done] = []
    waiting = threading.Thread(target=lambda: done.append(use(pin_agent, key)))
    waiting.start()
    eventually(lambda: authenticator.calls == ["none"], "the wait for a touch")
    assert pin_agent.ssh_add("-l").status == 0

    lock = [("Enter lock password: ", "secret"), ("Again: ", "secret")]
    assert pin_agent.ssh_add("-x", typing=lock).status == 0, pin_agent.log

    waiting.join(20)
    assert [one.status for one in done] == [1]
    assert "security key" in pin_agent.log
    assert "the agent was locked meanwhile" in pin_agent.log


def test_a_touch_that_does_not_come(
    home: Home, start_agent: StartAgent, authenticator: Authenticator, key: Path
) -> None:
    home.configure("modules = []\ntouch_timeout = '1s'")
    agent = start_agent("-P", "*")
    authenticator.has("untouched")
    assert add(agent, key, authenticator.library).status == 0, agent.log

    assert use(agent, key).status == 1
    assert "it was not touched within 1 s. What to do now: touch it when it blinks" in explained(agent)

    authenticator.has_no("untouched")
    assert use(agent, key).status == 0, agent.log


def test_the_pin_is_asked_for_once(
    pin_agent: Agent, authenticator: Authenticator, askpass: Askpass, key: Path
) -> None:
    assert add(pin_agent, key, authenticator.library).status == 0, pin_agent.log
    askpass.answers(PIN)

    assert [use(pin_agent, key).status for _ in range(2)] == [0, 0], pin_agent.log

    assert authenticator.calls == ["none", PIN, PIN]
    assert len(askpass.questions) == 1
    assert askpass.questions[0].startswith(f"PIN for security key ({authenticator.library}")
    assert "to use the key id_sk" in askpass.text
    assert json.loads(pin_agent.run(REPLUG, "status", "--json").out)["security_keys"][0]["pin_remembered"]
    assert PIN not in pin_agent.log

    assert pin_agent.run(REPLUG, "forget").status == 0
    askpass.answers(None)
    assert use(pin_agent, key).status == 1
    assert authenticator.calls == ["none", PIN, PIN, "none"]


def test_a_wrong_pin_is_sent_once_and_a_third_never(
    pin_agent: Agent, authenticator: Authenticator, askpass: Askpass, key: Path
) -> None:
    assert add(pin_agent, key, authenticator.library).status == 0, pin_agent.log
    for wrong in ("1111", "2222"):
        askpass.answers(wrong)
        assert use(pin_agent, key).status == 1
    assert authenticator.calls == ["none", "1111", "none", "2222"]
    assert "the PIN is wrong" in explained(pin_agent)

    askpass.answers(PIN)
    assert use(pin_agent, key).status == 1
    assert authenticator.calls == ["none", "1111", "none", "2222", "none"]
    assert "2 wrong PINs were sent, and a third is not. What to do now: take it out" in explained(pin_agent)

    assert add(pin_agent, key, authenticator.library).status == 0
    assert use(pin_agent, key).status == 0, pin_agent.log


def test_a_remembered_pin_that_is_wrong_now_is_forgotten(
    pin_agent: Agent, authenticator: Authenticator, askpass: Askpass, key: Path
) -> None:
    assert add(pin_agent, key, authenticator.library).status == 0, pin_agent.log
    askpass.answers(PIN)
    assert use(pin_agent, key).status == 0, pin_agent.log
    authenticator.has("pin", "1357")
    askpass.answers("1357")

    assert use(pin_agent, key).status == 0, pin_agent.log

    assert authenticator.calls == ["none", PIN, PIN, "1357"]
    assert "The PIN remembered until now was rejected." in askpass.text


def test_an_authenticator_that_is_out(pin_agent: Agent, authenticator: Authenticator, key: Path) -> None:
    assert add(pin_agent, key, authenticator.library).status == 0, pin_agent.log
    authenticator.has("out")

    assert use(pin_agent, key).status == 1
    assert "no security key that has this key is plugged in" in explained(pin_agent)


def test_openssh_s_own_library_without_an_authenticator(agent: Agent, key: Path) -> None:
    assert add(agent, key, "internal").status == 0, agent.log

    assert use(agent, key).status == 1

    assert "no security key that has this key is plugged in" in explained(agent)
    assert "by internal" in agent.run(REPLUG, "status").out


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        ("kill -9 $$", "ssh-sk-helper gave no answer: it was ended by SIGKILL"),
        ("echo broken pipes >&2; exit 3", 'it ended with status 3 ("broken pipes")'),
        (f"{answer_of(6)}; sleep 1", "ssh-sk-helper speaks version 6 of its protocol, not 5"),
        (f"{answer_of(5, 0, 0, 0, 0, 0, 0, 0, 59)}; sleep 1", "it cannot make this signature"),
        (f"{answer_of(5, 0, 0, 0, 1, 0, 0, 0, 1, 7)}; sleep 1", "its signature is wrong"),
        ("exec sleep 600", "it was not touched within 1 s"),
    ],
)
def test_a_helper_that_fails(does: str, reason: str, home: Home, start_agent: StartAgent, key: Path) -> None:
    home.configure("modules = []\ntouch_timeout = '1s'")
    agent = start_agent(env=helper_that(home, does))
    assert add(agent, key).status == 0, agent.log

    assert use(agent, key).status == 1

    assert reason in explained(agent), agent.log
    assert agent.alive()
    eventually(lambda: not _helpers(agent), "the helper's end")


def _helpers(agent: Agent) -> list[int]:
    return [pid for pid in agent.children() if b"s\0" in _command(pid) and b"sleep" in _command(pid)]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_a_helper_that_is_missing(home: Home, start_agent: StartAgent, key: Path) -> None:
    agent = start_agent(env={"SSH_SK_HELPER": "/nowhere/ssh-sk-helper"})
    assert add(agent, key).status == 0, agent.log

    assert use(agent, key).status == 1

    assert (
        "ssh-sk-helper was not found (/nowhere/ssh-sk-helper, by SSH_SK_HELPER). What to do now: install "
        "OpenSSH's client, or set SSH_SK_HELPER" in explained(agent)
    )


def test_a_library_outside_the_list_is_refused(
    agents: Agents, authenticator: Authenticator, key: Path
) -> None:
    said = compare_exactly(
        agents, lambda agent: [add(agent, key, authenticator.library), agent.ssh_add("-l")]
    )

    assert [done.status for done in said] == [1, 1]
    assert "sk_touch.so is not in the list of allowed modules" in explained(agents[0])


def test_a_forwarded_connection_may_not_name_a_library(agent: Agent, home: Home, key: Path) -> None:
    login = make_key(home, "login")
    server = Server(home)
    server.authorize(public_of(login))
    assert agent.ssh_add(login).status == 0

    def add_there(provider: Path | str) -> Done:
        return server.login(agent, "-A", *only(public_of(login)), command=f"ssh-add -S {provider} {key}")

    assert add_there(SK_DUMMY).status == 1
    assert "a forwarded connection may not name a library for security keys" in explained(agent)
    assert add_there("internal").status == 0, agent.log


def test_a_key_of_a_web_site_signs_nothing_else(start_agent: StartAgent, home: Home) -> None:
    web = make_sk_key(home, "web", "ecdsa-sk", "-O", "application=ssh:web")
    # ssh-keygen makes none that does not begin with "ssh:", so the rule is made narrower.
    server = Server(home)
    server.authorize(public_of(web))
    agent = start_agent("-O", "websafe-allow=ssh:mine")
    assert add(agent, web).status == 0, agent.log

    assert use(agent, web).status == 1
    assert "signs logins and SSHSIG only" in explained(agent)
    assert server.login(agent, *only(public_of(web))).out == f"in {USER}\n", agent.log
    signed = agent.run("ssh-keygen", "-Y", "sign", "-n", "file", "-f", public_of(web), text="hello")
    assert signed.status == 0, signed

    free = start_agent("-O", "websafe-allow=ssh:mine", "-O", "no-restrict-websafe")
    assert add(free, web).status == 0
    assert use(free, web).status == 0, free.log
