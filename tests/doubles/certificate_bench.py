"""An agent that makes certificates just in time, from the inside: by two CA keys on two tokens."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from doubles.agent_bench import AgentBench
from doubles.session_hosts import bind_of
from doubles.stand_ins import Key, Person, StandInToken

from replug.agent.clients.client import Client
from replug.agent.clients.peer import Peer
from replug.agent.config.certificate_rule import CertificateRule
from replug.agent.config.model import Config
from replug.agent.config.options import Options
from replug.protocol.certificates import Certificate
from replug.protocol.extensions import SESSION_BIND
from replug.protocol.keys import fingerprint
from replug.protocol.messages import Extension, IdentitiesAnswer, RequestIdentities, Success

CA, SECOND, LOGIN, SERVER = Key("ca key"), Key("second ca"), Key("login"), Key()
RULE = CertificateRule(
    (fingerprint(CA.blob), fingerprint(SECOND.blob)), (fingerprint(SERVER.blob),), ("root",)
)


class CertificateBench(AgentBench):
    """An agent with a rule for SERVER, by two CA keys on two tokens of one module."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, person: Person, **said: Any) -> None:
        self.now = 1000.0
        monkeypatch.setattr("replug.agent.ca.issuing.boottime", lambda: self.now)
        self.known_hosts = folder / "known_hosts"
        monkeypatch.setattr("replug.agent.host_names.default_files", lambda: [str(self.known_hosts)])
        self.first, self.second = (
            StandInToken(CA, LOGIN, label="one", serial="1"),
            StandInToken(SECOND, label="two", serial="2"),
        )
        config = Config(**{"certificate_rules": (RULE,), **said})
        options = Options(provider_patterns=f"{folder}/*", config=config)
        super().__init__(monkeypatch, folder, self.first, self.second, person=person, options=options)

    async def serve(self) -> None:
        """`ssh-add -s`, without a PIN."""
        assert await self.add(pin=b"") == Success()

    async def bound(self, host: Key = SERVER, pid: int | None = None, client: Client | None = None) -> Client:
        """A client, or this one, that logs in at `host`."""
        if client is None:
            client = self.new_client()
            client.peer = Peer(pid or os.getpid(), os.getuid())
        request = Extension(SESSION_BIND, bind_of(host, b"session").encode())
        assert await self.ask(request, client) == Success()
        return client

    async def keys(self, client: Client) -> list[bytes]:
        answer = await self.ask(RequestIdentities(), client)
        assert isinstance(answer, IdentitiesAnswer)
        return [identity.key_blob for identity in answer.identities]

    async def certificate(self, client: Client | None = None) -> Certificate | None:
        """The one that a login at SERVER is listed first."""
        keys = await self.keys(client or await self.bound())
        return Certificate.decode(keys[0]) if keys and b"-cert-" in keys[0][:40] else None

    @property
    def missing(self) -> str:
        """Why the last attempt made none."""
        (state,) = self.keyring.issuing.states()
        return state.missing.reason if state.missing else ""
