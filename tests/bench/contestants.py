"""Who is compared: OpenSSH's agent and replug, with the same keys on the same token."""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rigs.agent import LIST_REQUEST, OPENSSH, Agent, sign_request
from rigs.home import Home
from rigs.softhsm import MODULE, PIN, Token

REPLUG = Path(sys.executable).with_name("replug-agent")
KINDS = ("rsa2048", "p256", "ed25519")
LISTING = "listing"
FULL_TOKEN = 24
"""How many keys a YubiKey has room for."""
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
def softhsm(keys: int = len(KINDS)) -> Iterator[Token]:
    """A SoftHSM token with a key of each kind, and RSA-2048 and P-256 keys in turn until it has so many."""
    home = Home()
    try:
        token = Token(home)
        for kind in KINDS:
            token.add(kind)
        for number in range(len(KINDS), keys):
            token.add(KINDS[number % 2], label=f"other{number}")
        yield token
    finally:
        home.remove()


@contextmanager
def on(token: Token, two_workers: str | None = None) -> Iterator[dict[str, Contestant]]:
    """The contestants by name: `openssh`, `replug`, and `workers` with `two_workers`.

    That is the text of a configuration file that gives the module two workers.
    """
    environments: dict[str, dict[str, str]] = {"openssh": {}, "replug": {}}
    if two_workers is not None:
        environments["workers"] = configured(token.home, two_workers)
    running: list[Agent] = []
    try:
        contestants = {}
        for name, environment in environments.items():
            program = OPENSSH if name == "openssh" else REPLUG
            # replug writes a line for each signature; into a file it does so as it would to the journal.
            agent = Agent(program, token.home, "-P", "/usr/lib/*", env=environment)
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
    for kind in KINDS:
        with agent.connect() as connection:
            if connection.ask(request(token, kind))[:1] == b"\x0e":
                usable.append(kind)
    return tuple(usable)
