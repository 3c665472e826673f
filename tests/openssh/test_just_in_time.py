"""Certificates just in time: ssh logs in at a real sshd that trusts a CA on a token, and no key."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from base64 import b64decode
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from doubles.session_hosts import bind_of
from doubles.stand_ins import Key
from rigs.agent import FAILURE, LIST_REQUEST, Agent, Connection, StartAgent, frame, sign_request
from rigs.askpass import Askpass
from rigs.home import Home
from rigs.softhsm import MODULE, PIN, Token
from rigs.sshd import USER, Server
from rigs.terminal import eventually

from replug.protocol.certificates import Certificate
from replug.protocol.decoding import decode_response
from replug.protocol.keys import fingerprint, is_certificate
from replug.protocol.messages import Extension, IdentitiesAnswer, SignResponse
from replug.protocol.signatures import verify_any

REPLUG = Path(sys.executable).with_name("replug")
IN = f"in {USER}\n"
LOCK = "Enter lock password: "


@pytest.fixture
def ca(home: Home) -> Token:
    """A token with a CA key `p256`."""
    token = Token(home, "ssh_ca")
    token.add("p256")
    return token


@pytest.fixture
def askpass(home: Home) -> Askpass:
    """Who knows the PIN."""
    askpass = Askpass(home)
    askpass.answers(PIN)
    return askpass


@pytest.fixture
def start_agent(start_agent: StartAgent, askpass: Askpass) -> StartAgent:
    """Starts agents that ask by `askpass`."""
    return lambda *options, **more: start_agent(*options, **more, env=askpass.env)


@pytest.fixture
def server(home: Home, ca: Token) -> Server:
    """A server that trusts the CA key, and no key of anybody."""
    return trusting(home, ca.public("p256"))


def trusting(home: Home, *publics: Path, name: str = "host", settings: Sequence[str] = ()) -> Server:
    trusted = home.write(f"{name}.trusted", "".join(public.read_text() for public in publics), 0o644)
    return Server(home, f"TrustedUserCAKeys {trusted}", *settings, name=name)


def print_of(home: Home, public: Path) -> str:
    """The fingerprint of a .pub file, as the configuration has it."""
    return home.run("ssh-keygen", "-lf", public).out.split()[1]


def rule(home: Home, host: Server | Key, *publics: Path, **settings: str) -> str:
    """A `[[certificate]]` by these CA keys for logins as ourselves at one host."""
    keys = ", ".join(f'"{print_of(home, public)}"' for public in publics)
    where = fingerprint(host.blob) if isinstance(host, Key) else print_of(home, host.host_key)
    lines = [
        "[[certificate]]",
        f"ca = [{keys}]",
        f'hosts = ["{where}"]',
        f'principals = ["{USER}"]',
    ]
    return "\n".join([*lines, *(f"{name} = {value}" for name, value in settings.items())])


def configure(home: Home, *tables: str) -> None:
    """The configuration, in which SoftHSM is served."""
    home.configure("\n".join([f'modules = ["{MODULE}"]', *tables]))


def listed(agent: Agent) -> list[str]:
    """The lines of `ssh-add -l`, in order."""
    return [line for line in agent.ssh_add("-l").out.splitlines() if line[:1].isdigit()]


def certificates(agent: Agent) -> list[str]:
    """Those of certificates."""
    return [line for line in listed(agent) if "-CERT)" in line]


def logged(agent: Agent, words: str) -> list[str]:
    """The lines of the agent's log with these words."""
    return [line for line in agent.log.splitlines() if words in line]


def issued(agent: Agent) -> list[str]:
    """A line for each certificate that was made."""
    return logged(agent, "certificate issued")


def rules(agent: Agent) -> list[dict[str, Any]]:
    """What `replug status --json` says of the rules."""
    said: list[dict[str, Any]] = json.loads(agent.run(REPLUG, "status", "--json").out)["certificates"]
    return said


def bound(agent: Agent, host: Key, *, forwarding: bool = False) -> Connection:
    """A connection that ssh would have to this host."""
    connection = agent.connect()
    bind = bind_of(host, b"session", forwarding=forwarding)
    request = Extension("session-bind@openssh.com", bind.encode())
    assert connection.ask(frame(request.encode())) == b"\x06"
    return connection


def blobs(reply: bytes) -> list[bytes]:
    """What was listed."""
    answer = decode_response(reply)
    assert isinstance(answer, IdentitiesAnswer)
    return [listed.key_blob for listed in answer.identities]


def in_there(server: Server, agent: Agent, *options: str | Path) -> bool:
    """Whether ssh logs in."""
    return server.login(agent, *options).out == IN


def test_ssh_logs_in_with_an_empty_authorized_keys(
    home: Home, ca: Token, server: Server, askpass: Askpass, start_agent: StartAgent
) -> None:
    configure(home, rule(home, server, ca.public("p256")))
    agent = start_agent()
    assert [line.rpartition(" ")[2] for line in listed(agent)] == ["(ECDSA)"]

    logins = [server.login(agent) for _ in range(2)]

    assert [(done.status, done.out) for done in logins] == [(0, IN)] * 2, (logins, server.log, agent.log)
    assert len(askpass.questions) == 1
    assert "certificate for a login at " in askpass.text
    (line,) = issued(agent)
    serial = re.search(r" serial=(\d{15}) ", line)
    assert serial is not None
    authority = print_of(home, ca.public("p256"))
    for field in (
        f"principals={USER}",
        "valid_for=600",
        "uid=",
        "key_id=",
        "destination=",
        f"ca={authority}",
    ):
        assert field in line
    assert f"serial {serial[1]}) CA ECDSA {authority}" in server.log
    first, second = listed(agent)
    assert first.endswith(f" serial {serial[1]} (ED25519-CERT)")
    assert second.endswith(" (ECDSA)")
    shown = agent.run(REPLUG, "status").out
    assert f"  serial {serial[1]} for {USER} at " in shown
    assert f'by CA {authority} (token "ssh_ca"' in shown
    # It is on record, with the host.
    (entry,) = (home.folder / ".local/state/replug/issued.jsonl").read_text().splitlines()
    assert json.loads(entry)["serial"] == int(serial[1])
    assert print_of(home, server.host_key) in json.loads(entry)["destination"]


@pytest.mark.parametrize("kind", ["rsa2048", "p384", "p521", "ed25519"])
def test_every_kind_of_ca_key(kind: str, home: Home, ca: Token, start_agent: StartAgent) -> None:
    public = ca.add(kind)
    server = trusting(home, public)
    configure(home, rule(home, server, public))
    agent = start_agent()

    assert in_there(server, agent), (server.log, agent.log)


def test_only_a_login_from_here_has_one_made(
    home: Home, ca: Token, server: Server, start_agent: StartAgent
) -> None:
    """Not ssh-add, not another host, not a forwarded agent, nor what logs in by it."""
    private = ca.add("ed25519", "login")
    outer = trusting(home, name="outer")
    outer.authorize(private)
    configure(home, rule(home, server, ca.public("p256")))
    agent = start_agent()
    beyond = shlex.join(server.ssh(command="true"))

    listed(agent)
    outer_says = outer.login(agent, "-A", command=f"ssh-add -L; {beyond}; ssh-add -L")

    assert issued(agent) == [], agent.log
    assert "ssh-ed25519 " in outer_says.out
    # Where there is one it is neither listed there nor of use, and the CA key is not either.
    assert in_there(server, agent), agent.log
    (line,) = [line for line in agent.ssh_add("-L").out.splitlines() if "-cert-" in line]
    there = outer.login(agent, "-A", command=f"ssh-add -L; {beyond}")
    assert len(there.out.splitlines()) == 1, there
    assert there.out.startswith("ssh-ed25519 ")
    authority = ca.public("p256").read_text().split()[1]
    for known in (line.split()[1], authority):
        asked = bound(agent, Key(), forwarding=True).ask(sign_request(b64decode(known)))
        assert asked == FAILURE
    explained = agent.run(REPLUG, "explain").out
    assert "is not in the agent" in explained
    assert "a CA key signs nothing over a connection that is bound" in explained
    assert len(issued(agent)) == 1


def test_many_at_once_have_one_made(home: Home, ca: Token, start_agent: StartAgent, askpass: Askpass) -> None:
    host = Key()
    configure(home, rule(home, host, ca.public("p256")))
    agent = start_agent()
    connections = [bound(agent, host) for _ in range(64)]

    with ThreadPoolExecutor(64) as clients:
        lists = list(clients.map(lambda connection: blobs(connection.ask(LIST_REQUEST)), connections))

    assert len(issued(agent)) == len(askpass.questions) == 1, agent.log
    first = {keys[0] for keys in lists}
    assert len(first) == 1
    assert Certificate.decode(first.pop()).principals == (USER.encode(),)
    assert {len(keys) for keys in lists} == {1}  # without the CA key
    assert len((home.folder / ".local/state/replug/issued.jsonl").read_text().splitlines()) == 1


def test_a_certificate_that_was_replaced_is_good_to_its_end(
    home: Home, ca: Token, start_agent: StartAgent
) -> None:
    """ssh may sign long after it listed, and plink lists and signs on two connections."""
    host = Key()
    configure(home, rule(home, host, ca.public("p256"), lifetime='"10m"', renew_before='"9m59s"'))
    agent = start_agent()
    old, *_ = blobs(bound(agent, host).ask(LIST_REQUEST))

    def renewed() -> bool:
        return blobs(bound(agent, host).ask(LIST_REQUEST))[0] != old

    eventually(renewed, "a new certificate")
    assert len(certificates(agent)) == 1

    for connection in (bound(agent, host), agent.connect()):
        reply = decode_response(connection.ask(sign_request(old)))
        assert isinstance(reply, SignResponse), agent.log
        verify_any(Certificate.decode(old).key, reply.signature, b"data")


def test_one_that_has_expired_is_gone_and_the_next_login_makes_another(
    home: Home, ca: Token, server: Server, start_agent: StartAgent
) -> None:
    configure(home, rule(home, server, ca.public("p256"), lifetime='"3s"', renew_before='"1s"'))
    agent = start_agent()
    server.login(agent)
    assert len(issued(agent)) == 1

    eventually(lambda: not certificates(agent), "the end of the certificate")
    assert len(issued(agent)) == 1
    (line,) = rules(agent)
    assert (line["serial"], line["failed"]) == (None, "")

    server.login(agent)
    assert len(issued(agent)) == 2


def test_after_a_no_nobody_is_asked_again_at_once(
    home: Home, ca: Token, server: Server, askpass: Askpass, start_agent: StartAgent
) -> None:
    configure(home, rule(home, server, ca.public("p256")))
    agent = start_agent()
    askpass.answers(None)

    logins = [server.login(agent) for _ in range(3)]

    assert [done.status for done in logins] == [255] * 3
    assert len(askpass.questions) == 1
    assert "the PIN prompt was cancelled" in logged(agent, "no certificate")[0]
    assert "the user declined a moment ago" in logged(agent, "no certificate")[1]
    (line,) = rules(agent)
    assert "declined a moment ago" in line["failed"]
    assert "no certificate for a login at" in agent.run(REPLUG, "explain").out


def test_the_first_ca_token_that_is_in(home: Home, start_agent: StartAgent) -> None:
    tokens = [Token(home, label) for label in ("one", "two")]
    publics = [token.add("p256", f"ca-{token.label}") for token in tokens]
    server = trusting(home, *publics)
    configure(home, rule(home, server, *publics))
    folders = {
        token.label: folder
        for token in tokens
        for folder in (home.folder / "tokens").iterdir()
        if any(token.label.encode() in file.read_bytes() for file in folder.glob("token.object"))
    }

    for out, by in (("", 0), ("one", 1), ("two", 0)):
        if out:
            shutil.move(folders[out], home.folder / out)
        agent = start_agent()
        assert in_there(server, agent), (out, server.log, agent.log)
        (line,) = issued(agent)
        assert f"ca={print_of(home, publics[by])} " in line
        if out:
            shutil.move(home.folder / out, folders[out])


def test_without_a_ca_key_ssh_goes_on_with_its_other_keys(
    home: Home, ca: Token, server: Server, start_agent: StartAgent
) -> None:
    other = ca.add("ed25519", "login")
    server.authorize(other)
    gone = home.write("gone.pub", Token(home, "elsewhere").add("p256", "gone").read_text())
    shutil.rmtree(home.folder / "tokens")
    (home.folder / "tokens").mkdir()
    fresh = Token(home, "fresh")
    server.authorize(fresh.add("ed25519", "login"))
    configure(home, rule(home, server, gone))
    agent = start_agent()

    assert in_there(server, agent), agent.log

    (line,) = rules(agent)
    assert line["failed"].startswith("no token that the agent serves has the CA key SHA256:")
    found = agent.run(REPLUG, "doctor", "--json", str(MODULE)).out
    said = [one for one in json.loads(found)["findings"] if one["check"] == "certificate"]
    assert [one["outcome"] for one in said] == ["warn"]


def test_the_rule_of_the_ca_holds(home: Home, ca: Token, server: Server, start_agent: StartAgent) -> None:
    authority = print_of(home, ca.public("p256"))
    policy = f'[[ca]]\nkey = "{authority}"\nmax_validity = "5m"\nprincipals = ["{USER}"]'
    configure(home, policy, rule(home, server, ca.public("p256"), lifetime='"11m"'))
    agent = start_agent()
    assert server.login(agent).status == 255
    (line,) = rules(agent)
    assert line["failed"] == "valid until 660 s from now, more than 300 s", line

    configure(home, policy, rule(home, server, ca.public("p256"), lifetime='"5m"'))
    assert agent.run(REPLUG, "reload").status == 0
    assert in_there(server, agent), agent.log
    assert len(issued(agent)) == 1


def test_what_cannot_be_recorded_is_not_issued(
    home: Home, ca: Token, server: Server, start_agent: StartAgent
) -> None:
    (home.folder / ".local/state/replug/issued.jsonl").mkdir(parents=True)
    configure(home, rule(home, server, ca.public("p256")))
    agent = start_agent()

    assert server.login(agent).status == 255
    (line,) = rules(agent)
    assert line["failed"].startswith("the certificate cannot be recorded (issued.jsonl): ")
    assert certificates(agent) == []


def test_the_lock_and_the_end_of_certificates(
    home: Home, ca: Token, server: Server, start_agent: StartAgent, askpass: Askpass
) -> None:
    configure(home, rule(home, server, ca.public("p256")))
    agent = start_agent()
    assert in_there(server, agent), agent.log

    assert agent.ssh_add("-x", typing=[(LOCK, "sesame"), ("Again: ", "sesame")]).status == 0
    assert server.login(agent).status == 255
    assert rules(agent) == []
    assert agent.ssh_add("-X", typing=[(LOCK, "sesame")]).status == 0
    # The certificate and its key are there again, without a PIN and another signature.
    assert in_there(server, agent), agent.log
    assert (len(issued(agent)), len(askpass.questions)) == (1, 1)

    (line,) = [line for line in agent.ssh_add("-L").out.splitlines() if "-cert-" in line]
    assert agent.ssh_add("-D").status == 0
    assert listed(agent) == []
    blob = home.write("issued-cert.pub", line + "\n")
    assert agent.ssh_add("-T", blob).status != 0


def test_the_end_of_a_rule(home: Home, ca: Token, server: Server, start_agent: StartAgent) -> None:
    kept, host = Key(), ca.public("p256")
    rest = rule(home, kept, host)
    configure(home, rule(home, server, host), rest)
    agent = start_agent()
    assert in_there(server, agent), agent.log
    (line,) = [line for line in agent.ssh_add("-L").out.splitlines() if "-cert-" in line]
    blobs(bound(agent, kept).ask(LIST_REQUEST))
    assert len(certificates(agent)) == 2

    configure(home, rest)
    assert agent.run(REPLUG, "reload").status == 0

    assert len(certificates(agent)) == 1
    assert agent.connect().ask(sign_request(b64decode(line.split()[1]))) == FAILURE
    assert server.login(agent).status == 255
    assert len(issued(agent)) == 2


def test_identities_only_with_a_file(home: Home, ca: Token, server: Server, start_agent: StartAgent) -> None:
    path = home.folder / "replug-cert.pub"
    settings = {"certificate_file": f'"{path}"', "lifetime": '"10m"', "renew_before": '"9m59s"'}
    configure(home, rule(home, server, ca.public("p256"), **settings))
    agent = start_agent()
    # Not -i, which wants the file of a private key.
    only = ("-o", "IdentitiesOnly=yes", "-o", f"IdentityFile={home.folder}/replug")
    assert not in_there(server, agent, *only)
    assert in_there(server, agent), agent.log
    before = path.read_text()

    def by_a_certificate_that_is_replaced_meanwhile() -> bool:
        assert in_there(server, agent, *only), (server.log, agent.log)
        return path.read_text() != before

    eventually(by_a_certificate_that_is_replaced_meanwhile, "another certificate", within=30)
    assert is_certificate(path.read_text().split()[0])
    assert path.stat().st_mode & 0o777 == 0o644
    # The key is listed for this, and not where the agent is forwarded.
    assert [line.rpartition("(")[2] for line in listed(agent)] == ["ED25519-CERT)", "ED25519)", "ECDSA)"]
    there = server.login(agent, "-A", command="ssh-add -l")
    assert "The agent has no identities." in there.out + there.err


def test_what_the_certificate_permits(home: Home, ca: Token, server: Server, start_agent: StartAgent) -> None:
    settings = {"force_command": '"echo forced"', "extensions": "[]", "source_address": '"192.0.2.0/24"'}
    forced = {name: value for name, value in settings.items() if name != "source_address"}
    configure(home, rule(home, server, ca.public("p256"), **forced))
    agent = start_agent()
    assert server.login(agent).out == "forced\n", (server.log, agent.log)
    there = server.login(agent, "-A", "-v")
    assert "Remote: key options: agent-forwarding" not in there.err

    configure(home, rule(home, server, ca.public("p256"), **settings))
    assert agent.run(REPLUG, "reload").status == 0
    assert server.login(agent).status == 255
    assert "not from a permitted source address" in server.log.lower() or "permitted" in server.log


def test_a_key_on_a_token_is_certified(
    home: Home, ca: Token, server: Server, askpass: Askpass, start_agent: StartAgent
) -> None:
    public = ca.add("ed25519", "login")
    configure(home, rule(home, server, ca.public("p256"), key='"login"'))
    agent = start_agent()

    assert in_there(server, agent), (server.log, agent.log)

    (line,) = issued(agent)
    assert f"key={print_of(home, public)} " in line
    assert len(askpass.questions) == 1
    # With its key the certificate goes.
    assert agent.ssh_add("-d", public).status == 0
    assert certificates(agent) == []
    assert server.login(agent).status == 255
    assert "no key of a token that is in is among login" in rules(agent)[0]["failed"]


def test_plink(home: Home, ca: Token, server: Server, start_agent: StartAgent) -> None:
    """It binds to no session: it is listed what there is, and has nothing made."""
    assert shutil.which("plink", path=home.env["PATH"]), "apt-get install putty-tools"
    configure(home, rule(home, server, ca.public("p256")))
    agent = start_agent()
    host = home.run("ssh-keygen", "-lf", server.host_key).out.split()[1]

    def plink() -> str:
        with server.listening() as port:
            return agent.run(
                "plink",
                "-batch",
                "-agent",
                "-hostkey",
                host,
                "-P",
                str(port),
                "-l",
                USER,
                "127.0.0.1",
                "echo in",
            ).out

    assert plink() == ""
    assert issued(agent) == []
    assert in_there(server, agent), agent.log
    assert plink() == "in\n", (server.log, agent.log)
    assert len(issued(agent)) == 1
