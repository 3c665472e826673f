"""ssh-add with the agent under test and with OpenSSH's own, side by side on the same token.

Each session is a list of commands as a person would type them. What the two agents make ssh-add say, and
its exit statuses, have to be the same.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from rigs.agent import OPENSSH, PIN_PROMPT, Agent, StartAgent, frame, string
from rigs.askpass import Askpass
from rigs.compared import NO_IDENTITIES, Agents, compare, heard
from rigs.home import Home
from rigs.softhsm import MODULE, PIN, Token
from rigs.terminal import Done, eventually

LOCK = [("Enter lock password: ", "sesame"), ("Again: ", "sesame")]


@pytest.fixture
def small_token(home: Home) -> Token:
    """A token with two keys of kinds that every release of OpenSSH's agent can use: p256 and rsa2048."""
    token = Token(home, "work")
    token.add("p256")
    token.add("rsa2048")
    return token


def test_list(agents: Agents, small_token: Token) -> None:
    def session(agent: Agent) -> list[Done]:
        return [
            agent.ssh_add("-l"),
            agent.ssh_add("-L"),
            agent.add_provider(MODULE, PIN),
            agent.ssh_add("-l"),
            agent.ssh_add("-L"),
            agent.ssh_add("-l", "-E", "md5"),
        ]

    said = compare(agents, session)

    publics = sorted(small_token.public(label).read_text().strip() for label in ("p256", "rsa2048"))
    assert said[:2] == [NO_IDENTITIES] * 2
    assert said[2] == (0, [], f"Card added: {MODULE}\n")
    assert [line.split()[0] for line in said[3][1]] == ["2048", "256"]
    assert said[4] == (0, publics, "")
    assert all(" MD5:" in line for line in said[5][1])


def test_test_a_key(agents: Agents, small_token: Token, home: Home) -> None:
    """`ssh-add -T key.pub` signs and verifies; a key the agent does not have fails."""
    stranger = home.folder / "stranger"
    assert home.run("ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", stranger).status == 0

    def session(agent: Agent) -> list[Done]:
        return [
            agent.add_provider(MODULE, PIN),
            agent.ssh_add("-T", small_token.public("p256")),
            agent.ssh_add("-T", small_token.public("rsa2048"), small_token.public("p256")),
            agent.ssh_add("-T", stranger.with_suffix(".pub")),
        ]

    said = compare(agents, session)

    assert said[1] == said[2] == (0, [], "")
    assert said[3][0] == 1
    assert "agent refused operation" in said[3][2]


def test_remove_a_provider(agents: Agents, small_token: Token) -> None:
    def session(agent: Agent) -> list[Done]:
        return [
            agent.add_provider(MODULE, PIN),
            agent.ssh_add("-e", MODULE),
            agent.ssh_add("-l"),
            agent.ssh_add("-T", small_token.public("p256")),
            agent.add_provider(MODULE, PIN),
            agent.ssh_add("-T", small_token.public("p256")),
        ]

    said = compare(agents, session)

    assert said[1] == (0, [], f"Card removed: {MODULE}\n")
    assert said[2] == NO_IDENTITIES
    assert said[3][0] == 1
    assert said[5] == (0, [], "")


def test_remove_a_provider_whose_keys_have_expired(agents: Agents, small_token: Token) -> None:
    def session(agent: Agent) -> list[Done]:
        added = agent.ssh_add("-t", "1", "-s", MODULE, typing=[(PIN_PROMPT, PIN)])
        eventually(lambda: agent.ssh_add("-l").status == 1, "the end of the keys")
        return [added, agent.ssh_add("-e", MODULE)]

    assert compare(agents, session)[1] == (0, [], f"Card removed: {MODULE}\n")


def test_a_module_is_loaded_in_the_folder_that_the_agent_was_started_in(
    agents: Agents, small_token: Token
) -> None:
    """Where relative paths in its configuration lead."""
    for agent in agents:
        assert agent.add_provider(MODULE, PIN).status == 0
        helpers = [child for child in agent.children() if maps_module(child)]
        assert helpers
        assert {os.readlink(f"/proc/{child}/cwd") for child in helpers} == {str(agent.home.folder)}


def maps_module(process: int) -> bool:
    return "softhsm" in Path(f"/proc/{process}/maps").read_text()


def test_without_a_pin(start_agent: StartAgent, home: Home, small_token: Token) -> None:
    """As `ssh-add -P` has it, which sends an empty one: no PIN is tried, and a signature asks for it."""
    askpass = Askpass(home)
    askpass.answers(PIN)
    agent = start_agent(env=askpass.env)
    with agent.connect() as connection:
        assert connection.ask(frame(b"\x14" + string(str(MODULE).encode()) + string(b""))) == b"\x06"
    assert agent.ssh_add("-L").out.count("\n") == 2
    assert askpass.text == ""
    assert "login" not in agent.log
    assert agent.ssh_add("-T", small_token.public("p256")).status == 0
    assert len(askpass.questions) == 1


def test_remove_one_key_and_all(agents: Agents, small_token: Token) -> None:
    public = small_token.public("p256")

    def session(agent: Agent) -> list[Done]:
        return [
            agent.add_provider(MODULE, PIN),
            agent.ssh_add("-d", public),
            agent.ssh_add("-L"),
            agent.ssh_add("-d", public),
            agent.ssh_add("-D"),
            agent.ssh_add("-l"),
            agent.ssh_add("-D"),
        ]

    said = compare(agents, session)

    assert said[2] == (0, [small_token.public("rsa2048").read_text().strip()], "")
    assert [status for status, _, _ in said] == [0, 0, 0, 1, 0, 1, 0]
    assert said[5] == NO_IDENTITIES


def test_lock(agents: Agents, small_token: Token) -> None:
    public = small_token.public("p256")
    unlock = "Enter lock password: "

    def session(agent: Agent) -> list[Done]:
        return [
            agent.add_provider(MODULE, PIN),
            agent.ssh_add("-X", typing=[(unlock, "sesame")]),
            agent.ssh_add("-x", typing=LOCK),
            agent.ssh_add("-l"),
            agent.ssh_add("-T", public),
            agent.ssh_add("-D"),
            agent.add_provider(MODULE, PIN),
            agent.ssh_add("-x", typing=LOCK),
            agent.ssh_add("-X", typing=[(unlock, "barley")]),
            agent.ssh_add("-l"),
            agent.ssh_add("-X", typing=[(unlock, "sesame")]),
            agent.ssh_add("-L"),
            agent.ssh_add("-T", public),
        ]

    said = compare(agents, session)

    assert [status for status, _, _ in said] == [0, 1, 0, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0]
    assert said[3] == NO_IDENTITIES
    assert len(said[11][1]) == 2


def test_lifetime(agents: Agents, small_token: Token) -> None:
    def session(agent: Agent) -> list[Done]:
        long = agent.ssh_add("-t", "1h", "-s", MODULE, typing=[(PIN_PROMPT, PIN)])
        listed = agent.ssh_add("-l")
        removed = agent.ssh_add("-e", MODULE)
        # Not listed again meanwhile: on a busy machine a second may be over before that.
        short = agent.ssh_add("-t", "1", "-s", MODULE, typing=[(PIN_PROMPT, PIN)])
        eventually(lambda: agent.ssh_add("-l").status == 1, "the keys' end")
        return [long, listed, removed, short, agent.ssh_add("-T", small_token.public("p256"))]

    said = compare(agents, session)

    assert [status for status, _, _ in said] == [0, 0, 0, 0, 1]


def test_refused_modules(agents: Agents, small_token: Token, home: Home) -> None:
    outside = home.write("softhsm.so", MODULE.read_bytes())
    not_a_module = next(Path("/usr/lib").glob("*/libcrypto.so.3"))
    modules = ["/usr/lib/nothing-here.so", str(outside), str(not_a_module), "/usr/lib"]

    def session(agent: Agent) -> list[Done]:
        return [agent.add_provider(module, PIN) for module in modules] + [
            agent.ssh_add("-l"),
            agent.add_provider(MODULE, PIN),
            agent.ssh_add("-T", small_token.public("p256")),
        ]

    said = compare(agents, session)

    for module, refusal in zip(modules, said, strict=False):
        assert refusal == (1, [], f'Could not add card "{module}": agent refused operation\n')
    assert said[-3:] == [NO_IDENTITIES, (0, [], f"Card added: {MODULE}\n"), (0, [], "")]


def test_a_link_into_the_allow_list_is_judged_by_where_it_points(
    agents: Agents, small_token: Token, home: Home
) -> None:
    link = home.folder / "module.so"
    link.symlink_to(MODULE)

    def session(agent: Agent) -> list[Done]:
        return [agent.add_provider(link, PIN), agent.ssh_add("-T", small_token.public("p256"))]

    assert compare(agents, session) == [(0, [], f"Card added: {link}\n"), (0, [], "")]


@pytest.mark.parametrize(
    ("patterns", "allowed"),
    [
        ("/*", True),
        ("/usr/lib/*/softhsm/*", True),
        ("/opt/*,*/libsofthsm?.so", True),
        ("/usr/lib/*,!*/softhsm/*", False),
        ("!*/softhsm/*,/usr/lib/*", False),
        ("/usr/lib/*,/USR/LIB/*", True),
        ("/USR/LIB/*", False),
        ("/usr/lib", False),
        ("!/opt/*", False),
        ("", False),
    ],
)
def test_the_list_of_allowed_modules(
    patterns: str, allowed: bool, start_agent: StartAgent, small_token: Token
) -> None:
    """Patterns for the real path; what is named with a `!` is never allowed."""
    agents = start_agent("-P", patterns), start_agent("-P", patterns, program=OPENSSH)

    said = compare(agents, lambda agent: [agent.add_provider(MODULE, PIN)])

    assert said[0][0] == (0 if allowed else 1)
    if not allowed:
        assert f"{MODULE.resolve()} is not in the list of allowed modules ({patterns})" in agents[0].log


def test_wrong_pin(agents: Agents, small_token: Token) -> None:
    def session(agent: Agent) -> list[Done]:
        return [
            agent.add_provider(MODULE, "654321"),
            agent.ssh_add("-l"),
            agent.add_provider(MODULE, PIN),
            agent.ssh_add("-T", small_token.public("p256")),
        ]

    said = compare(agents, session)

    assert said[0] == (1, [], f'Could not add card "{MODULE}": agent refused operation\n')
    assert said[1:] == [NO_IDENTITIES, (0, [], f"Card added: {MODULE}\n"), (0, [], "")]


def test_adding_a_provider_again_keeps_everything_working(agent: Agent, small_token: Token) -> None:
    for _ in range(3):
        assert agent.add_provider(MODULE, PIN).status == 0, agent.log
        assert len(agent.ssh_add("-l").lines) == 2
        assert agent.ssh_add("-T", small_token.public("p256")).status == 0, agent.log


@pytest.mark.parametrize(
    ("uri", "labels"),
    [
        ("pkcs11:token=work", ["p256", "rsa2048"]),
        ("pkcs11:token=home", ["p384"]),
        ("pkcs11:token=work;object=p256", ["p256"]),
        ("pkcs11:token=work;id=%02", ["rsa2048"]),
        (f"pkcs11:token=home?module-path={MODULE}", ["p384"]),
    ],
)
def test_a_uri_chooses_token_and_keys(
    uri: str, labels: list[str], agent: Agent, small_token: Token, home: Home
) -> None:
    Token(home, "home").add("p384")

    done = agent.add_provider(uri, PIN)

    assert heard(done) == (0, [], f"Card added: {uri}\n"), agent.log
    publics = [home.folder / f"{label}.pub" for label in labels]
    assert agent.ssh_add("-L").lines == sorted(public.read_text().strip() for public in publics)
    assert agent.ssh_add("-T", *publics).status == 0, agent.log
    assert agent.ssh_add("-e", uri).status == 0, agent.log
    assert heard(agent.ssh_add("-l")) == NO_IDENTITIES


def test_a_uri_that_names_nothing_is_refused_with_the_reason_in_the_log(
    agent: Agent, small_token: Token
) -> None:
    done = agent.add_provider("pkcs11:token=elsewhere", PIN)

    assert done.status == 1
    assert "elsewhere" in agent.log


def test_keys_of_several_tokens(agent: Agent, small_token: Token, home: Home) -> None:
    """Each token gets its own PIN and no other's; both sign."""
    other = Token(home, "home")
    other.add("p384")

    for name in ("work", "home"):
        assert agent.add_provider(f"pkcs11:token={name}", PIN).status == 0, agent.log

    assert len(agent.ssh_add("-l").lines) == 3
    assert agent.ssh_add("-T", *sorted(home.folder.glob("*.pub"))).status == 0, agent.log
