"""What the configuration says of tokens, and what it has the agent serve without being asked."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from doubles.agent_bench import AgentBench
from doubles.stand_ins import PIN, Key, Person, StandInToken, run

from replug.agent.config.confirm_when import ConfirmWhen
from replug.agent.config.model import Config, TokenEntry
from replug.agent.config.options import Options
from replug.protocol.constraints import Confirm, Lifetime
from replug.protocol.messages import (
    Failure,
    Lock,
    RemoveAllIdentities,
    RemoveIdentity,
    SignResponse,
    Success,
)
from replug.token.names.uri import Uri, parse_uri
from replug.token.pins.lifetime import ForgetOn

ONE, OTHER = Key("one"), Key("other")


class Clock:
    """CLOCK_BOOTTIME, which stands still until a test moves it."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """For the PINs and for the keyring's timer."""
    clock = Clock()
    for user in ("token.pins.rules", "agent.keys.expiry"):
        monkeypatch.setattr(f"replug.{user}.boottime", clock)
    return clock


class Bench(AgentBench):
    """An agent that goes by a configuration; its module is served by that."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        folder: Path,
        *tokens: StandInToken,
        person: Person | None = None,
        clock: Clock | None = None,
        allowed: str = "*",
        entries: tuple[TokenEntry, ...] = (),
        forget_pin_on: frozenset[ForgetOn] = frozenset(),
        pin_time_to_live: int | None = None,
    ) -> None:
        self.config = Config(
            modules=(str(folder / "module.so"),),
            tokens=entries,
            forget_pin_on=forget_pin_on,
            pin_time_to_live=pin_time_to_live,
        )
        options = Options(provider_patterns=allowed, config=self.config)
        super().__init__(monkeypatch, folder, *tokens, person=person, options=options)
        if clock is not None:
            self.keyring.changes.clock = clock

    async def begin(self) -> None:
        """Serve what is configured, as the service does at its start."""
        self.keyring.begin()
        await self.keyring.first_scan.wait()

    async def replug(self) -> None:
        """Have the module looked at, as the watcher does."""
        [module] = self.keyring.modules()
        for token in await module.look():
            await token.read()


def entry(uri: str = "pkcs11:", **said: object) -> TokenEntry:
    return TokenEntry(parse_uri(uri), **said)  # type: ignore[arg-type]


def test_what_is_configured_is_listed_from_the_first_request_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The first `ssh` may be what has started the agent: it waits until the tokens have been looked at."""

    async def main() -> None:
        agent = Bench(monkeypatch, tmp_path, StandInToken(ONE), person=Person(PIN))
        agent.keyring.begin()
        assert await agent.listed() == ["one"]
        assert agent.slots.logins == []
        assert isinstance(await agent.sign(ONE), SignResponse)

    run(main())


def test_a_listing_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def main() -> None:
        monkeypatch.setattr("replug.agent.keys.first_scan._USUAL", 0.01)
        monkeypatch.setattr("replug.agent.keys.first_scan._SIGN_OF_LIFE", 0.1)
        agent = Bench(monkeypatch, tmp_path, StandInToken(ONE))
        gate = agent.slots.hold_next("scan")
        agent.keyring.begin()
        assert await agent.listed() == []
        gate.opened.set()
        await agent.keyring.first_scan.wait()

    run(main())


@pytest.mark.parametrize("operation", ["load", "open"])
def test_the_first_listing_waits_while_a_card_is_visibly_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, operation: str
) -> None:
    async def main() -> None:
        monkeypatch.setattr("replug.agent.keys.first_scan._USUAL", 0.01)
        agent = Bench(monkeypatch, tmp_path, StandInToken(ONE))
        gate = agent.slots.hold_next(operation)
        agent.keyring.begin()
        await gate.entered.wait()
        [worker] = agent.slots.workers
        worker.last_sign = asyncio.get_running_loop().time() + 60
        listing = asyncio.create_task(agent.listed())
        done, _ = await asyncio.wait({listing}, timeout=0.5)
        assert not done
        gate.opened.set()
        assert await listing == ["one"]

    run(main())


def test_the_first_listing_does_not_wait_for_a_card_for_ever(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def main() -> None:
        monkeypatch.setattr("replug.agent.keys.first_scan._USUAL", 0.01)
        monkeypatch.setattr("replug.agent.keys.first_scan._SLOW_CARD", 0.1)
        agent = Bench(monkeypatch, tmp_path, StandInToken(ONE))
        gate = agent.slots.hold_next("open")
        agent.keyring.begin()
        await gate.entered.wait()
        [worker] = agent.slots.workers
        worker.last_sign = asyncio.get_running_loop().time() + 60
        assert await agent.listed() == []
        gate.opened.set()
        await agent.keyring.first_scan.wait()

    run(main())


def test_a_module_outside_the_allow_list_is_not_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`-P` on the command line holds for what the file names, too."""

    async def main() -> None:
        agent = Bench(monkeypatch, tmp_path, StandInToken(ONE), allowed="/usr/lib/*")
        await agent.begin()
        assert (await agent.listed(), agent.slots.calls) == ([], [])

    run(main())


def test_a_locked_agent_looks_and_does_not_log_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def main() -> None:
        agent = Bench(monkeypatch, tmp_path, StandInToken(ONE))
        await agent.ask(Lock(b"secret"))
        await agent.begin()
        assert await agent.listed() == []
        assert agent.slots.logins == []

    run(main())


def test_filter_order_and_comment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def main() -> None:
        token = StandInToken(Key("a"), Key("b"), Key("c"))
        said = entry("pkcs11:token=work", keys=("c", "a*"), comment="{label} on {token}")
        agent = Bench(monkeypatch, tmp_path, token, entries=(said,))
        await agent.begin()
        assert await agent.listed() == ["c on work", "a on work"]

    run(main())


def test_confirm_is_for_the_keys_of_the_token_that_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def main() -> None:
        person = Person(PIN, PIN)
        tokens = StandInToken(ONE), StandInToken(OTHER, serial="2")
        agent = Bench(
            monkeypatch,
            tmp_path,
            *tokens,
            person=person,
            entries=(entry("pkcs11:serial=2", confirm=ConfirmWhen.ALWAYS),),
        )
        await agent.begin()
        person.agrees = False
        assert isinstance(await agent.sign(ONE), SignResponse)
        assert await agent.sign(OTHER) == Failure()
        assert [asked.key for asked in person.confirmations] == ["other"]
        person.agrees = True
        assert isinstance(await agent.sign(OTHER), SignResponse)

    run(main())


def test_a_lifetime_ends_the_keys_and_the_pin_of_its_token_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clock: Clock
) -> None:
    async def main() -> None:
        person = Person(PIN, PIN)
        first, second = StandInToken(ONE), StandInToken(OTHER, serial="2")
        agent = Bench(
            monkeypatch,
            tmp_path,
            first,
            second,
            person=person,
            clock=clock,
            entries=(entry("pkcs11:serial=1", lifetime=60),),
        )
        await agent.begin()
        assert isinstance(await agent.sign(ONE), SignResponse)
        assert isinstance(await agent.sign(OTHER), SignResponse)
        clock.now += 60
        assert await agent.listed() == ["other"]
        assert await agent.sign(ONE) == Failure()
        assert agent.remembered(first) is None
        assert agent.remembered(second) is not None

    run(main())


def test_tokens_that_come_after_a_lifetime_has_ended_are_served(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clock: Clock
) -> None:
    async def main() -> None:
        said = entry("pkcs11:serial=1", lifetime=60)
        agent = Bench(monkeypatch, tmp_path, StandInToken(ONE), clock=clock, entries=(said,))
        await agent.begin()
        clock.now += 60
        assert await agent.listed() == []
        agent.slots.tokens.append(StandInToken(OTHER, serial="2"))
        await agent.replug()
        assert await agent.listed() == ["other"]

    run(main())


def test_ssh_add_t_comes_before_the_lifetime_of_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clock: Clock
) -> None:
    async def main() -> None:
        said = entry("pkcs11:serial=1", lifetime=60)
        agent = Bench(monkeypatch, tmp_path, StandInToken(ONE), clock=clock, entries=(said,))
        await agent.begin()
        assert await agent.add(Lifetime(600)) == Success()
        clock.now += 60
        assert await agent.listed() == ["one"]
        clock.now += 540
        assert await agent.listed() == []

    run(main())


def test_what_was_removed_is_gone_until_the_file_is_read_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def main() -> None:
        agent = Bench(monkeypatch, tmp_path, StandInToken(ONE, OTHER))
        await agent.begin()
        assert await agent.ask(RemoveIdentity(ONE.blob)) == Success()
        assert await agent.listed() == ["other"]
        await agent.keyring.serve_configured()
        assert await agent.listed() == ["one", "other"]
        for request in (agent.ask(RemoveAllIdentities()), agent.remove()):
            assert await request == Success()
            assert (await agent.listed(), agent.keyring.modules()) == ([], [])
            await agent.begin()
            assert await agent.listed() == ["one", "other"]

    run(main())


def test_ssh_add_d_while_the_start_is_under_way(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def main() -> None:
        agent = Bench(monkeypatch, tmp_path, StandInToken(ONE))
        serving = asyncio.create_task(agent.keyring.serve_configured())
        await asyncio.sleep(0)
        assert await agent.ask(RemoveAllIdentities()) == Success()
        await serving
        assert agent.keyring.modules() == []

    run(main())


def test_what_the_file_names_no_more_is_served_no_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def main() -> None:
        agent = Bench(monkeypatch, tmp_path, StandInToken(ONE))
        await agent.begin()
        assert await agent.listed() == ["one"]
        agent.keyring.change_options(agent.keyring.settings.options.with_config(Config(modules=())))
        await agent.keyring.serve_configured()
        assert (await agent.listed(), agent.keyring.modules()) == ([], [])

    run(main())


class TwoModules(Bench):
    """A token that one module shows by the configuration; a person adds another that shows it too."""

    @property
    def second(self) -> str:
        path = self.module.with_name("second.so")
        path.touch()
        return str(path)


def test_a_token_of_two_modules_is_listed_once_and_removed_for_good(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def main() -> None:
        agent = TwoModules(monkeypatch, tmp_path, StandInToken(ONE))
        await agent.begin()
        assert await agent.add(provider=agent.second) == Success()
        assert await agent.listed() == ["one"]
        assert isinstance(await agent.sign(ONE), SignResponse)
        assert agent.slots.pins_sent == [PIN]
        assert await agent.remove(agent.second) == Success()
        assert await agent.listed() == []
        assert await agent.sign(ONE) == Failure()

    run(main())


def test_what_a_person_added_is_used_on_that_persons_terms_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clock: Clock
) -> None:
    """Also the keys of tokens that were not there when it was added."""

    async def main() -> None:
        person = Person()
        agent = TwoModules(monkeypatch, tmp_path, StandInToken(ONE), person=person, clock=clock)
        await agent.begin()
        assert await agent.add(Confirm(), Lifetime(60), provider=agent.second) == Success()
        agent.slots.tokens.append(StandInToken(OTHER, serial="2"))
        for module in agent.keyring.modules():
            for token in await module.look():
                await token.read()
        assert await agent.listed() == ["one", "other"]
        person.agrees = False
        assert await agent.sign(OTHER) == Failure()
        assert [asked.key for asked in person.confirmations] == ["other"]
        clock.now += 60
        assert await agent.listed() == []
        assert await agent.sign(OTHER) == Failure()

    run(main())


@pytest.mark.parametrize("event", [ForgetOn.SUSPEND, ForgetOn.SCREEN_LOCK])
def test_a_pin_is_forgotten_on_an_event(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, event: ForgetOn
) -> None:
    async def main() -> None:
        never = entry("pkcs11:serial=2", forget_pin_on=frozenset())
        tokens = StandInToken(ONE), StandInToken(OTHER, serial="2")
        agent = Bench(
            monkeypatch,
            tmp_path,
            *tokens,
            person=Person(PIN, PIN, PIN),
            forget_pin_on=frozenset({event}),
            entries=(never,),
        )
        await agent.begin()
        await agent.sign(ONE)
        await agent.sign(OTHER)
        agent.keyring.forget_pins_on(event)
        await agent.sign(ONE)
        await agent.sign(OTHER)
        assert [str(asked.token) for asked in agent.person.requests].count(str(tokens[0].identity)) == 2
        assert len(agent.person.requests) == 3

    run(main())


def test_a_pin_is_forgotten_when_its_token_is_pulled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def main() -> None:
        token = StandInToken(ONE)
        agent = Bench(
            monkeypatch,
            tmp_path,
            token,
            person=Person(PIN, PIN),
            forget_pin_on=frozenset({ForgetOn.REMOVAL}),
        )
        await agent.begin()
        await agent.sign(ONE)
        agent.slots.tokens.clear()
        await agent.replug()
        assert agent.remembered(token) is None
        agent.slots.tokens.append(token)
        await agent.replug()
        assert isinstance(await agent.sign(ONE), SignResponse)
        assert len(agent.person.requests) == 2

    run(main())


def test_a_token_pulled_while_its_module_cannot_be_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Who stops pcscd, pulls the card and starts pcscd must not keep its PIN alive."""

    async def main() -> None:
        token = StandInToken(ONE)
        removal = frozenset({ForgetOn.REMOVAL})
        agent = Bench(monkeypatch, tmp_path, token, person=Person(PIN), forget_pin_on=removal)
        await agent.begin()
        await agent.sign(ONE)
        [served] = agent.keyring.tokens()
        served.cut_off("pcscd is gone")
        agent.slots.tokens.clear()
        await agent.replug()
        assert (served.state, served.pin_remembered) == ("absent", False)

    run(main())


def test_a_shorter_time_to_live_holds_for_the_pin_that_is_remembered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clock: Clock
) -> None:
    async def main() -> None:
        agent = Bench(monkeypatch, tmp_path, StandInToken(ONE), person=Person(PIN), clock=clock)
        await agent.begin()
        await agent.sign(ONE)
        [token] = agent.keyring.tokens()
        assert agent.keyring.pin_expires_in(token) is None
        clock.now += 100
        for seconds, left in ((160, 60), (60, None)):
            config = Config(modules=agent.config.modules, pin_time_to_live=seconds)
            agent.keyring.change_options(agent.keyring.settings.options.with_config(config))
            assert agent.keyring.pin_expires_in(token) == left
        assert not token.pin_remembered

    run(main())


def test_whose_pin_the_file_is_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An entry that matches two tokens does not make its PIN go to both."""

    async def main() -> None:
        from replug.token.names.pin_source import PinSource, SourceKind

        pin = tmp_path / "pin"
        pin.touch(mode=0o600)
        pin.write_bytes(PIN)
        said = TokenEntry(Uri(token="work"), pin_source=PinSource(SourceKind.FILE, str(pin)))
        tokens = StandInToken(ONE), StandInToken(OTHER, serial="2")
        agent = Bench(monkeypatch, tmp_path, *tokens, entries=(said,))
        await agent.begin()
        assert isinstance(await agent.sign(ONE), SignResponse)
        assert await agent.sign(OTHER) == Failure()
        assert agent.slots.pins_sent == [PIN]
        assert "is that of token" in agent.reasons[-1]

    run(main())
