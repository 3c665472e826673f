"""Adding providers: what is loaded, who gets the PIN, and what is left when something fails."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from pathlib import Path

import pytest
from doubles.agent_bench import HOME_KEY, WORK_KEY, AgentBench, processes_left
from doubles.stand_ins import PIN, WITHOUT_PIN, WRONG_PIN, Key, StandInToken, refused, run, settle

from replug.agent import additions
from replug.agent.config.options import Options
from replug.agent.keys import provider_names
from replug.agent.keys.refusal import RequestRefusedError
from replug.protocol.messages import Failure, SignResponse, Success
from replug.token.errors import TokenError, Verdict
from replug.token.identity import TokenFlag
from replug.token.pins.pin import Pin


def test_adding_with_a_pin_logs_in(one: AgentBench) -> None:
    async def main() -> None:
        assert await one.add() == Success()
        assert one.slots.logins == [PIN]
        assert isinstance(await one.sign(WORK_KEY), SignResponse)
        assert one.slots.logins == [PIN]

    run(main())


def test_adding_again_checks_the_pin_anew_and_adds_nothing(one: AgentBench) -> None:
    async def main() -> None:
        await one.add()
        assert await one.add() == Success()
        assert one.slots.logins == [PIN, PIN]
        assert await one.listed() == ["work key"]
        assert len(one.keyring.identities.providers()) == 1

    run(main())


def test_adding_again_finds_tokens_that_are_new(one: AgentBench, home: StandInToken) -> None:
    async def main() -> None:
        await one.add()
        one.slots.tokens.append(home)
        assert await one.add(pin=b"") == Success()
        assert await one.listed() == ["work key", "home key"]

    run(main())


def test_the_same_keys_in_ever_more_providers_are_refused(
    one: AgentBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each costs at every change, and certificates multiply them."""
    monkeypatch.setattr(additions, "_MOST_IDENTITIES", 2)

    async def main() -> None:
        await one.add()
        uris = [f"pkcs11:{choice}?module-path={one.module}" for choice in ("token=work", "type=private")]
        assert await one.add(provider=uris[0]) == Success()
        assert await one.add(provider=uris[1]) == Failure()
        assert len(one.keyring.identities.providers()) == 2

    run(main())


def test_providers_are_refused_from_a_number_on(one: AgentBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each costs at every addition and change, however few keys it chooses. No PIN is tried before that."""
    monkeypatch.setattr(additions, "_MOST_PROVIDERS", 2)

    async def main() -> None:
        await one.add()
        uris = [f"pkcs11:{choice}?module-path={one.module}" for choice in ("token=work", "type=private")]
        assert await one.add(provider=uris[0]) == Success()
        asked = len(one.slots.processes)
        assert await one.add(provider=uris[1]) == Failure()
        assert one.reasons == ["the agent serves 2 providers already"]
        assert len(one.slots.processes) == asked

    run(main())


def test_a_link_to_the_module_is_the_module(one: AgentBench, tmp_path: Path) -> None:
    async def main() -> None:
        link = tmp_path / "link.so"
        link.symlink_to(one.module)
        await one.add()
        assert await one.add(provider=str(link)) == Success()
        assert [module.path for module in one.keyring.modules()] == [str(one.module)]
        assert await one.remove(str(link)) == Success()
        assert await one.listed() == []

    run(main())


def test_it_is_the_modules_real_place_that_has_to_be_allowed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, work: StandInToken
) -> None:
    async def main() -> None:
        allowed = tmp_path / "allowed"
        allowed.mkdir()
        agent = AgentBench(monkeypatch, tmp_path, work, options=Options(provider_patterns=f"{allowed}/*"))
        (allowed / "link.so").symlink_to(agent.module)
        for name in (agent.module, allowed / "link.so", allowed / "../module.so"):
            assert await agent.add(provider=str(name)) == Failure()
            assert await agent.add(provider=f"pkcs11:?module-path={name}") == Failure()
        assert agent.reasons == [f"{agent.module} is not in the list of allowed modules ({allowed}/*)"] * 6
        assert agent.slots.processes == []

    run(main())


def test_a_wrong_pin_adds_nothing_and_leaves_no_process(one: AgentBench) -> None:
    async def main() -> None:
        assert await one.add(pin=WRONG_PIN) == Failure()
        assert one.slots.logins == [WRONG_PIN]
        assert await one.listed() == []
        assert one.keyring.modules() == []
        assert processes_left(one) == 0

    run(main())


def test_a_wrong_pin_for_what_is_there_spends_one_try_and_keeps_the_keys(one: AgentBench) -> None:
    async def main() -> None:
        await one.add()
        assert await one.add(pin=WRONG_PIN) == Failure()
        assert one.slots.logins == [PIN, WRONG_PIN]
        assert await one.listed() == ["work key"]
        # The right one is still known.
        assert isinstance(await one.sign(WORK_KEY), SignResponse)
        assert one.slots.logins == [PIN, WRONG_PIN, PIN]

    run(main())


def test_a_module_without_a_token(one: AgentBench) -> None:
    async def main() -> None:
        one.slots.tokens.clear()
        assert await one.add() == Failure()
        assert one.reasons == [f"{one.module}: no such token is present"]
        assert processes_left(one) == 0

    run(main())


def test_a_token_without_a_key(one: AgentBench, work: StandInToken) -> None:
    async def main() -> None:
        work.keys.clear()
        assert await one.add() == Failure()
        assert one.reasons == [f"{one.module}: no key that SSH can use is visible"]
        assert one.remembered(work) is None
        assert processes_left(one) == 0

    run(main())


def test_a_module_that_fails(one: AgentBench) -> None:
    async def main() -> None:
        one.slots.fail_next("scan", refused(Verdict.FAILED, "GeneralError"), refused(Verdict.FAILED, "again"))
        assert await one.add() == Failure()
        assert one.reasons == [f"module {one.module} failed twice: GeneralError, then again"]
        assert one.keyring.modules() == []
        assert processes_left(one) == 0

    run(main())


def test_the_last_try_is_not_spent_by_adding(one: AgentBench, work: StandInToken) -> None:
    async def main() -> None:
        work.flags |= TokenFlag.USER_PIN_FINAL_TRY
        assert await one.add() == Failure()
        assert one.reasons == ['token "work" (serial 1): only one PIN try is left, so this PIN was not sent']
        assert one.slots.logins == []
        one.person.answers.append(PIN)
        assert await one.add(pin=b"") == Success()
        assert isinstance(await one.sign(WORK_KEY), SignResponse)
        assert "LAST TRY" in one.person.requests[0].text()

    run(main())


@pytest.mark.parametrize("case", ["not allowed", "in a URI", "absent", "several", "too many"])
def test_a_pin_that_is_not_used_is_wiped(two: AgentBench, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if case == "too many":
        monkeypatch.setattr(additions, "_MOST_ADDITIONS", 0)

    async def main() -> None:
        name = {
            "not allowed": "/bin/sh",
            "in a URI": two.uri("token=work", "&pin-source=file:/etc/pin"),
            "absent": two.uri("token=absent"),
            "several": str(two.module),
            "too many": str(two.module),
        }[case]
        pin = Pin(PIN)
        with contextlib.suppress(TokenError, RequestRefusedError):
            await two.keyring.add_provider(two.client, name, pin, ())
        assert pin.value == b""
        assert two.slots.logins == []

    run(main())


def test_additions_that_wait_for_a_file_system_keep_out_no_usual_ones(
    two: AgentBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, realpath = threading.Event(), os.path.realpath

    def waits_for_the_dead(path: str, *, strict: bool = False) -> str:
        if path.startswith("/dead"):
            answers.wait(20)
        return realpath(path, strict=strict)

    monkeypatch.setattr(provider_names.os.path, "realpath", waits_for_the_dead)
    monkeypatch.setattr(additions, "_MOST_ADDITIONS", 3)

    async def main() -> None:
        dead = (two.keyring.add_provider(two.client, f"/dead/{n}", None, ()) for n in range(3))
        crowd = [*map(asyncio.create_task, dead)]
        await settle()
        with pytest.raises(RequestRefusedError, match="3 additions of the same program have not ended"):
            await two.keyring.add_provider(two.client, "/dead/more", None, ())
        await two.keyring.add_provider(two.client, two.uri("token=work"), None, ())
        answers.set()
        await asyncio.gather(*crowd, return_exceptions=True)

    run(main())


# One PIN is never tried on a second token.


def test_a_pin_for_several_tokens_is_sent_to_none(two: AgentBench, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        assert await two.add() == Success()
        assert two.slots.pins_sent == []
        assert await two.listed() == ["work key", "home key"]

    run(main())
    [warning] = [record for record in caplog.records if "PIN" in record.getMessage()]
    assert vars(warning)["tokens"] == 'token "work" (serial 1), token "home" (serial 2)'


def test_a_uri_says_whose_the_pin_is(two: AgentBench, work: StandInToken, home: StandInToken) -> None:
    async def main() -> None:
        home.pin = b"home pin"
        assert await two.add(provider=two.uri("token=home"), pin=b"home pin") == Success()
        assert two.slots.logins == [b"home pin"]
        assert await two.listed() == ["home key"]
        assert two.remembered(work) is None

    run(main())


def test_each_token_gets_its_own_pin(two: AgentBench, home: StandInToken) -> None:
    async def main() -> None:
        home.pin = b"home pin"
        await two.add(provider=two.uri("token=home"), pin=b"home pin")
        await two.add(provider=two.uri("token=work"))
        assert await two.listed() == ["home key", "work key"]
        for key in (WORK_KEY, HOME_KEY, WORK_KEY):
            for process in two.slots.processes:
                process.kill()
            assert isinstance(await two.sign(key), SignResponse)
        assert two.slots.logins == [b"home pin", PIN, PIN, b"home pin", PIN]

    run(main())


def test_a_token_that_wants_no_pin_does_not_stand_in_the_way(two: AgentBench, home: StandInToken) -> None:
    """p11-kit's proxy always has two of them, with the system's certificates."""

    async def main() -> None:
        home.flags = WITHOUT_PIN
        assert await two.add() == Success()
        assert two.slots.logins == [PIN]
        assert sorted(await two.listed()) == ["home key", "work key"]

    run(main())


def test_one_token_that_fails_does_not_lose_the_others(two: AgentBench) -> None:
    async def main() -> None:
        failures = [refused(Verdict.FAILED) for _ in range(2)]
        two.slots.fail_next("open", *failures)
        assert await two.add(pin=b"") == Success()
        assert len(await two.listed()) == 1

    run(main())


# URIs.


def test_a_uri_chooses_keys(one: AgentBench, work: StandInToken) -> None:
    async def main() -> None:
        work.keys.append(Key("other"))
        assert await one.add(provider=one.uri("object=other")) == Success()
        assert await one.listed() == ["other"]
        assert await one.sign(WORK_KEY) == Failure()

    run(main())


@pytest.mark.parametrize("query", ["&pin-value=123456", "&pin-value=", "&pin-source=file:/etc/passwd"])
def test_a_uri_neither_holds_a_pin_nor_names_a_file_to_read_it_from(one: AgentBench, query: str) -> None:
    """On ssh-add's command line all the machine's users can read it."""

    async def main() -> None:
        for pin in (b"", PIN):
            assert await one.add(provider=one.uri("token=work", query), pin=pin) == Failure()
        assert ["a PIN is not taken from a URI" in reason for reason in one.reasons] == [True, True]
        assert one.slots.processes == []

    run(main())
