"""A user with keys of each kind, in replug and in OpenSSH's agent, and a host to log in to."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rigs.agent import Agent
from rigs.home import Home
from rigs.key_files import make_key, public_of
from rigs.relay import Relay
from rigs.security_keys import SK_DUMMY, make_sk_key
from rigs.softhsm import Token
from rigs.sshd import USER, Server
from rigs.terminal import Done


@dataclass(frozen=True)
class Key:
    """One of the user's keys: where it is, and of which kind."""

    place: str
    kind: str

    def __str__(self) -> str:
        return f"{self.place} {self.kind}"


FILE, TOKEN, FIDO, RESTRICTED, OTHER = "file", "token", "FIDO", "restricted", "other agent"
FORWARDED = "forwarded"
"""That one is in a file, and is used on the host, too."""
_KINDS = {"ed25519": "ed25519", "p256": "p256", "p521": "p521", "rsa": "rsa2048"}
"""The kinds of keys in files and on tokens, by what `rigs.key_files` calls them; then `rigs.softhsm`."""
_SK_KINDS = ("ed25519-sk", "ecdsa-sk")
KEYS = [
    *(Key(FILE, kind) for kind in _KINDS),
    *(Key(TOKEN, kind) for kind in _KINDS),
    *(Key(FIDO, kind) for kind in _SK_KINDS),
    Key(RESTRICTED, "ed25519"),
    Key(OTHER, "rsa"),
    Key(FORWARDED, "ed25519"),
]
ONE_OF_EACH_PLACE = [
    Key(FILE, "ed25519"), Key(TOKEN, "p256"), Key(FIDO, "ed25519-sk"), Key(RESTRICTED, "ed25519"),
    Key(OTHER, "rsa"),
]  # fmt: skip
UNKNOWN_TO_OPENSSH = Key(TOKEN, "ed25519")
"""Its agent, as Debian 12 and 13 have it, takes no such key from a token."""


class RefusedError(Exception):
    """A client did not get what it was to bring."""


class User:
    """At home, with the keys; `host` lets whoever has one of them in."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.publics = {Key(FILE, kind): public_of(make_key(home, f"file-{kind}", kind)) for kind in _KINDS}
        self._token = Token(home)
        for kind, name in _KINDS.items():
            self.publics[Key(TOKEN, kind)] = self._token.add(name)
        for kind in _SK_KINDS:
            self.publics[Key(FIDO, kind)] = public_of(make_sk_key(home, kind, kind))
        self.publics[Key(RESTRICTED, "ed25519")] = public_of(make_key(home, "restricted"))
        self.publics[Key(OTHER, "rsa")] = public_of(make_key(home, "other", "rsa"))
        self.publics[Key(FORWARDED, "ed25519")] = self.publics[Key(FILE, "ed25519")]
        self.server = Server(home, "MaxAuthTries 100")
        self.document = home.write("document", secrets.token_hex(8) + "\n")
        """On the host: what a client is to bring."""

    @contextmanager
    def agent(self, program: Path, *places: str, behind: Path | None = None) -> Iterator[Relay]:
        """The socket in front of an agent with the keys of these places, in this order.

        If the agent at the socket `behind` is behind it, it has the keys of that one, too.
        """
        env = self._with_upstream(behind) if behind else {}
        with ExitStack() as stack:
            agent = Agent(program, self.home, env=env)
            stack.callback(agent.stop)
            for place in places:
                added = self._add(agent, place)
                assert added.status == 0, (added, agent.log)
            relay = Relay(agent.socket.with_suffix(".relay"), agent.socket)
            stack.callback(relay.close)
            yield relay

    def _with_upstream(self, socket: Path) -> dict[str, str]:
        """The environment of an agent that has the agent at `socket` behind it."""
        (self.home.folder / "upstream" / "replug").mkdir(parents=True, mode=0o700)
        self.home.write("upstream/replug/config.toml", f"modules = []\nupstreams = ['{socket}']\n")
        return {"XDG_CONFIG_HOME": str(self.home.folder / "upstream")}

    def _add(self, agent: Agent, place: str) -> Done:
        files = [path.with_suffix("") for key, path in self.publics.items() if key.place == place]
        if place == TOKEN:
            return agent.add_provider(self._token.module, self._token.pin)
        if place == FIDO:
            return agent.ssh_add("-S", SK_DUMMY, *files)
        if place == RESTRICTED:
            return agent.ssh_add("-H", self.server.known_hosts, "-h", self.server.name, *files)
        return agent.ssh_add(*files)


@dataclass(frozen=True)
class Visit:
    """What a client has: an agent, and a port of the host, where one key opens."""

    user: User
    agent: Relay
    port: int
    key: Key

    @property
    def home(self) -> Home:
        return self.user.home

    @property
    def public(self) -> Path:
        """The .pub file of the key that opens."""
        return self.user.publics[self.key]

    @property
    def is_restricted(self) -> bool:
        """Whether the agent may use that key for logins at this host only (`ssh-add -h`)."""
        return self.key.place == RESTRICTED

    @property
    def is_forwarded(self) -> bool:
        """Whether the client has to forward the agent to the host, where it signs once more."""
        return self.key.place == FORWARDED

    @property
    def forwarding(self) -> list[str]:
        """The option for that."""
        return ["-A"] if self.is_forwarded else []

    @property
    def address(self) -> str:
        """Of the user, as ssh takes it."""
        return f"{USER}@127.0.0.1"

    @property
    def command(self) -> str:
        """What prints the document, on the host."""
        bring = f"cat {self.user.document}"
        return f"ssh-add -T {self.public} && {bring}" if self.is_forwarded else bring

    @property
    def ssh(self) -> list[str]:
        """OpenSSH's ssh for those who run it, with which the host is called `host`."""
        host_key = self.user.server.host_key.read_text()
        known_hosts = self.home.write("visit.known_hosts", f"[127.0.0.1]:{self.port} {host_key}")
        config = [
            "Host host",
            "HostName 127.0.0.1",
            f"Port {self.port}",
            f"User {USER}",
            f"UserKnownHostsFile {known_hosts}",
            "GlobalKnownHostsFile none",
            "IdentityFile none",
            "BatchMode yes",
        ]
        return ["ssh", "-F", str(self.home.write("visit.ssh_config", "\n".join(config) + "\n"))]

    def run(self, *argv: str | Path, env: dict[str, str] | None = None) -> Done:
        """Runs a program, which has to succeed."""
        done = self.home.run(*argv, env={"SSH_AUTH_SOCK": str(self.agent.path)} | (env or {}))
        if done.status:
            raise RefusedError(done)
        return done
