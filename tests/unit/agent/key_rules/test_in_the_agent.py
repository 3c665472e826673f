"""What an agent with `[[key]]` rules lists and signs, for clients of all kinds."""

from __future__ import annotations

import base64
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from doubles.agent_bench import AgentBench
from doubles.private_keys import ed25519_key, message
from doubles.session_hosts import bind_of
from doubles.stand_ins import Key, run

from replug.agent.clients.client import Client
from replug.agent.config.confirm_when import ConfirmWhen
from replug.agent.config.key_rule import KeyRule
from replug.agent.config.model import Config
from replug.agent.dispatch import Conversation
from replug.protocol.extensions import SESSION_BIND, SessionBind
from replug.protocol.keys import blob_algorithm, fingerprint
from replug.protocol.messages import (
    Extension,
    IdentitiesAnswer,
    RequestIdentities,
    SignRequest,
    SignResponse,
    Success,
)
from replug.protocol.userauth import UserauthRequest

SERVER, OTHER = Key(), Key()
KEYS = {name: ed25519_key() for name in ("a", "b", "c", "d", "e", "f", "g")}
AT_SERVER = (fingerprint(SERVER.blob),)
AT_OTHER = (fingerprint(OTHER.blob),)


class Bench(AgentBench):
    """An agent with seven keys, whose comments are a to g, at a user's desk."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.known_hosts = folder / "known_hosts"
        self.known_hosts.write_text(known_as("server", SERVER) + known_as("other", OTHER))
        monkeypatch.setattr("replug.agent.host_names.default_files", lambda: [str(self.known_hosts)])
        super().__init__(monkeypatch, folder)

    async def begin(self, *rules: KeyRule, **said: Any) -> None:
        for name, key in KEYS.items():
            assert await self.ask(bytes(message(key, comment=name.encode()))) == Success()
        self.follow(*rules, **said)

    def follow(self, *rules: KeyRule, **said: Any) -> None:
        """The configuration is read again, with these rules."""
        options = self.keyring.settings.options
        self.keyring.change_options(replace(options, config=Config(key_rules=rules, **said)))

    async def bound(self, *binds: SessionBind) -> Client:
        client = self.new_client()
        for bind in binds or (at(SERVER),):
            assert await self.ask(Extension(SESSION_BIND, bind.encode()), client) == Success()
        return client

    async def names(self, client: Client) -> str:
        answer = await self.ask(RequestIdentities(), client)
        assert isinstance(answer, IdentitiesAnswer)
        return "".join(key.comment.decode() for key in answer.identities)

    async def logs_in(self, client: Client, name: str) -> bool:
        key = KEYS[name].blob
        request = UserauthRequest(b"session", "me", "ssh-ed25519", key)
        return await self.signs(client, key, request.encode())

    async def signs(self, client: Client, key: bytes, data: bytes) -> bool:
        return isinstance(await self.ask(SignRequest(key, data, 0), client), SignResponse)


def known_as(name: str, key: Key) -> str:
    return f"{name} {blob_algorithm(key.blob)} {base64.b64encode(key.blob).decode()}\n"


def at(host: Key, *, forwarding: bool = False, session: bytes = b"session") -> SessionBind:
    return bind_of(host, session, forwarding=forwarding)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bench:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return Bench(monkeypatch, tmp_path)


def test_a_login_at_the_host_is_listed_its_keys_and_everybody_else_all(bench: Bench) -> None:
    async def main() -> None:
        await bench.begin(KeyRule(("f", "c"), ("server",)), KeyRule(("a", "b"), ("elsewhere",)))
        assert await bench.names(await bench.bound()) == "cfdeg"
        assert await bench.names(await bench.bound(at(OTHER))) == "deg"
        assert await bench.names(await bench.bound(at(SERVER, forwarding=True))) == "abcdefg"
        further = at(OTHER, session=b"other")
        assert await bench.names(await bench.bound(at(SERVER, forwarding=True), further)) == "abcdefg"
        assert await bench.names(bench.new_client()) == "abcdefg"
        # What is not listed can be used all the same: a client may know it from before.
        assert await bench.logs_in(await bench.bound(), "a")

    run(main())


def test_the_list_follows_keys_and_rules_and_is_shared_by_all_that_get_the_same(bench: Bench) -> None:
    async def main() -> None:
        await bench.begin(KeyRule(("g",), ("server",)))
        client, other = await bench.bound(), await bench.bound()
        conversation = Conversation(bench.dispatcher, bench.keyring.changes, client)
        assert await bench.names(client) == await bench.names(other) == "gabcdef"
        assert conversation.listing_at_hand() != b""
        assert client.at_hand is other.at_hand
        elsewhere = await bench.bound(at(OTHER))
        assert await bench.names(elsewhere) == "abcdef"
        assert elsewhere.at_hand is not client.at_hand

        assert await bench.ask(bytes(message(ed25519_key(), comment=b"x"))) == Success()
        assert conversation.listing_at_hand() == b""
        assert await bench.names(client) == "gabcdefx"
        bench.follow(KeyRule(("x",), ("server",)))
        assert await bench.names(client) == "xabcdefg"
        bench.follow()
        assert await bench.names(client) == await bench.names(elsewhere) == "abcdefgx"

    run(main())


def test_rules_that_leave_nothing_leave_everything_and_the_log_says_so(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def main() -> None:
        await bench.begin(KeyRule(("*",), ("elsewhere",)))
        client = await bench.bound()
        assert await bench.names(client) == await bench.names(client) == "abcdefg"

    run(main())
    lines = [one for one in caplog.records if "rules would leave none" in one.message]
    assert [vars(one)["destination"] for one in lines] == [f"server ({fingerprint(SERVER.blob)})"]


def test_a_login_teaches_what_the_host_accepts(bench: Bench) -> None:
    async def main() -> None:
        await bench.begin()
        first = await bench.bound()
        assert await bench.names(first) == "abcdefg"
        assert await bench.logs_in(first, "g")
        assert await bench.names(await bench.bound()) == await bench.names(first) == "gabcdef"
        assert await bench.names(await bench.bound(at(OTHER))) == "abcdefg"
        # What one that is accepted as well has always been first for stays so.
        second = await bench.bound()
        assert await bench.names(second) == "gabcdef"
        assert await bench.logs_in(second, "a")
        assert await bench.names(await bench.bound()) == "abcdefg"

    run(main())


def test_restricted_keys_sign_direct_logins_at_their_hosts_only(bench: Bench) -> None:
    async def main() -> None:
        await bench.begin(
            KeyRule((fingerprint(KEYS["a"].blob),), AT_SERVER, restrict=True),
            KeyRule(("a",), ("third",), restrict=True),
        )
        assert await bench.logs_in(await bench.bound(), "a")
        refused = [
            await bench.bound(at(OTHER)),
            await bench.bound(at(OTHER, forwarding=True, session=b"hop"), at(SERVER)),
            bench.new_client(),
        ]
        for client in refused:
            assert not await bench.logs_in(client, "a")
            assert await bench.logs_in(client, "b")
        assert not await bench.signs(await bench.bound(), KEYS["a"].blob, b"data")
        reason = f"signs logins at {AT_SERVER[0]}, third only, from this machine"
        assert all(reason in one for one in bench.reasons)
        assert len(bench.reasons) == 4

    run(main())


def test_rules_say_when_to_ask_and_for_how_long_a_yes_is_good(bench: Bench) -> None:
    async def main() -> None:
        careful = KeyRule(("a",), confirm=ConfirmWhen.ALWAYS, confirm_for=60)
        other = KeyRule(("b",), confirm=ConfirmWhen.OTHER)
        await bench.begin(careful, other, KeyRule(("*",), confirm_for=0))
        client = await bench.bound()

        async def asked(name: str, data: bytes = b"") -> bool:
            before = len(bench.person.confirmations)
            if data:
                assert await bench.signs(client, KEYS[name].blob, data)
            else:
                assert await bench.logs_in(client, name)
            return len(bench.person.confirmations) > before

        assert [await asked("a"), await asked("a")] == [True, False]
        assert [await asked("b"), await asked("b", b"data"), await asked("c")] == [False, True, False]
        bench.follow(careful, confirm=ConfirmWhen.ALWAYS, confirm_for=60)
        assert [await asked("c"), await asked("c")] == [True, False]
        bench.follow(KeyRule(("c",), confirm_for=0), confirm=ConfirmWhen.ALWAYS, confirm_for=60)
        assert [await asked("c"), await asked("c"), await asked("a"), await asked("a")] == [
            True,
            True,
            True,
            False,
        ]

    run(main())
