"""Keys that a person is asked about (`ssh-add -c`), side by side with OpenSSH's agent."""

from __future__ import annotations

from pathlib import Path

import pytest
from rigs.agent import OPENSSH, PIN_PROMPT, Agent, StartAgent, sign_request
from rigs.compared import Agents, compare
from rigs.home import Home
from rigs.key_files import blob_of, make_key, public_of
from rigs.softhsm import Token
from rigs.terminal import Done, eventually

# Records what it is asked and what kind of question it is told that is; answers as ANSWER and STATUS say.
ASKPASS = """#!/bin/sh
printf 'kind %s\\n%s\\n' "$SSH_ASKPASS_PROMPT" "$1" >>"$QUESTIONS"
[ -z "$ANSWER" ] || printf '%s\\n' "$ANSWER"
exit "$STATUS"
"""
FORCED = {"SSH_ASKPASS_REQUIRE": "force"}


class Person:
    """Starts both agents, each with an askpass program that records its questions."""

    def __init__(self, home: Home, start_agent: StartAgent) -> None:
        self._home = home
        self._start_agent = start_agent
        self._program = home.write("askpass", ASKPASS, 0o700)

    def agents(
        self, *options: str, answer: str = "", status: int = 0, display: dict[str, str] | None = None
    ) -> Agents:
        """Both agents, where there is a display or none, and a person who always answers the same."""
        ours, theirs = (
            self._start_agent(
                *options,
                program=program,
                env={
                    "SSH_ASKPASS": str(self._program),
                    "QUESTIONS": str(self._questions(name)),
                    "ANSWER": answer,
                    "STATUS": str(status),
                    **(FORCED if display is None else display),
                },
            )
            for name, program in (("ours", None), ("theirs", OPENSSH))
        )
        return ours, theirs

    def asked(self) -> list[list[str]]:
        """The lines that each of the agents asked."""
        files = [self._questions(name) for name in ("ours", "theirs")]
        return [file.read_text().splitlines() if file.exists() else [] for file in files]

    def _questions(self, name: str) -> Path:
        return self._home.folder / f"questions-of-{name}"


@pytest.fixture
def person(home: Home, start_agent: StartAgent) -> Person:
    return Person(home, start_agent)


@pytest.fixture
def key(home: Home) -> Path:
    return make_key(home, "careful")


@pytest.mark.parametrize(
    ("answer", "status", "allowed"),
    [("", 0, True), ("yes", 0, True), ("YES", 0, True), ("no", 0, False), ("", 1, False), ("yes", 1, False)],
)
def test_the_answer_decides(answer: str, status: int, allowed: bool, person: Person, key: Path) -> None:
    agents = person.agents(answer=answer, status=status)

    def session(agent: Agent) -> list[Done]:
        return [
            agent.ssh_add("-c", key),
            agent.ssh_add("-l"),
            agent.ssh_add("-T", public_of(key)),
            agent.ssh_add("-T", public_of(key)),
        ]

    said = compare(agents, session)

    assert "The user must confirm each use of the key" in said[0][2]
    assert [status for status, _, _ in said] == [0, 0, *[0 if allowed else 1] * 2]
    ours, theirs = person.asked()
    assert ours.count("kind confirm") == theirs.count("kind confirm") == 2


@pytest.mark.parametrize("fingerprint", ["sha256", "md5", "sha1", "sha512"])
def test_what_is_asked(fingerprint: str, person: Person, key: Path, home: Home) -> None:
    """OpenSSH's two lines, and then what is to be signed and for which program."""
    agents = person.agents("-E", fingerprint)

    compare(agents, lambda agent: [agent.ssh_add("-c", key), agent.ssh_add("-T", public_of(key))])

    ours, theirs = person.asked()
    listed = home.run("ssh-keygen", "-l", "-E", fingerprint, "-f", public_of(key)).out.split()
    assert ours[:3] == theirs[:3]
    assert theirs == ["kind confirm", "Allow use of key careful?", f"Key fingerprint {listed[1]}."]
    assert ours[3] == "data of 1024 bytes that is no login, certificate or signature of a known form"
    assert ours[4].startswith("asked for by ssh-add (pid ")
    assert len(ours) == 5


@pytest.mark.parametrize(
    ("display", "asked"),
    [
        pytest.param({}, False, id="no display"),
        pytest.param({"DISPLAY": ":7"}, True, id="X11"),
        pytest.param({"DISPLAY": ":7", "SSH_ASKPASS_REQUIRE": "never"}, False, id="never"),
        pytest.param({"DISPLAY": ":7", "SSH_ASKPASS": "/nonexistent"}, False, id="no such program"),
    ],
)
def test_without_a_person_there_is_no_signature(
    display: dict[str, str], asked: bool, person: Person, key: Path
) -> None:
    agents = person.agents(display=display)

    said = compare(agents, lambda agent: [agent.ssh_add("-c", key), agent.ssh_add("-T", public_of(key))])

    assert said[1][0] == (0 if asked else 1)
    assert [bool(lines) for lines in person.asked()] == [asked, asked]
    if not asked:
        assert "needs a confirmation" in agents[0].log


def test_on_wayland(person: Person, key: Path) -> None:
    """OpenSSH's agent looks at WAYLAND_DISPLAY in later releases than Debian 12's."""
    agent, _ = person.agents(display={"WAYLAND_DISPLAY": "wayland-7"})

    assert agent.ssh_add("-c", key).status == 0
    assert agent.ssh_add("-T", public_of(key)).status == 0, agent.log
    assert "kind confirm" in person.asked()[0]


def test_adding_it_again_without_c_asks_no_more(person: Person, key: Path) -> None:
    agents = person.agents(status=1)

    def session(agent: Agent) -> list[Done]:
        test = ("-T", public_of(key))
        return [
            agent.ssh_add("-c", key),
            agent.ssh_add(*test),
            agent.ssh_add(key),
            agent.ssh_add(*test),
            agent.ssh_add("-c", key),
            agent.ssh_add(*test),
        ]

    said = compare(agents, session)

    assert [status for status, _, _ in said] == [0, 1, 0, 0, 0, 1]


@pytest.mark.parametrize(("status", "allowed"), [(0, True), (1, False)])
def test_keys_of_a_token(status: int, allowed: bool, person: Person, token: Token) -> None:
    """Their PIN is remembered, and the person is asked all the same."""
    agents = person.agents(status=status)

    def session(agent: Agent) -> list[Done]:
        return [
            agent.ssh_add("-c", "-s", token.module, typing=[(PIN_PROMPT, token.pin)]),
            agent.ssh_add("-T", token.public("p256")),
        ]

    said = compare(agents, session)

    assert [status for status, _, _ in said] == [0, 0 if allowed else 1], agents[0].log
    ours, theirs = person.asked()
    assert [line for line in ours if line.startswith("Key ")] == [
        line for line in theirs if line.startswith("Key ")
    ]
    assert "PIN" not in "".join(ours)


def test_a_question_that_stands_is_in_nobodys_way_and_goes_with_its_client(
    home: Home, key: Path, start_agent: StartAgent
) -> None:
    other = make_key(home, "other")
    asked = home.folder / "asked"
    program = home.write("thinker", f"#!/bin/sh\necho $$ >>{asked}\nexec sleep 600\n", 0o700)
    agent = start_agent(env={"SSH_ASKPASS": str(program), **FORCED})
    assert agent.ssh_add("-c", key).status == 0
    assert agent.ssh_add(other).status == 0

    def dialogs() -> list[int]:
        return [int(line) for line in asked.read_text().splitlines()] if asked.exists() else []

    with agent.connect() as waiting, agent.connect() as next_in_line:
        waiting.socket.sendall(sign_request(blob_of(public_of(key))))
        eventually(lambda: len(dialogs()) == 1, "the question")
        next_in_line.socket.sendall(sign_request(blob_of(public_of(key))))
        assert agent.alive()
        assert agent.ssh_add("-T", public_of(other)).status == 0, agent.log
        assert len(dialogs()) == 1  # a person answers one at a time

        waiting.socket.close()

        eventually(lambda: len(dialogs()) == 2, "the next client's question")
        first, second = dialogs()
        running = agent.children()
        assert (first in running, second in running) == (False, True)
    eventually(lambda: second not in agent.children(), "its end, too")
