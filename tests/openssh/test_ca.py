"""CA keys on a token, under a `[[ca]]`: the real ssh-keygen, ssh, and an sshd that trusts the CA."""

from __future__ import annotations

import json
import re
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rigs.agent import Agent, StartAgent
from rigs.home import Home
from rigs.key_files import make_key, public_of
from rigs.softhsm import Token
from rigs.sshd import USER, Server, only
from rigs.terminal import Done

REPLUG = Path(sys.executable).with_name("replug")
RULE = """
[[ca]]
key = "{key}"
max_validity = "10m"
principals = {principals}
"""


def fingerprint_of(home: Home, public: Path) -> str:
    return home.run("ssh-keygen", "-l", "-f", public).out.split()[1]


def rule(home: Home, ca: Path, *principals: str, more: str = "") -> str:
    return RULE.format(key=fingerprint_of(home, ca), principals=json.dumps(principals)) + more


StartCa = Callable[..., Agent]


@pytest.fixture
def start_ca(start_agent: StartAgent, home: Home, token: Token) -> StartCa:
    """`start_ca(rule, ...)`: an agent with the token's keys and these rules."""

    def start(*rules: str) -> Agent:
        home.configure("\n".join(["modules = []", *rules]))
        agent = start_agent()
        done = agent.add_provider(token.module, token.pin)
        assert done.status == 0, (done, agent.log)
        return agent

    return start


@pytest.fixture
def user_key(home: Home) -> Path:
    return make_key(home, "user")


def certify(agent: Agent, ca: Path, public: Path, *options: str) -> Done:
    """What ssh-keygen says; the certificate is there if it is content."""
    return agent.run("ssh-keygen", "-q", "-U", "-s", ca, "-I", "id", *options, public)


def certificate_of(key: Path) -> Path:
    return key.with_name(f"{key.name}-cert.pub")


def ca_server(home: Home, ca: Path, *settings: str, name: str = "host") -> Server:
    return Server(home, f"TrustedUserCAKeys {ca}", "AuthorizedKeysFile none", *settings, name=name)


def login(server: Server, agent: Agent, key: Path) -> Done:
    return server.login(agent, "-i", key, "-o", "IdentitiesOnly=yes")


def explained(agent: Agent) -> str:
    return " ".join(agent.run(REPLUG, "explain", "-n", "1").out.split())


@pytest.mark.parametrize("kind", ["rsa2048", "p256", "p384", "ed25519"])
def test_a_certificate_within_the_rule_logs_in(
    kind: str, start_ca: StartCa, token: Token, home: Home, user_key: Path
) -> None:
    ca = token.public(kind)
    agent = start_ca(rule(home, ca, USER))

    done = certify(agent, ca, public_of(user_key), "-n", USER, "-V", "+10m", "-z", "7")

    assert done.status == 0, (done, agent.log)
    server = ca_server(home, ca)
    done = login(server, agent, user_key)
    assert (done.status, done.out) == (0, f"in {USER}\n"), (done, server.log)
    assert f"certificate issued key={fingerprint_of(home, public_of(user_key))}" in agent.log


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("-n", "alice", "-V", "+10m"), rf"principal 'alice' is not allowed for user {USER}"),
        (("-n", "root,alice", "-V", "+10m"), rf"principal 'alice' is not allowed for user {USER}"),
        (("-V", "+10m"), "a certificate without principals is good for every user"),
        (("-n", "root"), "a certificate without an end is not allowed"),
        (("-n", "root", "-V", "+1w"), r"valid until 6047\d\d|604800 s from now, more than 600 s"),
        (("-n", "root", "-V", "+1h:+70m"), r"valid until 4\d\d\d s from now, more than 600 s"),
        (("-n", "root", "-V", "+10m", "-h"), "a host certificate is not allowed"),
        (
            ("-n", "root", "-V", "+10m", "-O", "extension:foo@example.com"),
            "extension 'foo@example.com' is not allowed",
        ),
        (("-n", "root", "-V", "+10m", "-O", "critical:foo"), "critical option 'foo' is unknown"),
    ],
)
def test_what_the_rule_forbids_is_explained(
    options: tuple[str, ...], reason: str, start_ca: StartCa, token: Token, home: Home, user_key: Path
) -> None:
    ca = token.public("p256")
    agent = start_ca(rule(home, ca, "root", "{user}@web"))

    done = certify(agent, ca, public_of(user_key), *options)

    assert done.status != 0
    assert not certificate_of(user_key).exists()
    assert re.search(f"The agent refused: .*{reason}", explained(agent)), explained(agent)
    assert re.search(reason, agent.log)
    shown = " ".join(agent.run(REPLUG, "status").out.split())
    assert re.search(reason, shown), shown


@pytest.mark.parametrize(
    "options",
    [
        ("-n", f"root,{USER}@web", "-V", "always:+10m"),
        ("-n", "root", "-V", "+10m", "-O", "clear", "-O", "permit-pty"),
        ("-n", "root", "-V", "+10m", "-O", "force-command=true", "-O", "source-address=127.0.0.1/32"),
    ],
)
def test_what_it_allows(
    options: tuple[str, ...], start_ca: StartCa, token: Token, home: Home, user_key: Path
) -> None:
    ca = token.public("p256")
    agent = start_ca(rule(home, ca, "root", "{user}@web"))
    assert certify(agent, ca, public_of(user_key), *options).status == 0, agent.log


def test_what_is_required_is_in_force(start_ca: StartCa, token: Token, home: Home, user_key: Path) -> None:
    """And sshd does what the certificate says."""
    ca = token.public("p256")
    agent = start_ca(rule(home, ca, USER, more='required_options = ["force-command"]\n'))
    options = ("-n", USER, "-V", "+10m")

    assert certify(agent, ca, public_of(user_key), *options).status != 0
    assert "critical option 'force-command' is missing, and required" in explained(agent)

    assert certify(agent, ca, public_of(user_key), *options, "-O", "force-command=echo forced").status == 0
    assert login(ca_server(home, ca), agent, user_key).out == "forced\n"


def test_the_ca_key_logs_in_nowhere_and_signs_no_files(start_ca: StartCa, token: Token, home: Home) -> None:
    """The server would have it: it is in its authorized_keys."""
    ca = token.public("p256")
    agent = start_ca(rule(home, ca, "root"))
    server = Server(home)
    server.authorize(ca)

    assert server.login(agent, *only(ca)).status == 255
    home.write("file", "text\n")
    signed = agent.run("ssh-keygen", "-Y", "sign", "-n", "file", "-f", ca, home.folder / "file")
    assert signed.status != 0
    assert not (home.folder / "file.sig").exists()
    assert f"key {fingerprint_of(home, ca)} is a CA key: it signs certificates and nothing else" in explained(
        agent
    )
    # The token's other keys are as they were.
    server.authorize(token.public("p384"))
    assert server.login(agent).status == 0, server.log


def test_a_login_does_not_even_list_it(start_ca: StartCa, token: Token, home: Home) -> None:
    ca = token.public("p256")
    agent = start_ca(rule(home, ca, "root"))
    server = Server(home)
    server.authorize(token.public("ed25519"))
    assert fingerprint_of(home, ca) in agent.ssh_add("-l").out

    done = server.login(agent, "-A", command="ssh-add -l")

    assert done.status == 0, server.log
    assert len(done.out.splitlines()) == 5
    assert fingerprint_of(home, ca) not in done.out


# replug ca


def test_trust_is_what_sshd_reads(start_ca: StartCa, token: Token, home: Home, user_key: Path) -> None:
    first, second, hosts = token.public("p256"), token.public("ed25519"), token.public("p384")
    agent = start_ca(
        rule(home, first, USER), rule(home, second, USER), rule(home, hosts, "*", more='types = ["host"]\n')
    )

    done = agent.run(REPLUG, "ca", "trust")

    assert done.status == 0, done
    lines = done.out.splitlines()
    expected = [public.read_text().split()[:2] for public in (first, second)]
    assert [line.split()[:2] for line in lines] == expected
    assert all('token "work"' in line for line in lines)
    (line,) = agent.run(REPLUG, "ca", "trust", "--host").out.splitlines()
    assert line.split()[:4] == ["@cert-authority", "*", *hosts.read_text().split()[:2]]
    # The file as it is, and a certificate by the second.
    server = ca_server(home, home.write("trusted", done.out, 0o644))
    assert certify(agent, second, public_of(user_key), "-n", USER, "-V", "+10m").status == 0
    assert login(server, agent, user_key).status == 0, server.log


def test_a_host_ca_certifies_hosts(start_ca: StartCa, token: Token, home: Home) -> None:
    """ssh believes the line that `trust --host` prints."""
    ca = token.public("ed25519")
    agent = start_ca(rule(home, ca, "host", more='types = ["host"]\n'))
    host_key = home.folder / "host.key.pub"
    certificate = home.folder / "host.key-cert.pub"
    server = Server(home, f"HostCertificate {certificate}")
    server.authorize(token.public("p256"))

    done = agent.run(REPLUG, "ca", "issue", "--host", "-n", "host", host_key)
    assert done.status == 0, (done, agent.log)
    server.known_hosts.write_text(agent.run(REPLUG, "ca", "trust", "--host").out)

    done = server.login(agent, "-o", "StrictHostKeyChecking=yes")
    assert done.status == 0, (done, server.log)


def test_issue_logs_in_with_the_rules_defaults(
    start_ca: StartCa, token: Token, home: Home, user_key: Path
) -> None:
    ca = token.public("p384")
    agent = start_ca(rule(home, token.public("p256"), "somebody"), rule(home, ca, USER))
    before = int(time.strftime("%y%m%d%H%M%S000", time.gmtime()))

    # The first rule is for somebody else.
    done = agent.run(REPLUG, "ca", "issue", "-n", USER, public_of(user_key))

    assert done.status == 0, (done, agent.log)
    assert done.out.startswith(f"{certificate_of(user_key)}: {USER}@")
    shown = home.run("ssh-keygen", "-L", "-f", certificate_of(user_key)).out
    assert fingerprint_of(home, ca) in shown
    serial = int(re.findall(r"Serial: (\d+)", shown)[0])
    assert before <= serial < before * 2
    assert login(ca_server(home, ca), agent, user_key).status == 0
    assert login(ca_server(home, token.public("p256"), name="other"), agent, user_key).status == 255


def test_issue_says_why_the_agent_refused(
    start_ca: StartCa, token: Token, home: Home, user_key: Path
) -> None:
    agent = start_ca(rule(home, token.public("p256"), "root", "web"))

    def issue(*options: str) -> Done:
        return agent.run(REPLUG, "ca", "issue", *options, public_of(user_key))

    done = issue("-n", "root", "-V", "+1h")
    assert (done.status, done.out) == (1, "")
    assert re.search(r"^replug: the agent refused: valid until 3\d\d\d s from now, more than 600 s", done.err)
    assert issue().err == "replug: for whom is the certificate? -n root or web\n"
    assert "principal 'alice' is not allowed" in issue("-n", "alice").err
    assert "a host certificate is not allowed" in issue("-n", "root", "--host").err
    assert "no [[ca]] of config.toml is for SHA256:x" in issue("--ca", "SHA256:x").err
    assert not certificate_of(user_key).exists()
    missing = agent.run(REPLUG, "ca", "issue", "-n", "root", home.folder / "missing.pub")
    assert missing.status == 1
    assert "No such file" in missing.err


def test_without_a_rule_there_is_nothing_to_issue(
    start_ca: StartCa, token: Token, home: Home, user_key: Path
) -> None:
    agent = start_ca()
    done = agent.run(REPLUG, "ca", "trust")
    assert (done.status, done.out) == (1, "")
    assert "no [[ca]] of config.toml is for user certificates" in done.err
    assert (
        "no [[ca]] of config.toml is for any key" in agent.run(REPLUG, "ca", "issue", public_of(user_key)).err
    )
    assert agent.run(REPLUG, "ca", "issued").out == "No certificate is on record.\n"


def test_a_ca_key_whose_token_is_not_there(start_agent: StartAgent, home: Home, token: Token) -> None:
    home.configure("modules = []" + rule(home, token.public("p256"), "root"))
    agent = start_agent()
    done = agent.run(REPLUG, "ca", "trust")
    assert (done.status, done.out) == (1, "")
    assert "on no token that the agent has seen" in done.err
    done = agent.run(REPLUG, "ca", "issue", token.public("p384"))
    assert done.err.endswith("is in no slot; plug it in\n")


def test_issued_lists_what_was_issued(start_ca: StartCa, token: Token, home: Home, user_key: Path) -> None:
    ca = token.public("p256")
    agent = start_ca(rule(home, ca, "root"))
    assert certify(agent, ca, public_of(user_key), "-n", "root", "-V", "+10m", "-z", "7").status == 0
    assert agent.run(REPLUG, "ca", "issue", "-I", "me\x1b[31m", "-z", "8", public_of(user_key)).status == 0

    lines = agent.run(REPLUG, "ca", "issued").out.splitlines()

    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d id root serial 7 until (\d{4}-\d\d-\d\d )?\d\d:\d\d"
        r" by ssh-keygen \(pid \d+\)",
        lines[0],
    )
    assert "\x1b" not in lines[1]
    assert " serial 8 " in lines[1]
    assert agent.run(REPLUG, "ca", "issued", "--user", USER).out.splitlines() == lines
    assert agent.run(REPLUG, "ca", "issued", "--user", "bob").out == (
        "No certificate that bob asked for is on record.\n"
    )
    first, second = map(json.loads, agent.run(REPLUG, "ca", "issued", "--json").out.splitlines())
    assert (first["serial"], first["principals"], first["user"]) == (7, ["root"], USER)
    assert second["ca"] == fingerprint_of(home, ca)
    journal = home.folder / ".local/state/replug/issued.jsonl"
    assert stat.S_IMODE(journal.stat().st_mode) == 0o600


@pytest.mark.parametrize("how", ["key id", "serial", "fingerprint"])
def test_revoke_locks_out(how: str, start_ca: StartCa, token: Token, home: Home, user_key: Path) -> None:
    """At a real sshd with RevokedKeys; others get in as before."""
    ca, other = token.public("p256"), make_key(home, "other")
    agent = start_ca(rule(home, ca, USER), rule(home, token.public("ed25519"), USER))
    krl = home.write("revoked", "", 0o644)
    server = ca_server(home, ca, f"RevokedKeys {krl}")
    for key, key_id, serial in ((user_key, "alice@here", "7"), (other, "bob@here", "8")):
        done = agent.run(
            REPLUG, "ca", "issue", "-n", USER, "-I", key_id, "-z", serial, public_of(key),
        )  # fmt: skip
        assert done.status == 0, (done, agent.log)
        assert login(server, agent, key).status == 0, server.log
    krl.unlink()

    names = {"key id": "alice@here", "serial": "7", "fingerprint": fingerprint_of(home, public_of(user_key))}
    done = agent.run(REPLUG, "ca", "revoke", names[how], "--krl", krl)

    assert done.status == 0, done
    assert "(1 on record) is revoked" in done.out
    assert stat.S_IMODE(krl.stat().st_mode) == 0o644
    assert login(server, agent, user_key).status == 255
    assert "revoked by file" in server.log
    assert login(server, agent, other).status == 0, server.log
    assert home.run("ssh-keygen", "-Q", "-f", krl, certificate_of(user_key)).status == 1
    # What was revoked stays so when more is.
    assert agent.run(REPLUG, "ca", "revoke", "8", "--krl", krl).status == 0
    assert login(server, agent, user_key).status == login(server, agent, other).status == 255


def test_revoke_without_agent_and_token(start_ca: StartCa, token: Token, home: Home, user_key: Path) -> None:
    """The record is enough: this finds no agent."""
    ca = token.public("rsa2048")
    agent = start_ca(rule(home, ca, USER))
    assert agent.run(REPLUG, "ca", "issue", public_of(user_key)).status == 0, agent.log

    done = home.run(REPLUG, "ca", "revoke", f"{USER}@{home.run('hostname').out.strip()}")

    assert done.status == 0, done
    krl = home.folder / ".local/state/replug/revoked.krl"
    assert done.out.startswith(f"{krl}: id:{USER}@")
    assert home.run("ssh-keygen", "-Q", "-f", krl, certificate_of(user_key)).status == 1


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a #b", "cannot be written in a revocation list"),
        ("#a", "cannot be written in a revocation list"),
        ("a\nserial: 1-99", "cannot be written in a revocation list"),
        (" a", "cannot be written in a revocation list"),
        ("", "cannot be written in a revocation list"),
        ("0", "is no serial number that can be revoked"),
        (str(2**64), "is no serial number that can be revoked"),
        ("a\udcff", "cannot be written in a revocation list"),
        ("7", "serial 7 is one of several CA keys: say which with --ca"),
    ],
)
def test_what_cannot_be_revoked(name: str, reason: str, start_ca: StartCa, token: Token, home: Home) -> None:
    agent = start_ca(rule(home, token.public("p256"), USER), rule(home, token.public("ed25519"), USER))
    done = agent.run(REPLUG, "ca", "revoke", "--", name)
    assert (done.status, done.out) == (1, "")
    assert reason in done.err
    assert not (home.folder / ".local/state/replug/revoked.krl").exists()


def test_a_key_id_is_revoked_at_every_ca(start_ca: StartCa, token: Token, home: Home) -> None:
    """Also where none was issued yet, as far as this machine knows."""
    cas = [token.public("p256"), token.public("ed25519")]
    agent = start_ca(*(rule(home, ca, USER) for ca in cas))

    done = agent.run(REPLUG, "ca", "revoke", "mallory")

    assert done.status == 0
    assert done.err == "replug: no certificate mallory is on record here\n"
    krl = home.folder / ".local/state/replug/revoked.krl"
    for number, ca in enumerate(cas):
        key = make_key(home, f"key{number}")
        done = agent.run(
            "ssh-keygen", "-q", "-U", "-s", ca, "-I", "mallory", "-n", USER, "-V", "+10m", public_of(key)
        )
        assert done.status == 0, (done, agent.log)
        assert home.run("ssh-keygen", "-Q", "-f", krl, certificate_of(key)).status == 1


def test_a_key_id_that_is_anothers_serial_number_revokes_both(
    start_ca: StartCa, token: Token, home: Home, user_key: Path
) -> None:
    """Who may ask for certificates chooses key ids."""
    ca, other = token.public("p256"), make_key(home, "other")
    agent = start_ca(rule(home, ca, USER))
    for key, key_id, serial in ((user_key, "mallory", "7"), (other, "7", "8")):
        done = agent.run(
            REPLUG, "ca", "issue", "-n", USER, "-I", key_id, "-z", serial, public_of(key),
        )  # fmt: skip
        assert done.status == 0, (done, agent.log)
    krl = home.folder / "revoked"
    done = agent.run(REPLUG, "ca", "revoke", "7", "--krl", krl)
    assert done.status == 0, done
    assert "id:7 and serial:7 (2 on record) is revoked" in done.out
    for key in (user_key, other):
        assert home.run("ssh-keygen", "-Q", "-f", krl, certificate_of(key)).status == 1


def test_a_key_id_that_is_no_text_is_not_said_to_be_revoked(
    start_ca: StartCa, token: Token, home: Home, user_key: Path
) -> None:
    """Its certificate has no serial number either: what was certified is revoked."""
    ca = token.public("p256")
    agent = start_ca(rule(home, ca, USER))
    command = (
        f"ssh-keygen -q -U -s {ca} -I \"$(printf 'a\\377')\" -z 0 -n {USER} -V +5m {public_of(user_key)}"
    )
    assert agent.run("sh", "-c", command).status == 0, agent.log
    issued = json.loads(agent.run(REPLUG, "ca", "issued", "--json").out)
    krl = home.folder / "revoked"

    done = agent.run(REPLUG, "ca", "revoke", issued["key_id"], "--krl", krl)
    assert (done.status, done.out) == (1, "")
    assert "revoke by the fingerprint" in done.err
    # Neither is one that reads like it.
    done = agent.run(REPLUG, "ca", "revoke", "a\\xff", "--krl", krl)
    assert "no certificate a\\xff is on record here" in done.err
    assert home.run("ssh-keygen", "-Q", "-f", krl, certificate_of(user_key)).status == 0

    done = agent.run(REPLUG, "ca", "revoke", issued["key"], "--krl", krl)
    assert f"hash:{issued['key']} (1 on record) is revoked" in done.out
    assert home.run("ssh-keygen", "-Q", "-f", krl, certificate_of(user_key)).status == 1


def test_a_certificate_by_another_ca_key_is_not_said_to_be_revoked(
    start_ca: StartCa, token: Token, home: Home, user_key: Path
) -> None:
    ca, other = token.public("p256"), token.public("ed25519")
    agent = start_ca(rule(home, ca, USER), rule(home, other, USER))
    key = public_of(user_key)
    done = agent.run(REPLUG, "ca", "issue", "-n", USER, "-I", "a", "--ca", fingerprint_of(home, ca), key)
    assert done.status == 0, (done, agent.log)
    krl = home.write("revoked", "", 0o644)
    done = agent.run(REPLUG, "ca", "revoke", "a", "--ca", fingerprint_of(home, other), "--krl", krl)
    assert (done.status, done.out) == (1, "")
    assert f"a on record is by another CA key: {fingerprint_of(home, ca)}" in done.err


def test_a_list_in_a_folder_of_others_follows_no_link(start_ca: StartCa, token: Token, home: Home) -> None:
    agent = start_ca(rule(home, token.public("p256"), USER))
    victim = home.write("victim", "precious")
    folder = home.folder / "shared"
    folder.mkdir()
    assert agent.run(REPLUG, "ca", "revoke", "b", "--krl", folder / "revoked").status == 0
    # Who does not know the process id puts a link for each.
    pids = int(Path("/proc/loadavg").read_text().split()[-1])
    for pid in range(pids, pids + 2000):
        (folder / f".revoked.{pid}.new").symlink_to(victim)
    done = agent.run(REPLUG, "ca", "revoke", "a", "--krl", folder / "revoked")
    assert done.status == 0, done
    assert victim.read_text() == "precious"
    assert not (folder / "revoked").is_symlink()


def test_a_list_that_cannot_be_written_stays_as_it_is(start_ca: StartCa, token: Token, home: Home) -> None:
    agent = start_ca(rule(home, token.public("p256"), USER))
    krl = home.write("revoked", "this is no list", 0o644)
    done = agent.run(REPLUG, "ca", "revoke", "a", "--krl", krl)
    assert done.status == 1
    assert krl.read_text() == "this is no list"
    done = agent.run(REPLUG, "ca", "revoke", "a", "--krl", home.folder / "missing" / "revoked")
    assert "missing: No such file or directory" in done.err
    assert [path.name for path in home.folder.glob("*revoked*")] == ["revoked"]
