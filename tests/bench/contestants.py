"""Who is compared: OpenSSH's agent and replug, with the same keys on the same token."""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rigs.agent import LIST_REQUEST, OPENSSH, Agent, sign_request
from rigs.home import Home
from rigs.softhsm import MODULE, PIN, Token

REPLUG = Path(os.environ.get("REPLUG_AGENT", Path(sys.executable).with_name("replug-agent"))).absolute()
"""$REPLUG_AGENT is one that is installed as users have it: an editable installation starts more slowly."""
KINDS = ("rsa2048", "p256", "ed25519")
LISTING = "listing"
SOFTWARE = "software-ed25519"
"""A key that is not on the token."""
_SIGNED = bytes(300)
"""About what ssh has signed at a login."""
_RSA_SHA2_512 = 4


@dataclass(frozen=True)
class Contestant:
    """An agent that runs, with the token's keys in it."""

    name: str
    agent: Agent
    kinds: tuple[str, ...]
    """The keys it can use: OpenSSH 9.2 does not take Ed25519 from a token."""


@contextmanager
def softhsm(keys: int = len(KINDS), only: str = "") -> Iterator[Token]:
    """A SoftHSM token with so many keys: of one kind `only`, or of each kind, then RSA and P-256 in turn."""
    home = Home()
    try:
        token = Token(home)
        kinds = [only] * keys if only else [*KINDS[:keys], *(KINDS[n % 2] for n in range(len(KINDS), keys))]
        for number, kind in enumerate(kinds):
            token.add(kind, **({} if kind not in kinds[:number] else {"label": f"other{number}"}))
        yield token
    finally:
        home.remove()


@contextmanager
def on(
    token: Token, two_workers: str | None = None, others: Sequence[Path] = ()
) -> Iterator[dict[str, Contestant]]:
    """The contestants: `openssh`, `replug`, `workers` with `two_workers`, and `others` by their paths.

    `two_workers` is the text of a configuration file that gives the module two workers.
    """
    programs = {"openssh": OPENSSH, "replug": REPLUG} | {str(path): path for path in others}
    environments: dict[str, dict[str, str]] = {}
    if two_workers is not None:
        programs["workers"] = REPLUG
        environments["workers"] = configured(token.home, two_workers)
    running: list[Agent] = []
    try:
        contestants = {}
        for name, program in programs.items():
            # replug writes a line for each signature; into a file it does so as it would to the journal.
            agent = Agent(program, token.home, "-P", "/usr/lib/*", env=environments.get(name, {}))
            running.append(agent)
            contestants[name] = Contestant(name, agent, _usable(agent, token))
        yield contestants
    finally:
        for agent in running:
            agent.stop()


def configured(home: Home, text: str) -> dict[str, str]:
    """The environment in which a replug-agent of `home` has this configuration file."""
    for name in ("xdg", "xdg/replug"):
        (home.folder / name).mkdir(mode=0o700)
    home.write("xdg/replug/config.toml", "modules = []\n" + text)
    return {"XDG_CONFIG_HOME": str(home.folder / "xdg")}


def request(token: Token, what: str) -> bytes:
    """The frame that asks for a listing, or for a signature with the key of this kind."""
    if what == LISTING:
        return LIST_REQUEST
    blob = base64.b64decode(token.public(what).read_text().split()[1])
    return sign_request(blob, _SIGNED, _RSA_SHA2_512 if what.startswith("rsa") else 0)


def _usable(agent: Agent, token: Token) -> tuple[str, ...]:
    added = agent.add_provider(MODULE, PIN)
    assert added.status == 0, (added, agent.log)
    usable = []
    for kind in filter(lambda kind: token.public(kind).exists(), KINDS):
        with agent.connect() as connection:
            if connection.ask(request(token, kind))[:1] == b"\x0e":
                usable.append(kind)
    return tuple(usable)
