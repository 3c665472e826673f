"""Keys in files, which the agent holds in memory: side by side with OpenSSH's agent."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import pytest
from rigs.agent import LIST_REQUEST, OPENSSH, Agent, StartAgent, frame, sign_request, string
from rigs.compared import Agents, compare_exactly
from rigs.home import Home
from rigs.key_files import FILE_KINDS, POST_QUANTUM, blob_of, certify, make_key, public_of
from rigs.softhsm import PIN, Token, patched_module
from rigs.sshd import USER, Server, only
from rigs.terminal import Done, eventually

NO_IDENTITIES = Done(1, "The agent has no identities.\n", "")
NAMES = {"ed25519": "ED25519", "rsa": "RSA", POST_QUANTUM: "MLDSA44-ED25519"}


@pytest.fixture
def ca(home: Home) -> Path:
    return make_key(home, "ca")


@pytest.fixture
def keys(home: Home, ca: Path) -> list[Path]:
    """One key of each kind, each with a certificate beside it, which ssh-add adds too."""
    keys = [make_key(home, kind, kind) for kind in FILE_KINDS]
    for key in keys:
        certify(home, ca, public_of(key), "-n", USER)
    return keys


def test_add_list_test_and_remove(agents: Agents, keys: list[Path]) -> None:
    publics = [public_of(key) for key in keys]

    def session(agent: Agent) -> list[Done]:
        return [
            agent.ssh_add(*keys),
            agent.ssh_add("-l"),
            agent.ssh_add("-L"),
            agent.ssh_add("-T", *publics),
            agent.ssh_add("-T", *(public.with_name(f"{public.stem}-cert.pub") for public in publics)),
            # A key, its certificate, or both: each is an identity of its own.
            agent.ssh_add("-k", "-d", keys[0]),
            agent.ssh_add("-d", publics[1].with_name("p256-cert.pub")),
            agent.ssh_add("-d", keys[2]),
            agent.ssh_add("-l"),
            agent.ssh_add("-d", keys[2]),
            agent.ssh_add("-D"),
            agent.ssh_add("-l"),
        ]

    said = compare_exactly(agents, session)

    assert [done.status for done in said] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1]
    assert [line.rpartition(" ")[2] for line in said[1].out.splitlines()] == [
        f"({NAMES.get(kind, 'ECDSA')}{suffix})" for kind in FILE_KINDS for suffix in ("", "-CERT")
    ]
    assert len(said[8].out.splitlines()) == 2 * len(FILE_KINDS) - 4


def test_a_key_that_was_added_twice_is_removed_at_once(agents: Agents, keys: list[Path]) -> None:
    def session(agent: Agent) -> list[Done]:
        return [
            agent.ssh_add("-k", keys[0]),
            agent.ssh_add("-k", keys[0]),
            agent.ssh_add("-k", "-d", keys[0]),
            agent.ssh_add("-l"),
            agent.ssh_add("-T", public_of(keys[0])),
        ]

    assert [done.status for done in compare_exactly(agents, session)] == [0, 0, 0, 1, 1]


def test_adding_a_key_again_changes_it_in_its_place(agents: Agents, home: Home) -> None:
    """Comment, lifetime and constraints are the new ones, the order of the listing stays."""
    keys = [make_key(home, name) for name in ("first", "second", "third")]
    publics = [public_of(key) for key in keys]

    def rename(comment: str) -> None:
        assert home.run("ssh-keygen", "-q", "-c", "-C", comment, "-f", keys[1]).status == 0

    def session(agent: Agent) -> list[Done]:
        rename("second")
        said = [agent.ssh_add(*keys), agent.ssh_add("-l")]
        rename("second but renamed")
        said += [agent.ssh_add("-c", keys[1]), agent.ssh_add("-l"), agent.ssh_add("-T", publics[1])]
        said += [agent.ssh_add("-t", "1", keys[0])]
        eventually(lambda: agent.ssh_add("-T", publics[0]).status == 1, "the end of the first key")
        return [*said, agent.ssh_add("-l"), agent.ssh_add("-t", "1", keys[2]), agent.ssh_add(keys[2])]

    said = compare_exactly(agents, session)

    comments = [
        [" ".join(line.split()[2:-1]) for line in said[number].out.splitlines()] for number in (1, 3, 6)
    ]
    assert comments == [
        ["first", "second", "third"],
        ["first", "second but renamed", "third"],
        ["second but renamed", "third"],
    ]
    assert said[4].status == 1  # nobody is there to confirm


def test_a_lifetime_for_all_that_name_none(start_agent: StartAgent, keys: list[Path], home: Home) -> None:
    agents = start_agent("-t", "2"), start_agent("-t", "2", program=OPENSSH)
    short, long = keys[0], keys[1]

    def session(agent: Agent) -> list[Done]:
        said = [agent.ssh_add("-k", "-t", "1h", long), agent.ssh_add("-k", short)]
        eventually(
            lambda: agent.ssh_add("-T", public_of(short)).status == 1, "the end of the default lifetime"
        )
        return [*said, agent.ssh_add("-l")]

    said = compare_exactly(agents, session)

    assert re.search(r"^Lifetime set to (3600 seconds|01:00:00)$", said[0].err, re.MULTILINE)
    assert len(said[2].out.splitlines()) == 1


def test_sigusr1_drops_all_keys(working_agent: Agent, keys: list[Path], token: Token) -> None:
    """As OpenSSH's agent does in later releases; 9.2 ends."""
    assert working_agent.ssh_add(*keys).status == 0

    working_agent.process.send_signal(signal.SIGUSR1)

    eventually(lambda: working_agent.ssh_add("-l") == NO_IDENTITIES, "an empty agent")
    assert working_agent.ssh_add("-T", public_of(keys[0])).status == 1
    assert working_agent.ssh_add("-T", token.public("p256")).status == 1
    assert working_agent.ssh_add(keys[0]).status == 0
    assert working_agent.ssh_add("-T", public_of(keys[0])).status == 0, working_agent.log


def test_signatures_go_on_while_other_keys_are_removed(agent: Agent, home: Home) -> None:
    """Each removal ends the process that has the keys, and each signature starts it anew."""
    kept, *others = [make_key(home, f"key{number}") for number in range(9)]
    request = sign_request(blob_of(public_of(kept)))
    removals = [frame(b"\x12" + string(blob_of(public_of(key)))) for key in others]
    replies = []
    for _ in range(3):
        assert agent.ssh_add(kept, *others).status == 0, agent.log
        with agent.connect() as signing, agent.connect() as removing:
            for removal in removals:
                signing.socket.sendall(request)
                # Not awaited, so that removals meet signatures, and starts, in many states.
                assert removing.ask(removal) == b"\x06"
                time.sleep(0.01)
            replies += [signing.reply()[:1] for _ in removals]

    assert replies == [b"\x0e"] * 24, agent.log


@pytest.mark.parametrize("kind", FILE_KINDS)
def test_every_kind_of_key_logs_in(kind: str, agent: Agent, home: Home, server: Server) -> None:
    key = make_key(home, kind, kind)
    assert agent.ssh_add(key).status == 0, agent.log
    key.unlink()
    server.authorize(public_of(key))

    done = server.login(agent, *only(public_of(key)))

    assert (done.status, done.out) == (0, f"in {USER}\n"), (done, server.log, agent.log)


@pytest.mark.parametrize("kind", FILE_KINDS)
def test_every_kind_of_certificate_logs_in(kind: str, agent: Agent, home: Home, ca: Path) -> None:
    """Found in the agent by ssh itself; the server knows the CA only."""
    key = make_key(home, kind, kind)
    certify(home, ca, public_of(key), "-n", USER)
    assert agent.ssh_add(key).status == 0, agent.log
    for path in home.folder.glob(f"{kind}*"):
        path.unlink()
    server = Server(home, f"TrustedUserCAKeys {public_of(ca)}", "AuthorizedKeysFile none")

    done = server.login(agent)

    assert (done.status, done.out) == (0, f"in {USER}\n"), (done, server.log, agent.log)


@pytest.mark.parametrize("choice", ["yes", "confirm", "1h"])
def test_ssh_adds_the_key_it_used(choice: str, agents: Agents, home: Home, server: Server) -> None:
    key = make_key(home, "key")
    server.authorize(public_of(key))
    use = ("-o", f"AddKeysToAgent={choice}", "-o", "IdentitiesOnly=yes", "-i", key)

    def session(agent: Agent) -> list[Done]:
        login = server.login(agent, *use)
        return [login, agent.ssh_add("-L"), agent.ssh_add("-T", public_of(key))]

    login, listed, tested = compare_exactly(agents, session)

    assert (login.status, login.out) == (0, f"in {USER}\n"), server.log
    assert listed.out.split()[:2] == public_of(key).read_text().split()[:2]
    assert tested.status == (1 if choice == "confirm" else 0)


def test_many_keys_are_listed_with_the_same_bytes(
    start_agent: StartAgent, keys: list[Path], home: Home
) -> None:
    """Software keys, certificates and keys on six tokens, in the order they were added."""
    # One token a module, as SoftHSM has no fixed order for the keys of one.
    modules, settings = [], {}
    for number, kind in enumerate(["p256", "rsa2048", "p384", "p521", "p256", "p256"]):
        module, variable, tokens = patched_module(home, number)
        tokens.add(kind, f"token {number}")
        modules.append(module)
        settings[variable] = tokens.home.env["SOFTHSM2_CONF"]
    more = [make_key(home, f"more{number}", kind) for number, kind in enumerate(["ed25519", "p256"] * 4)]
    allowed = ("-P", f"{home.folder}/*")
    agents = start_agent(*allowed, env=settings), start_agent(*allowed, env=settings, program=OPENSSH)

    def session(agent: Agent) -> list[bytes]:
        for module in modules[:2]:
            assert agent.add_provider(module, PIN).status == 0, agent.log
        assert agent.ssh_add(*keys).status == 0, agent.log
        for module, key in zip(modules[2:], more, strict=False):
            assert agent.add_provider(module, PIN).status == 0, agent.log
            assert agent.ssh_add(key).status == 0, agent.log
        assert agent.ssh_add(*more[4:]).status == 0, agent.log
        with agent.connect() as connection:
            whole = connection.ask(LIST_REQUEST)
        # One that is removed and added again goes to the end; one that is only added again stays.
        assert agent.ssh_add("-d", public_of(keys[3])).status == 0
        assert agent.ssh_add(keys[3], keys[1]).status == 0
        assert agent.ssh_add("-e", modules[3]).status == 0
        with agent.connect() as connection:
            return [whole, connection.ask(LIST_REQUEST)]

    whole, changed = compare_exactly(agents, session)

    count = 2 * len(FILE_KINDS) + len(more) + len(modules)
    assert (whole[4], changed[4]) == (count, count - 1)
    assert agents[0].ssh_add("-T", *map(public_of, keys + more)).status == 0, agents[0].log
