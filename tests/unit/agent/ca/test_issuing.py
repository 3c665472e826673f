"""Certificates just in time, where it is about who waits for whom, who is asked, and who is not."""

from __future__ import annotations

import asyncio
import base64
import gc
import hashlib
import hmac
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from doubles.agent_bench import ControlRig
from doubles.certificate_bench import CA, LOGIN, RULE, SECOND, SERVER, CertificateBench
from doubles.private_keys import ed25519_key, message
from doubles.session_hosts import HERE, bind_of, hop, leave
from doubles.stand_ins import PIN, Key, Person, lost, run, settle

from replug.agent.ca import issuing
from replug.agent.ca.rule_state import RuleState
from replug.agent.config.confirm_when import ConfirmWhen
from replug.agent.config.key_rule import KeyRule
from replug.agent.dispatch import Conversation
from replug.protocol.certificates import Certificate
from replug.protocol.constraints import RestrictDestination
from replug.protocol.extensions import SESSION_BIND
from replug.protocol.keys import fingerprint
from replug.protocol.messages import (
    Extension,
    Lock,
    RemoveAllIdentities,
    RemoveIdentity,
    SignRequest,
    SignResponse,
    Success,
)
from replug.token.errors import NobodyAskedError
from replug.token.pins.pin import Pin
from replug.token.prompts.request import PinRequest


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    return lambda person, **said: CertificateBench(monkeypatch, tmp_path, person, **said)


class Silent(Person):
    """Does not answer."""

    def __init__(self) -> None:
        super().__init__()
        self.withdrawn = 0

    async def ask(self, request: PinRequest) -> Pin:
        self.requests.append(request)
        self.asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.withdrawn += 1
        raise AssertionError


class Deadlines:
    """What stands in for asyncio in `issuing`: the times that are allowed there, which pass when told."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._running: list[asyncio.Timeout] = []

    def timeout(self, seconds: float) -> asyncio.Timeout:
        self.seconds.append(seconds)
        self._running.append(asyncio.timeout(None))
        return self._running[-1]

    def are_over(self) -> None:
        """The last one's time has passed."""
        self._running[-1].reschedule(asyncio.get_running_loop().time())


@pytest.mark.parametrize(("prompt_timeout", "longest"), [(120.0, 90.0), (600.0, 90.0), (20.0, 20.0)])
def test_a_question_that_stands_ends_in_time_and_does_not_return_for_30_seconds(
    make: Any, monkeypatch: pytest.MonkeyPatch, prompt_timeout: float, longest: float
) -> None:
    """sshd's LoginGraceTime is 120 s."""

    async def main() -> None:
        deadlines, person = Deadlines(), Silent()
        monkeypatch.setattr(issuing, "asyncio", deadlines)
        bench = make(person, prompt_timeout=prompt_timeout)
        await bench.serve()

        async def unanswered() -> None:
            person.asked.clear()
            client = await bench.bound()
            listing = asyncio.create_task(bench.keys(client))
            await person.asked.wait()
            deadlines.are_over()
            assert await listing == [LOGIN.blob]
            await settle()

        await unanswered()
        assert (person.withdrawn, deadlines.seconds) == (1, [longest])
        assert bench.missing == f"none was made within {longest:g} s"
        for _ in range(2):
            bench.now += 14.0
            assert await bench.certificate() is None
            assert bench.missing == "the user declined a moment ago"
        assert len(person.requests) == 1
        bench.now += 3.0
        await unanswered()
        assert len(person.requests) == 2
        bench.keyring.end()

    run(main())


def test_others_do_not_wait_for_a_question(make: Any) -> None:
    async def main() -> None:
        person = Silent()
        bench = make(person)
        await bench.serve()
        waiting = asyncio.create_task(bench.certificate())
        await person.asked.wait()
        assert await bench.keys(bench.client) == [CA.blob, LOGIN.blob, SECOND.blob]
        assert await bench.keys(await bench.bound(Key())) == [LOGIN.blob]
        # Whoever has it asked for hangs up, and the question goes.
        waiting.cancel()
        await asyncio.wait([waiting])
        assert person.withdrawn == 1
        bench.keyring.end()

    run(main())


def test_a_client_that_leaves_does_not_end_it_for_others(make: Any) -> None:
    async def main() -> None:
        gate = asyncio.Event()
        person = Person(PIN)
        person.may_answer = gate.wait()
        bench = make(person)
        await bench.serve()
        first, second = await bench.bound(), await bench.bound()
        leaving = asyncio.create_task(bench.certificate(first))
        await person.asked.wait()
        staying = asyncio.create_task(bench.certificate(second))
        await settle()
        leaving.cancel()
        await asyncio.wait([leaving])
        gate.set()
        assert await staying is not None
        assert (len(person.requests), bench.slots.operations.count("sign")) == (1, 1)
        bench.keyring.end()

    run(main())


def test_who_cannot_be_asked_does_not_decide_for_who_can(make: Any) -> None:
    """A job without a terminal has it begun; the user at one is asked then."""

    class Elsewhere(Person):
        async def ask(self, request: PinRequest) -> Pin:
            if not self.requests:
                self.requests.append(request)
                self.asked.set()
                await self.may_answer  # type: ignore[misc]
                self.may_answer = None
                raise request.nobody_asked([NobodyAskedError("no terminal")])
            return await super().ask(request)

    async def main() -> None:
        gate = asyncio.Event()
        person = Elsewhere(PIN)
        person.may_answer = gate.wait()
        bench = make(person, certificate_rules=(replace(RULE, ca=RULE.ca[:1]),))
        await bench.serve()
        first, second = await bench.bound(), await bench.bound()
        job = asyncio.create_task(bench.certificate(first))
        await person.asked.wait()
        user = asyncio.create_task(bench.certificate(second))
        await settle()
        gate.set()
        assert await job is None
        assert await user is not None
        bench.keyring.end()

    run(main())


def test_who_waits_begins_nothing_once_all_is_removed(make: Any) -> None:
    """The first client could not be asked, and the agent is emptied before the second one is."""

    class Elsewhere(Person):
        async def ask(self, request: PinRequest) -> Pin:
            self.requests.append(request)
            self.asked.set()
            await gate.wait()
            raise request.nobody_asked([NobodyAskedError("no terminal")])

    gate = asyncio.Event()

    async def main() -> None:
        person = Elsewhere()
        bench = make(person, certificate_rules=(replace(RULE, ca=RULE.ca[:1]),))
        await bench.serve()
        clients = await bench.bound(), await bench.bound()
        first = asyncio.create_task(bench.certificate(clients[0]))
        await person.asked.wait()
        second = asyncio.create_task(bench.certificate(clients[1]))
        await settle()
        (state,) = bench.keyring.issuing.states()
        state.attempt._task.add_done_callback(lambda _: bench.keyring.remove_all())
        gate.set()
        assert await asyncio.gather(first, second) == [None, None]
        assert bench.reasons[-1].endswith("locked or emptied meanwhile"), bench.reasons
        assert state.key is None
        bench.keyring.end()

    run(main())


@pytest.mark.parametrize("request_", [RemoveAllIdentities(), Lock(b"secret")])
def test_what_ends_the_attempt(make: Any, request_: Any) -> None:
    async def main() -> None:
        bench = make(Person(PIN))
        await bench.serve()
        held = bench.slots.hold_next("sign")
        waiting = asyncio.create_task(bench.certificate())
        await held.entered.wait()
        assert await bench.ask(request_) == Success()
        held.opened.set()
        assert await waiting is None
        (state,) = bench.keyring.issuing.states()
        assert (state.issued, bench.reasons[-1].endswith("locked or emptied meanwhile")) == ([], True)
        bench.keyring.end()

    run(main())


def test_what_is_not_a_login_from_here_has_none_made_and_uses_none(make: Any) -> None:
    """Forwarded to that very host, logging in there by way of another, and bound wrongly."""

    async def main() -> None:
        bench = make(Person(PIN))
        await bench.serve()
        through, near = bind_of(SERVER, b"one", forwarding=True), bind_of(Key(), b"two", forwarding=True)
        wrong = replace(bind_of(SERVER, b"three"), session_id=b"four")
        ways = [[through], [near, bind_of(SERVER, b"five")], [wrong], [wrong, bind_of(SERVER, b"six")]]
        clients = []
        for binds in ways:
            clients.append(bench.new_client())
            for bind in binds:
                await bench.ask(Extension(SESSION_BIND, bind.encode()), clients[-1])
            assert await bench.keys(clients[-1]) == [LOGIN.blob]
        assert "sign" not in bench.slots.operations

        blob, *_ = await bench.keys(await bench.bound())
        for client in clients:
            assert await bench.keys(client) == [LOGIN.blob]
            for key in (blob, CA.blob):
                assert not isinstance(await bench.ask(SignRequest(key, b"data", 0), client), SignResponse)
            assert await bench.ask(RemoveIdentity(blob), client) != Success()
        assert isinstance(await bench.ask(SignRequest(blob, b"data", 0)), SignResponse)
        bench.keyring.end()

    run(main())


def test_the_second_token_stands_in(make: Any) -> None:
    async def main() -> None:
        bench = make(Person(PIN, PIN, PIN))
        await bench.serve()
        bench.slots.tokens = [bench.second]
        made = await bench.certificate()
        assert made is not None
        assert made.ca_key == SECOND.blob
        made.verify_signature()
        bench.keyring.end()

    run(main())


def test_a_module_that_fails_for_one_ca_key(make: Any) -> None:
    async def main() -> None:
        bench = make(Person(PIN, PIN))
        await bench.serve()
        bench.slots.fail_next("sign", lost(), lost())
        made = await bench.certificate()
        assert made is not None
        assert made.ca_key == SECOND.blob
        bench.keyring.end()

    run(main())


def test_a_confirmation_that_the_ca_key_requires(make: Any) -> None:
    async def main() -> None:
        person = Person(PIN)
        bench = make(person, confirm=ConfirmWhen.ALWAYS)
        await bench.serve()
        person.agrees = False
        for _ in range(2):
            assert await bench.certificate() is None
        (question,) = person.confirmations
        assert "user certificate for a login at the host with key" in question.text()
        assert "for root" in question.text()
        person.agrees = True
        bench.now += 31.0
        assert await bench.certificate() is not None
        bench.keyring.end()

    run(main())


def test_what_was_removed_is_not_kept(make: Any) -> None:
    """Scripts that begin with `ssh-add -D` are not to fill the memory."""

    async def main() -> None:
        bench = make(Person(*[PIN] * 4))
        await bench.serve()
        for _ in range(4):
            assert await bench.certificate() is not None
            assert await bench.ask(RemoveAllIdentities()) == Success()
            await bench.serve()
        gc.collect()
        states = [held for held in gc.get_objects() if isinstance(held, RuleState)]
        assert len(states) <= 2
        bench.keyring.end()

    run(main())


def test_a_certificate_can_be_removed_and_comes_again(make: Any) -> None:
    async def main() -> None:
        bench = make(Person(PIN))
        await bench.serve()
        (blob, *_) = await bench.keys(await bench.bound())
        assert await bench.ask(RemoveIdentity(blob)) == Success()
        assert blob not in await bench.keys(bench.client)
        assert not isinstance(await bench.ask(SignRequest(blob, b"data", 0)), SignResponse)
        again, *_ = await bench.keys(await bench.bound())
        assert again != blob
        assert isinstance(await bench.ask(SignRequest(again, b"data", 0)), SignResponse)
        bench.keyring.end()

    run(main())


def test_what_is_listed_is_right_while_a_certificate_lasts(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At hand as any list, until the next certificate is due; an unbound client's until one ends."""

    async def main() -> None:
        bench = make(Person(PIN))
        await bench.serve()
        client = await bench.bound()
        made = await bench.certificate(client)
        await bench.keys(bench.client)
        assert made is not None
        assert client.at_hand.until == made.valid_before - 120
        assert bench.client.at_hand.until == made.valid_before
        assert client.at_hand.frame
        monkeypatch.setattr("time.time", lambda: made.valid_before - 119.0)
        after = await bench.certificate(client)
        assert after is not None
        assert after.serial > made.serial
        bench.keyring.end()

    run(main())


def test_who_logs_in_at_hosts_of_a_rule_shares_a_list_unless_keys_are_for_some_hosts_only(make: Any) -> None:
    async def main() -> None:
        other = Key()
        rule = replace(RULE, hosts=(fingerprint(SERVER.blob), fingerprint(other.blob)))
        bench = make(Person(PIN), certificate_rules=(rule,))
        await bench.serve()
        assert await bench.certificate() is not None
        client, elsewhere = await bench.bound(other), await bench.bound(SERVER)
        conversation = Conversation(bench.dispatcher, bench.keyring.changes, client)
        assert conversation.listing_at_hand() == b""
        await bench.keys(client)
        assert b"-cert-" in conversation.listing_at_hand()
        await bench.keys(elsewhere)
        assert client.at_hand is elsewhere.at_hand

        key = ed25519_key()
        limits = RestrictDestination((leave(HERE, hop("other", other)),))
        assert await bench.ask(bytes(message(key, limits))) == Success()
        assert conversation.listing_at_hand() == b""
        for _ in range(2):
            assert key.blob in await bench.keys(client)
            assert key.blob not in await bench.keys(elsewhere)
        bench.keyring.end()

    run(main())


def test_a_certificate_is_enough_where_the_rules_leave_no_key(make: Any) -> None:
    async def main() -> None:
        bench = make(Person(PIN), key_rules=(KeyRule(("*",), ("elsewhere",)),))
        key = base64.b64encode(SERVER.blob).decode()
        bench.known_hosts.write_text(f"server ssh-ed25519 {key}\n")
        await bench.serve()
        client = await bench.bound()
        assert [b"-cert-" in key[:40] for key in await bench.keys(client)] == [True]
        elsewhere = Key()
        assert await bench.keys(await bench.bound(elsewhere)) == [LOGIN.blob]
        bench.keyring.end()

    run(main())


@pytest.mark.parametrize(
    ("names", "hosts", "found"),
    [
        ("{},server.example.com", ("*.example.com",), True),
        ("*.example.com,{},secret", ("*.example.com", "!secret"), False),
        ("*.example.com,{},[secret]:2222", ("*.example.com", "!secret"), False),
        ("*.example.com,{}", ("*.example.com", "!secret"), True),
    ],
)
def test_a_host_with_more_names_than_are_shown(
    make: Any, names: str, hosts: tuple[str, ...], found: bool
) -> None:
    async def main() -> None:
        bench = make(Person(PIN), certificate_rules=(replace(RULE, hosts=hosts),))
        key = base64.b64encode(SERVER.blob).decode()
        known = names.format(",".join(f"10.0.0.{i}" for i in range(5)))
        bench.known_hosts.write_text(f"{known} ssh-ed25519 {key}\n")
        await bench.serve()
        assert (await bench.certificate() is not None) == found
        bench.keyring.end()

    run(main())


def hashed(name: str) -> str:
    salt = bytes(20)
    value = hmac.digest(salt, name.encode(), hashlib.sha1)
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(value).decode()}"


@pytest.mark.parametrize(
    ("hosts", "arguments", "found"),
    [
        (("server1.example.com",), (), True),
        ((*(f"no{i}" for i in range(20)), "server1.example.com"), (), True),
        (("*.example.com",), (), False),
        (("server1.example.com", "!10.0.0.1"), (), False),
        (("*.example.com",), ("-v", "root@server1.example.com", "id"), True),
        (("*.example.com",), ("ssh://root@Server1.example.com:22",), True),
        (("*.example.com",), ("root@server2.example.com",), False),
        (("*.example.com",), ("root@server1.example.com", "apt", *(f"package{i}" for i in range(200))), True),
    ],
)
def test_hashed_names(make: Any, hosts: tuple[str, ...], arguments: tuple[str, ...], found: bool) -> None:
    """Of known_hosts as Debian's ssh writes it: what is spelt out, or is on ssh's command line."""

    async def main() -> None:
        bench = make(Person(PIN), certificate_rules=(replace(RULE, hosts=hosts),))
        key = base64.b64encode(SERVER.blob).decode()
        names = ("server1.example.com", "10.0.0.1")
        bench.known_hosts.write_text("".join(f"{hashed(name)} ssh-ed25519 {key}\n" for name in names))
        await bench.serve()
        program = [sys.executable, "-c", "input()", *arguments]
        with subprocess.Popen(program, stdin=subprocess.PIPE) as process:
            client = await bench.bound(pid=process.pid)
            assert (await bench.certificate(client) is not None) == found
            process.communicate(b"\n")
        bench.keyring.end()

    run(main())


def test_replug_ca_issue_writes_the_files_again(
    make: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the last certificate is still good, and after a no; for rules that have a file only."""
    file = tmp_path / "login-cert.pub"
    rules = (replace(RULE, certificate_file=str(file)), replace(RULE, hosts=("*",)))
    person = Person(None, PIN)
    bench = make(person, certificate_rules=rules)
    rig = ControlRig(bench, tmp_path, capsys)
    monkeypatch.setenv("SSH_AUTH_SOCK", rig.socket)

    def serial() -> int:
        return Certificate.decode(base64.b64decode(file.read_text().split()[1])).serial

    async def main() -> None:
        await bench.serve()
        await rig.control.start()
        # The user says no to a login, and is not asked again at once, but by this command.
        assert await bench.certificate() is None
        said = await rig.replug("ca", "issue")
        assert said[0] == 0, said
        first = serial()
        assert said[1].startswith(f"{file}: ")
        assert said[1].endswith(f", serial {first}\n")
        listed = await bench.certificate()
        assert listed is not None
        assert listed.serial == first
        assert (await rig.replug("ca", "issue"))[0] == 0
        assert serial() > first
        assert [len(state.issued) for state in bench.keyring.issuing.states()] == [2, 0]
        bench.slots.tokens = []
        status, _, complaint = await rig.replug("ca", "issue")
        assert status == 1
        assert f"{file}: " in complaint
        status, _, complaint = await rig.replug("ca", "issue", "-n", "root")
        assert (status, complaint) == (1, "replug: which key? The options are for a KEY.pub\n")
        await rig.control.close()
        bench.keyring.end()

    run(main())
