"""What only OpenSSH 10.6 and later have, with the agent under test and with OpenSSH's own, side by side."""

from __future__ import annotations

import pytest
from rigs.agent import OPENSSH, Agent, StartAgent, openssh_release
from rigs.askpass import Askpass
from rigs.compared import Agents, compare_exactly, heard
from rigs.doctor import REPLUG
from rigs.home import Home
from rigs.key_files import POST_QUANTUM, certify, make_key, public_of
from rigs.security_keys import KINDS, SK_DUMMY, make_sk_key
from rigs.softhsm import MODULE, PIN, Token
from rigs.sshd import USER, Server, only
from rigs.terminal import Done

NAME = "web.example.org"
IN_THERE = (0, f"in {USER}\n")


@pytest.fixture
def agents(start_agent: StartAgent) -> Agents:
    """The agent under test and OpenSSH's own."""
    assert openssh_release() >= (10, 6)
    return start_agent(), start_agent(program=OPENSSH)


def brief(done: Done) -> tuple[int, str]:
    """What does not depend on process ids in ssh's complaints."""
    return done.status, done.out


def test_a_post_quantum_key_for_a_host_with_a_certificate(agents: Agents, home: Home) -> None:
    """The host is certified for all names of its domain."""
    ca, key = make_key(home, "ca"), make_key(home, "key", POST_QUANTUM)
    trust = f"TrustedUserCAKeys {public_of(ca)}"
    other = Server(home, trust, name="elsewhere", kind=POST_QUANTUM)
    host_certificate = f"HostCertificate {home.folder}/{NAME}.key-cert.pub"
    certified = Server(home, trust, host_certificate, name=NAME, kind=POST_QUANTUM)
    certify(home, ca, certified.host_key, "-h", "-n", "*.example.org")
    certified.known_hosts.write_text(f"@cert-authority *.example.org {public_of(ca).read_text()}")
    certificate = certify(home, ca, public_of(key), "-n", USER)

    def session(agent: Agent) -> list[tuple[int, str]]:
        added = agent.ssh_add("-q", "-H", certified.known_hosts, "-h", NAME, key)
        return [
            brief(added),
            brief(certified.login(agent, *only(certificate))),
            brief(other.login(agent, *only(certificate))),
            brief(agent.ssh_add("-T", certificate)),
            brief(agent.ssh_add("-L")),
        ]

    said = compare_exactly(agents, session)

    assert [status for status, _ in said] == [0, 0, 255, 1, 0], agents[0].log
    assert said[1] == IN_THERE
    assert [line.split()[0] for line in said[4][1].splitlines()] == [
        "ssh-mldsa44-ed25519",
        "ssh-mldsa44-ed25519-cert",
    ]


def test_a_post_quantum_ca(agents: Agents, home: Home) -> None:
    """Its key is in the agent; servers take its certificates if they are told to."""
    ca, key = make_key(home, "ca", POST_QUANTUM), make_key(home, "key")
    server = Server(home, f"TrustedUserCAKeys {public_of(ca)}", f"CASignatureAlgorithms +ssh-{POST_QUANTUM}")

    def session(agent: Agent) -> list[tuple[int, str]]:
        return [
            brief(agent.ssh_add("-q", ca)),
            brief(
                agent.run(
                    "ssh-keygen", "-q", "-U", "-s", public_of(ca), "-I", "id", "-n", USER, public_of(key)
                )
            ),
            brief(server.login(agent, "-i", key, "-o", "IdentitiesOnly=yes")),
        ]

    assert compare_exactly(agents, session) == [(0, ""), (0, ""), IN_THERE], (agents[0].log, server.log)


@pytest.mark.parametrize("kind", KINDS)
def test_a_security_key_for_a_post_quantum_host(kind: str, agents: Agents, home: Home) -> None:
    key = make_sk_key(home, "id_sk", kind)
    near, far = (Server(home, name=name, kind=POST_QUANTUM) for name in ("near", "far"))
    for server in (near, far):
        server.authorize(public_of(key))

    def session(agent: Agent) -> list[tuple[int, str]]:
        added = agent.ssh_add("-q", "-P", "-S", SK_DUMMY, "-H", near.known_hosts, "-h", "near", key)
        return [brief(added), *(brief(server.login(agent, *only(public_of(key)))) for server in (near, far))]

    said = compare_exactly(agents, session)

    assert said[1] == IN_THERE, agents[0].log
    assert [status for status, _ in said] == [0, 0, 255]


def test_a_provider_is_added_without_its_pin(home: Home, start_agent: StartAgent, askpass: Askpass) -> None:
    """`ssh-add -P`: OpenSSH's agent refuses a token that has a PIN; ours asks when a key is first used."""
    public = Token(home).add("p256")
    theirs, ours = start_agent(program=OPENSSH), start_agent(env=askpass.env)
    askpass.answers(PIN)

    assert theirs.ssh_add("-P", "-s", MODULE).status == 1
    assert heard(ours.ssh_add("-P", "-s", MODULE)) == (0, [], f"Card added: {MODULE}\n"), ours.log
    assert askpass.questions == []

    assert [ours.ssh_add("-T", public).status for _ in range(2)] == [0, 0], ours.log
    assert len(askpass.questions) == 1


def test_what_would_be_tried(agents: Agents, home: Home, server: Server) -> None:
    """`ssh -Z` lists a token's keys and those in files as the agent does."""
    public = Token(home).add("p256")
    keys = [make_key(home, name, kind) for name, kind in (("first", POST_QUANTUM), ("second", "rsa"))]

    def session(agent: Agent) -> list[tuple[int, str]]:
        return [
            brief(agent.ssh_add("-q", keys[0])),
            brief(agent.add_provider(MODULE, PIN)),
            brief(agent.ssh_add("-q", keys[1])),
            brief(agent.run("ssh", "-F", server.client_config, "-Z", server.name)),
            brief(agent.run("ssh", "-F", server.client_config, *only(public), "-Z", server.name)),
        ]

    *_, tried, chosen = compare_exactly(agents, session)

    assert tried[0] == 0
    assert [line.split()[0] for line in tried[1].splitlines()] == ["first", "p256", "second"], tried
    assert len(chosen[1].splitlines()) == 1


def test_no_address_is_refused_for_keys_that_are_for_other_hosts(home: Home, start_agent: StartAgent) -> None:
    """sshd refuses an address from which logins fail with too many keys (PerSourcePenalties, since 9.8)."""
    *_, last = keys = [make_key(home, f"key{number:02}") for number in range(1, 13)]
    ours, theirs = start_agent(), start_agent(program=OPENSSH)
    server = Server(home, "MaxAuthTries 2")
    server.authorize(public_of(last))
    host = home.run("ssh-keygen", "-lf", server.host_key).out.split()[1]
    home.configure(f'modules = []\n[[key]]\nmatch = "key12"\nhosts = ["{host}"]')
    assert ours.run(REPLUG, "reload").status == 0
    for agent in (ours, theirs):
        assert agent.ssh_add("-q", *keys).status == 0

    with server.daemon() as options:
        assert [brief(server.login(ours, *options)) for _ in range(10)] == [IN_THERE] * 10, ours.log
        assert "penalty" not in server.log

        refused = "drop connection"
        for _ in range(10):
            if refused not in server.log:
                assert server.login(theirs, *options).status == 255
        assert refused in server.log
