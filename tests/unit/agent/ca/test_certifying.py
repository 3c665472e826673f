"""A key that a `[[ca]]` names: certificates within its rules for local clients, and nothing else."""

from __future__ import annotations

import asyncio
import base64
import os
import pwd
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from doubles.agent_bench import AgentBench
from doubles.certificate_bodies import body, user_certificate
from doubles.private_keys import message, rsa_key
from doubles.session_hosts import bind_of, certificate
from doubles.stand_ins import PIN, Key, Person, StandInToken, run

from replug.agent.ca import user_names
from replug.agent.ca.journal import read_journal
from replug.agent.clients.client import Client
from replug.agent.config.ca_entry import CaEntry
from replug.agent.config.certificate_rule import CertificateRule
from replug.agent.config.model import Config
from replug.agent.config.options import Options
from replug.protocol.certificates import CertificateType
from replug.protocol.constants import SignFlag
from replug.protocol.extensions import SESSION_BIND
from replug.protocol.keys import fingerprint
from replug.protocol.messages import (
    Extension,
    Failure,
    IdentitiesAnswer,
    RemoveIdentity,
    RequestIdentities,
    SignRequest,
    SignResponse,
    Success,
)
from replug.protocol.signatures import verify
from replug.protocol.signed_data import HostKeyProof, SshSignature
from replug.protocol.userauth import UserauthRequest

CA, LOGIN, SERVER = Key("ca key"), Key("login"), Key()
USER = pwd.getpwuid(os.getuid()).pw_name
RULE = CaEntry(fingerprint(CA.blob), 600, ("root", "{user}@web"))


class CaBench(AgentBench):
    """An agent whose token holds a CA key and another one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, rule: CaEntry = RULE) -> None:
        options = Options(provider_patterns=f"{folder}/*", config=Config(cas=(rule,)))
        super().__init__(monkeypatch, folder, StandInToken(CA, LOGIN), person=Person(), options=options)

    async def certify(self, *principals: str, **changes: Any) -> bool:
        """Whether the body is signed, rightly."""
        return await self.signs(body(CA, *principals, **changes))

    async def signs(self, data: bytes, client: Client | None = None, blob: bytes = b"") -> bool:
        """Whether the data is signed by the CA key, rightly."""
        reply = await self.ask(SignRequest(blob or CA.blob, data, 0), client)
        if isinstance(reply, SignResponse):
            verify(CA.public, reply.signature, data)
            return True
        assert reply == Failure()
        return False

    async def bound(self, *, forwarding: bool) -> Client:
        client = self.new_client()
        bind = bind_of(SERVER, b"session", forwarding=forwarding)
        assert await self.ask(Extension(SESSION_BIND, bind.encode()), client) == Success()
        return client

    def reload(self, **said: Any) -> None:
        options = self.keyring.settings.options
        self.keyring.change_options(replace(options, config=replace(options.config, **said)))

    @property
    def serials(self) -> list[int]:
        return [one.serial for one in read_journal(self.journal)]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> CaBench:
    return CaBench(monkeypatch, tmp_path)


def test_what_the_rule_allows_is_signed_and_recorded(bench: CaBench) -> None:
    async def main() -> None:
        await bench.add()
        assert await bench.certify("root", f"{USER}@web", serial=11)
        assert await bench.certify("root", serial=12)
        assert bench.reasons == []

    run(main())
    first, second = read_journal(bench.journal)
    assert (first.serial, first.key_id, first.principals) == (11, "alice@here", ("root", f"{USER}@web"))
    assert (first.ca, first.ca_place) == (fingerprint(CA.blob), 'token "work" (serial 1)')
    assert (first.user, first.uid) == (USER, os.getuid())
    assert f"(pid {os.getpid()})" in second.program


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"principals": (b"nobody@web",)}, f"principal 'nobody@web' is not allowed for user {USER}"),
        ({"principals": ()}, "a certificate without principals is good for every user"),
        ({"type": CertificateType.HOST}, "a host certificate is not allowed"),
        ({"valid_before": 2**64 - 1}, "a certificate without an end is not allowed"),
        ({"critical_options": (("foo", b""),)}, "critical option 'foo' is unknown"),
        ({"nonce": b""}, "the nonce is not 16 or more random bytes"),
    ],
)
def test_what_it_forbids_is_refused_in_words(bench: CaBench, changes: dict[str, Any], reason: str) -> None:
    async def main() -> None:
        await bench.add()
        assert not await bench.certify("root", **changes)
        (refusal,) = bench.history
        assert refusal.reason == reason
        assert "certificate" in refusal.purpose
        assert refusal.next_step == "the rules are in the [[ca]] of config.toml, see replug.toml(5)"
        assert bench.serials == []

    run(main())


def login(blob: bytes = b"") -> bytes:
    return UserauthRequest(b"session", "root", "ssh-ed25519", blob or CA.blob, SERVER.blob).encode()


OTHER_DATA = {
    "a login": login(),
    "an SSHSIG": SshSignature(b"git", "sha512", bytes(64)).encode(),
    "a host key proof": HostKeyProof(b"session", CA.blob).encode(),
    "nothing": b"",
    "anything": b"data",
    "a hash": bytes(32),
    "a certificate and a byte": body(CA, "root") + b"\0",
    "a certificate with a signature": user_certificate(CA, "root").encode(),
    "a certificate without its last byte": body(CA, "root")[:-1],
    "a certificate of another CA": body(SERVER, "root"),
    "a certificate with two lists of principals": body(CA, "root").replace(
        b"\0\0\0\x08\0\0\0\x04root", b"\0\0\0\x08\0\0\0\x04root" * 2
    ),
    "a certificate and another": body(CA, "root") * 2,
    "a certificate of an unknown type": body(CA, "root").replace(
        (7).to_bytes(8, "big") + b"\0\0\0\1", (7).to_bytes(8, "big") + b"\0\0\0\3"
    ),
    "a certificate of a certificate": body(CA, "root").replace(
        b"\0\0\0\x33" + CA.blob, len(certificate(CA, SERVER)).to_bytes(4, "big") + certificate(CA, SERVER)
    ),
}


@pytest.mark.parametrize("data", OTHER_DATA.values(), ids=OTHER_DATA.keys())
def test_it_signs_nothing_else(bench: CaBench, data: bytes) -> None:
    async def main() -> None:
        await bench.add()
        assert not await bench.signs(data)
        assert bench.reasons == [f"key {RULE.key} is a CA key: it signs certificates and nothing else"]
        assert bench.serials == []
        # And with the configuration out of the way, it is the rule that has held it back.
        bench.reload(cas=())
        assert await bench.signs(data)

    run(main())


@pytest.mark.parametrize("data", OTHER_DATA.values(), ids=OTHER_DATA.keys())
def test_that_a_certificate_rule_names_it_is_enough(bench: CaBench, data: bytes) -> None:
    async def main() -> None:
        rule = CertificateRule((fingerprint(CA.blob),), ("server",), ("root",))
        bench.reload(cas=(), certificate_rules=(rule,))
        await bench.add()
        assert not await bench.signs(data)
        assert bench.reasons[-1] == (
            f"key {fingerprint(CA.blob)} is a CA key: it signs certificates and nothing else"
        )
        # Which ones is not limited, and each is on record.
        assert await bench.certify("anybody", valid_before=2**64 - 1, serial=5)

    run(main())
    assert bench.serials == [5]


@pytest.mark.parametrize("forwarding", [False, True])
def test_nothing_over_a_connection_that_is_bound(bench: CaBench, forwarding: bool) -> None:
    async def main() -> None:
        await bench.add()
        client = await bench.bound(forwarding=forwarding)
        for data in (body(CA, "root"), login()):
            assert not await bench.signs(data, client)
        (reason,) = set(bench.reasons)
        assert reason == "a CA key signs nothing over a connection that is bound to a session or forwarded"
        assert await bench.signs(body(CA, "root"))

    run(main())


def test_a_bind_that_failed_counts(bench: CaBench) -> None:
    async def main() -> None:
        await bench.add()
        client = bench.new_client()
        await bench.ask(Extension(SESSION_BIND, b"malformed"), client)
        assert not await bench.signs(body(CA, "root"), client)

    run(main())


def test_it_is_listed_where_it_can_be_used(bench: CaBench) -> None:
    async def main() -> None:
        await bench.add()

        async def listed(client: Client) -> list[bytes]:
            answer = await bench.ask(RequestIdentities(), client)
            assert isinstance(answer, IdentitiesAnswer)
            return [one.comment for one in answer.identities]

        local, bound = bench.new_client(), await bench.bound(forwarding=False)
        assert await listed(local) == [b"ca key", b"login"]
        assert await listed(bound) == [b"login"]
        bench.reload(cas=())
        assert await listed(bound) == [b"ca key", b"login"]
        bench.reload(cas=(RULE,))
        assert await listed(bound) == [b"login"]

    run(main())


def test_who_does_not_see_it_cannot_remove_it(bench: CaBench) -> None:
    async def main() -> None:
        await bench.add()
        bound = await bench.bound(forwarding=True)
        assert await bench.ask(RemoveIdentity(CA.blob), bound) == Failure()
        assert await bench.certify("root")
        assert await bench.ask(RemoveIdentity(CA.blob)) == Success()
        assert not await bench.certify("root")

    run(main())


def test_a_key_in_memory_is_no_way_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    private = rsa_key()
    rule = replace(RULE, key=fingerprint(private.public.encode()))
    bench = CaBench(monkeypatch, tmp_path, rule)

    async def main() -> None:
        assert await bench.ask(bytes(message(private, comment=b"ca"))) == Success()
        blob = private.public.encode()

        async def signed(data: bytes, flags: int) -> bool:
            return isinstance(await bench.ask(SignRequest(blob, data, flags)), SignResponse)

        assert not await signed(SshSignature(b"git", "sha512", bytes(64)).encode(), SignFlag.RSA_SHA2_512)
        assert await signed(body(blob, "root"), SignFlag.RSA_SHA2_512)
        assert await signed(body(blob, "root"), SignFlag.RSA_SHA2_256)
        assert not await signed(body(blob, "root"), 0)
        assert bench.reasons[-1] == "an RSA CA key does not sign with SHA-1"
        assert len(bench.serials) == 2
        bench.keyring.end()

    run(main())


def test_a_certificate_of_the_ca_key_is_no_way_around(bench: CaBench, tmp_path: Path) -> None:
    path = tmp_path / "ca-cert.pub"
    blob = certificate(CA, SERVER, "root", type=CertificateType.USER)

    async def main() -> None:
        path.write_bytes(b"ssh-ed25519-cert-v01@openssh.com " + base64.b64encode(blob) + b"\n")
        bench.reload(certificates=(str(path),))
        await bench.keyring.certificate_files.look()
        await bench.add()
        assert len(await bench.listed()) == 3
        bound = await bench.bound(forwarding=False)
        request = UserauthRequest(b"session", "root", "ssh-ed25519-cert-v01@openssh.com", blob, SERVER.blob)
        assert not await bench.signs(request.encode(), bound, blob)
        assert not await bench.signs(request.encode(), None, blob)
        answer = await bench.ask(RequestIdentities(), bound)
        assert isinstance(answer, IdentitiesAnswer)
        assert [one.comment for one in answer.identities] == [b"login"]

    run(main())


def test_other_keys_are_as_before(bench: CaBench) -> None:
    async def main() -> None:
        await bench.add()
        assert isinstance(await bench.sign(LOGIN), SignResponse)
        data = body(LOGIN, "anybody", valid_before=2**64 - 1)
        assert isinstance(await bench.ask(SignRequest(LOGIN.blob, data, 0)), SignResponse)
        assert bench.serials == []

    run(main())


def test_the_question_shows_what_is_certified(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bench = CaBench(monkeypatch, tmp_path, replace(RULE, confirm=True))

    async def main() -> None:
        bench.reload(confirm_for=600)
        await bench.add()
        assert await bench.certify("root", serial=42)
        assert await bench.certify("root", serial=43)
        # What is forbidden is not asked about.
        assert not await bench.certify("alice")
        first, second = bench.person.confirmations
        lines = first.asker.purpose
        assert lines[0].startswith("user certificate, valid until ")
        assert lines[1:4] == ("for root", "key id alice@here", "serial 42")
        assert "serial 43" in second.asker.purpose
        bench.person.agrees = False
        assert not await bench.certify("root", serial=44)
        assert bench.serials == [42, 43]

    run(main())


async def refused_by_what_is_read_while_the_user_is_asked(bench: CaBench) -> None:
    answered = asyncio.Event()
    bench.person.may_answer = answered.wait()
    signing = asyncio.create_task(bench.certify("root"))
    await bench.person.asked.wait()
    bench.reload(cas=(replace(RULE, principals=("alice",)),))
    answered.set()
    assert not await signing
    assert bench.reasons == ["principal 'root' is not allowed"]
    assert bench.serials == []


def test_a_rule_that_is_read_while_the_user_is_asked_holds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bench = CaBench(monkeypatch, tmp_path, replace(RULE, confirm=True))

    async def main() -> None:
        await bench.add()
        await refused_by_what_is_read_while_the_user_is_asked(bench)

    run(main())


def test_a_rule_that_is_read_while_the_token_signs_holds(bench: CaBench) -> None:
    """The signature is there, and stays in the agent."""

    async def main() -> None:
        bench.person.answers = [PIN]
        await bench.add(pin=b"")
        await refused_by_what_is_read_while_the_user_is_asked(bench)
        assert len(bench.person.requests) == 1

    run(main())


def test_without_a_record_nothing_is_issued(bench: CaBench) -> None:
    async def main() -> None:
        bench.journal.mkdir(parents=True)
        await bench.add()
        assert not await bench.certify("root")
        (reason,) = bench.reasons
        assert reason.startswith("the certificate cannot be recorded (issued.jsonl): Is a directory")

    run(main())


def test_a_directory_service_that_hangs_is_not_waited_for(
    bench: CaBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()
    monkeypatch.setattr(user_names, "_PATIENCE", 0.01)
    monkeypatch.setattr(user_names, "_name_of", lambda _: os.read(reading, 1).decode())

    async def main() -> None:
        await bench.add()
        try:
            assert not await bench.certify("root")
            assert bench.reasons == [f"the name of user {os.getuid()} was not looked up in time"]
        finally:
            os.write(writing, b"xxx")

    run(main())


def test_a_user_without_a_name_is_refused(bench: CaBench, monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless(uid: int) -> str:
        raise KeyError(uid)

    monkeypatch.setattr(user_names, "_name_of", nameless)

    async def main() -> None:
        await bench.add()
        assert not await bench.certify("root")
        assert bench.reasons == [f"user {os.getuid()} has no name on this machine"]
        # Where the rule does not need it, the record has the number.
        bench.reload(cas=(replace(RULE, principals=("root",)),))
        assert await bench.certify("root")
        (entry,) = read_journal(bench.journal)
        assert entry.user == str(os.getuid())

    run(main())
