"""What the agent holds: the order of listing, keys on several tokens, removal and lifetimes."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from doubles.stand_ins import Key, Person, Slots

from replug.agent.config.model import Config
from replug.agent.config.options import Options
from replug.agent.config.settings import Settings
from replug.agent.keys.certificate_files import CertificateFiles
from replug.agent.keys.certificates import Certificates
from replug.agent.keys.changes import Changes
from replug.agent.keys.constraints import KeyConstraints
from replug.agent.keys.identities import Identities
from replug.agent.keys.identity import Identity, SoftwareIdentity, TokenBackedIdentity
from replug.agent.keys.served_provider import MOST_IDENTITIES, ServedProvider
from replug.token.identity import TokenId
from replug.token.modules.provider import Provider
from replug.token.names.uri import Uri
from replug.token.pins.pin import PinCache
from replug.token.pins.policy import PinPolicy
from replug.token.serving.served import ServedToken
from replug.token.worker.card_turns import CardTurns
from replug.token.worker.client import Deadlines
from replug.token.worker.pool import WorkerPool

SETTINGS = Config().settings(None)
FILES = CertificateFiles(Settings(Options()), lambda: None)


class Clock:
    """The boot clock, which stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def token(serial: str, *keys: Key) -> ServedToken:
    """A present token with these keys."""
    identity = TokenId("Maker", "Model", serial, "work")
    served = ServedToken(
        identity,
        WorkerPool("/module.so", Slots().fork_server, Deadlines(), CardTurns()),
        PinCache(lambda: None),
        Person(),
        lambda _: PinPolicy(),
        lambda: None,
    )
    offer(served, *keys)
    served.returned()
    return served


def offer(served: ServedToken, *keys: Key) -> None:
    served._opening.keys.saw_logged_in({key.blob: key.token_key() for key in keys})


def connect(identities: Identities, *tokens: ServedToken) -> None:
    """Have the identities hear of changes of these tokens, as the modules do it."""
    for one in tokens:
        one._changed = one._opening.keys._changed = identities.changed


def module(*tokens: ServedToken, path: str = "/module.so") -> Any:
    """As much of a module as a provider looks at."""
    return SimpleNamespace(path=path, tokens={one.identity: one for one in tokens})


def provider(of: Any, uri: Uri | None = None, name: str = "/module.so") -> Provider:
    return Provider(name, of, uri or Uri())


def everything(_: Identity) -> bool:
    """Sees all there is."""
    return True


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Held(Identities):
    """The identities, with providers added and keys removed as the tests say it."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(lambda: False, lambda held: held.blob in self.cas, Changes(clock))
        self.cas: set[bytes] = set()
        self._now = clock

    def add_provider(self, added: Provider, lifetime: int | None, *, configured: bool = False) -> None:
        expires = None if lifetime is None else self._now() + lifetime
        connect(self, *added.module.tokens.values())
        constraints, no_certificates = KeyConstraints(expires), Certificates(())
        self.add(
            ServedProvider(
                added, constraints, no_certificates, FILES, lambda _: SETTINGS, configured=configured
            )
        )

    def remove_key(self, blob: bytes) -> bool:
        found = bool(self.holding(blob))
        self.remove(blob, everything)
        return found


@pytest.fixture
def identities(clock: Clock) -> Held:
    return Held(clock)


def called(held: Iterable[Identity]) -> list[str]:
    return [one.comment.decode() for one in held]


def comments(identities: Identities) -> list[str]:
    return called(identities.shown.to(everything))


def test_nothing_is_held_at_first(identities: Held) -> None:
    assert list(identities.shown.to(everything)) == []
    assert identities.holding(b"") == []
    assert identities.providers() == []
    assert identities.next_expiry() is None


def test_keys_are_listed_in_the_order_they_were_added(identities: Held) -> None:
    identities.add_provider(provider(module(token("1", Key("a"), Key("b")), token("2", Key("c")))), None)
    identities.add_provider(provider(module(token("3", Key("d")), path="/other.so")), None)
    assert comments(identities) == ["a", "b", "c", "d"]


def test_what_users_added_is_listed_before_what_is_served_unasked(identities: Held) -> None:
    """ssh tries keys in this order, and a server hangs up after a few."""
    identities.add_provider(provider(module(token("1", Key("unasked")))), None, configured=True)
    for comment in (b"first", b"second"):
        key = SoftwareIdentity(Key().blob, comment, KeyConstraints(None), None)  # type: ignore[arg-type]
        identities.add(key)
    assert comments(identities) == ["first", "second", "unasked"]
    identities.add_provider(provider(module(token("2", Key("token")), path="/other.so")), None)
    identities.add_provider(
        provider(module(token("3", Key("unasked too")), path="/third.so")), None, configured=True
    )
    assert comments(identities) == ["first", "second", "token", "unasked", "unasked too"]
    identities.clear()
    assert comments(identities) == []


def test_a_key_without_a_label_is_called_by_its_provider(identities: Held) -> None:
    identities.add_provider(provider(module(token("1", Key(""))), name="pkcs11:token=work"), None)
    assert comments(identities) == ["pkcs11:token=work"]


def test_a_uri_chooses_among_the_keys(identities: Held) -> None:
    held = module(token("1", Key("a"), Key("b")), token("2", Key("a")))
    identities.add_provider(provider(held, Uri(serial="1", object="b")), None)
    assert comments(identities) == ["b"]


def test_keys_of_an_absent_token_are_not_listed_and_come_back_with_it(identities: Held) -> None:
    coming_and_going, key = token("1", Key("a")), Key("b")
    identities.add_provider(provider(module(coming_and_going, token("2", key))), None)
    coming_and_going.left()
    assert comments(identities) == ["b"]
    coming_and_going.returned()
    assert comments(identities) == ["a", "b"]


def test_a_key_of_an_absent_token_is_still_found(identities: Held) -> None:
    """So that a request for it can wait for the token, or is told which one to plug in."""
    key = Key("a")
    absent = token("1", key)
    identities.add_provider(provider(module(absent)), None)
    absent.left()
    [held] = identities.holding(key.blob)
    assert held.token is absent


def test_a_key_on_two_tokens_is_listed_once_and_held_first_by_the_one_that_is_in(
    identities: Held,
) -> None:
    key = Key("a")
    first, second = token("1", key), token("2", key)
    held = module(first, second)
    identities.add_provider(provider(held), None)
    identities.add_provider(provider(held, Uri(object="a")), None)

    def holders() -> list[ServedToken]:
        held_keys = identities.holding(key.blob)
        assert all(isinstance(one, TokenBackedIdentity) for one in held_keys)
        return list(dict.fromkeys(one.token for one in held_keys))

    assert comments(identities) == ["a"]
    assert holders() == [first, second]
    first.left()
    assert comments(identities) == ["a"]
    assert holders() == [second, first]
    second.cut_off("pcscd is gone")
    first.returned()
    assert holders() == [first, second]


def test_adding_again_keeps_the_place(identities: Held) -> None:
    first, second = module(token("1", Key("a"))), module(token("2", Key("b")), path="/other.so")
    identities.add_provider(provider(first), None)
    identities.add_provider(provider(second), None)
    identities.add_provider(provider(first), None)
    assert comments(identities) == ["a", "b"]
    assert len(identities.providers()) == 2


def test_another_choice_of_the_same_module_is_another_provider(identities: Held) -> None:
    held = module(token("1", Key("a"), Key("b")))
    identities.add_provider(provider(held, Uri(object="b")), None)
    identities.add_provider(provider(held, Uri(object="a")), None)
    assert comments(identities) == ["b", "a"]
    identities.add_provider(provider(held, Uri(object="a", module_path="/module.so")), None)
    assert len(identities.providers()) == 2


def test_removing_one_key_hides_it_until_its_provider_is_added_again(identities: Held) -> None:
    one, other = Key("a"), Key("b")
    held = module(token("1", one, other), token("2", one))
    identities.add_provider(provider(held), None)
    assert identities.remove_key(one.blob)
    assert comments(identities) == ["b"]
    assert identities.holding(one.blob) == []
    assert not identities.remove_key(one.blob)
    identities.add_provider(provider(held), None)
    assert comments(identities) == ["a", "b"]


def test_removing_a_key_hides_it_in_every_provider(identities: Held) -> None:
    key = Key("a")
    held = module(token("1", key))
    identities.add_provider(provider(held), None)
    identities.add_provider(provider(held, Uri(object="a")), None)
    assert identities.remove_key(key.blob)
    assert comments(identities) == []


def test_an_unknown_key_cannot_be_removed(identities: Held) -> None:
    identities.add_provider(provider(module(token("1", Key("a")))), None)
    assert not identities.remove_key(Key("b").blob)
    assert comments(identities) == ["a"]


def test_removing_providers(identities: Held) -> None:
    first, second = module(token("1", Key("a"))), module(token("2", Key("b")), path="/other.so")
    identities.add_provider(provider(first), None)
    identities.add_provider(provider(second), None)
    assert not identities.remove_provider(lambda chosen: chosen.module.path == "/third.so")
    assert identities.remove_provider(lambda chosen: chosen.module is first)
    assert comments(identities) == ["b"]
    identities.clear()
    assert comments(identities) == []


def test_keys_are_dropped_at_the_end_of_their_lifetime(identities: Held, clock: Clock) -> None:
    short, long = module(token("1", Key("a"))), module(token("2", Key("b")), path="/other.so")
    identities.add_provider(provider(short), 10)
    identities.add_provider(provider(long), 60)
    assert identities.next_expiry() == 10
    clock.now += 9.5
    assert not identities.drop_expired()
    assert identities.next_expiry() == 0.5
    clock.now += 0.5
    assert identities.drop_expired()
    assert comments(identities) == ["b"]
    # The machine slept far beyond it.
    clock.now += 1000
    assert identities.next_expiry() == 0
    assert identities.drop_expired()
    assert identities.next_expiry() is None


def test_a_token_is_served_as_long_as_its_longest_provider(identities: Held, clock: Clock) -> None:
    one, other = token("1", Key("a")), token("2", Key("b"))
    both = module(one, other)
    identities.add_provider(provider(both, Uri(serial="1")), 10)
    assert identities.lifetime_left(one) == 10
    assert identities.lifetime_left(other) is None
    identities.add_provider(provider(both), 60)
    clock.now += 1
    assert (identities.lifetime_left(one), identities.lifetime_left(other)) == (59, 59)
    identities.add_provider(provider(both, Uri(token="work")), None)
    assert identities.lifetime_left(one) is None


@pytest.mark.parametrize(("again", "expiry"), [(60, 60), (None, None)])
def test_adding_again_sets_the_lifetime_anew(
    identities: Held, clock: Clock, again: int | None, expiry: float | None
) -> None:
    held = module(token("1", Key("a")))
    identities.add_provider(provider(held), 10)
    clock.now += 5
    identities.add_provider(provider(held), again)
    assert identities.next_expiry() == expiry


def test_without_a_lifetime_keys_are_kept(identities: Held, clock: Clock) -> None:
    identities.add_provider(provider(module(token("1", Key("a")))), None)
    clock.now += 1e9
    assert not identities.drop_expired()
    assert comments(identities) == ["a"]


def test_what_a_token_holds_whether_it_is_in_or_out(identities: Held) -> None:
    shared, other = Key("shared"), Key("other")
    first, second = token("1", shared), token("2", shared, other)
    held = module(first, second)
    identities.add_provider(provider(held), None)
    identities.add_provider(provider(held, Uri(object="shared")), None)
    second.left()
    assert called(identities.on(first)) == ["shared"]
    assert called(identities.on(second)) == ["shared", "other"]


def test_the_answer_is_put_together_once_as_long_as_nothing_changes(identities: Held) -> None:
    identities.add_provider(provider(module(token("1", Key("a")), token("2", Key("b")))), None)
    first = identities.shown.answer(everything)
    assert [identity.comment for identity in first.identities] == [b"a", b"b"]
    assert identities.shown.answer(everything) is first
    assert first.encode() is first.encode()
    assert identities.shown.answer(lambda _: False) is first  # nothing that could be hidden from anybody


def test_clients_that_see_the_same_get_the_same_answer(clock: Clock) -> None:
    """Putting it together for each of them would hold up the others."""
    hidden = KeyConstraints(destinations=(object(),))  # type: ignore[arg-type]
    identities = Identities(lambda: False, lambda _: False, Changes(clock))
    for blob, terms in ((b"open", KeyConstraints()), (b"restricted", hidden)):
        identities.add(SoftwareIdentity(blob, blob, terms, keys=None))  # type: ignore[arg-type]
    seen = {True: [b"open", b"restricted"], False: [b"open"]}
    for sees, comments in seen.items():
        first = identities.shown.answer(lambda _, sees=sees: sees)
        assert [identity.comment for identity in first.identities] == comments
        assert identities.shown.answer(lambda _, sees=sees: sees) is first
    identities.remove(b"open", everything)
    assert [one.comment for one in identities.shown.answer(everything).identities] == [b"restricted"]


def test_the_answer_changes_with_all_it_is_made_of(clock: Clock) -> None:
    first, other = token("1", Key("a")), token("2", Key("b"))
    tokens = module(first)
    identities = Identities(lambda: False, lambda _: False, Changes(clock))
    files = CertificateFiles(Settings(Options()), identities.changed)
    settings = SETTINGS
    added = ServedProvider(
        provider(tokens),
        KeyConstraints(clock.now + 60),
        Certificates(()),
        files,
        lambda _: settings,
        added=clock.now,
    )

    def shown() -> list[str]:
        return [identity.comment.decode() for identity in identities.shown.answer(everything).identities]

    assert shown() == []
    connect(identities, first, other)
    identities.add(added)
    assert shown() == ["a"]
    other.left()
    tokens.tokens[other.identity] = other
    other.returned()
    assert shown() == ["a", "b"]
    offer(first, Key("a"), Key("c"))
    assert shown() == ["a", "c", "b"]
    first.left()
    assert shown() == ["b"]
    first.returned()
    assert shown() == ["a", "c", "b"]
    settings = replace(SETTINGS, comment="{label}!")
    identities.changed()
    assert shown() == ["a!", "c!", "b!"]
    identities.remove(identities.shown.to(everything)[0].blob, everything)
    assert shown() == ["c!", "b!"]
    files.known = Certificates((b"no certificate",))
    assert shown() == ["c!", "b!"]
    settings = replace(SETTINGS, lifetime=30)
    identities.changed()
    assert shown() == ["c", "b"]
    clock.now += 30
    assert identities.drop_expired()
    assert shown() == []
    assert identities.providers() == []
    assert not identities.drop_expired()
    assert not identities.limited


def test_a_software_key_that_was_added_again_can_be_removed(clock: Clock) -> None:
    identities = Identities(lambda: False, lambda _: False, Changes(clock))
    for _ in range(2):
        identities.add(SoftwareIdentity(b"blob", b"mine", KeyConstraints(), keys=None))  # type: ignore[arg-type]
        assert called(identities.shown.to(everything)) == ["mine"]
    identities.remove(b"blob", everything)
    assert identities.shown.to(everything) == []
    assert identities.software_keys() == []


def test_a_key_is_removed_from_all_that_have_it_but_what_is_hidden(clock: Clock) -> None:
    key, hidden = Key("a"), KeyConstraints(confirm=True)
    held = module(token("1", key))
    identities = Identities(lambda: False, lambda _: False, Changes(clock))
    for uri, terms in (
        (Uri(), KeyConstraints()),
        (Uri(serial="1"), KeyConstraints(5000.0)),
        (Uri(token="work"), hidden),
    ):
        one = provider(held, uri)
        identities.add(ServedProvider(one, terms, Certificates(()), FILES, lambda _: SETTINGS))
    identities.add(SoftwareIdentity(key.blob, b"mine", hidden, keys=None))  # type: ignore[arg-type]
    identities.remove(key.blob, lambda held: held.constraints is not hidden)
    assert [one.constraints for one in identities.shown.to(everything)] == [hidden]
    assert [one.comment for one in identities.software_keys()] == [b"mine"]


def test_a_ca_key_is_listed_for_those_that_may_see_it(identities: Held) -> None:
    key, other, late = Key("a"), Key("b"), Key("c")

    def no_ca(held: Identity) -> bool:
        return held.blob not in identities.cas

    def seen() -> list[str]:
        answer = identities.shown.answer(no_ca).identities
        assert called(identities.shown.to(no_ca)) == [one.comment.decode() for one in answer]
        return called(identities.shown.to(no_ca))

    identities.cas = {key.blob, late.blob}
    identities.add_provider(provider(module(token("2", other))), None)
    assert seen() == ["b"]
    # What is added behind all others does not go through them.
    identities.add(SoftwareIdentity(late.blob, b"c", KeyConstraints(), keys=None))  # type: ignore[arg-type]
    assert seen() == ["b"]
    identities.add_provider(provider(module(token("1", key))), None)
    assert seen() == ["b"]
    assert comments(identities) == ["b", "c", "a"]
    identities.cas = set()
    identities.changed()
    assert called(identities.shown.to(lambda _: False)) == ["b", "c", "a"]


def test_nothing_is_remembered_of_what_was_cleared(identities: Held) -> None:
    one = token("1", Key("a"))
    identities.add_provider(provider(module(one)), None)
    assert comments(identities) == ["a"]
    identities.shown.answer(everything)
    identities.clear()
    gone = weakref.ref(one)
    del one
    gc.collect()
    assert gone() is None


def test_only_what_has_a_lifetime_is_looked_at_for_its_end(identities: Held) -> None:
    identities.add_provider(provider(module(token("1", Key("a")))), None)
    assert not identities.drop_expired()
    assert not identities.limited
    identities.add_provider(provider(module(path="/none-yet.so")), 10)
    assert not identities.drop_expired()
    assert identities.limited


def test_queries_change_nothing(identities: Held, clock: Clock) -> None:
    one, key = token("1", Key("a")), Key("b")
    identities.add_provider(provider(module(one)), 10)
    hidden = KeyConstraints(clock.now + 5, destinations=(object(),))  # type: ignore[arg-type]
    identities.add(SoftwareIdentity(key.blob, b"mine", hidden, keys=None))  # type: ignore[arg-type]
    before = vars(identities).copy()
    contents = (list(identities._held), list(identities.shown.all), vars(identities._entries[0]).copy())
    clock.now += 20  # a lifetime that is over is a reason to change something, but not for a query
    identities.shown.to(everything)
    identities.shown.answer(everything)
    identities.shown.answer(lambda _: False)
    identities.holding(key.blob)
    identities.on(one)
    identities.next_expiry()
    identities.lifetime_left(one)
    identities.over(one)
    assert vars(identities) == before
    assert (identities._held, identities.shown.all, vars(identities._entries[0])) == contents


def state(identities: Identities) -> dict[str, Any]:
    """All that the identities know, but their functions."""
    own = dict(vars(identities))
    for name in ("_changes", "_lists_absent"):
        own.pop(name, None)
    return {name: list(value) if isinstance(value, list) else value for name, value in own.items()}


@pytest.mark.parametrize("configured", [False, True])
def test_a_new_key_is_added_as_if_all_were_arranged_again(
    identities: Held, clock: Clock, configured: bool
) -> None:
    on_token = Key("on a token")
    out = token("2", Key("on a token that is out"))
    identities.add_provider(provider(module(token("1", on_token), out)), None, configured=configured)
    out.left()
    assert len(identities.shown.to(everything)) == 1
    blobs = [Key().blob for _ in range(6)]
    for number, blob in enumerate([*blobs, blobs[2], on_token.blob, Key().blob]):
        end = clock.now + (100 - number) * (-1 if number == 8 else 1) if number % 2 else None
        where = (object(),) if number % 3 == 2 else ()
        constraints = KeyConstraints(end, destinations=where)  # type: ignore[arg-type]
        identities.add(SoftwareIdentity(blob, b"key", constraints, None))  # type: ignore[arg-type]
        added = state(identities)
        added["_holding"] = {blob: list(held) for blob, held in added["_holding"].items()}
        added["_known"] = set(added["_known"])
        identities._arrange()
        assert added == state(identities), number
    assert len(identities.software_keys()) == 8


def test_to_add_a_key_does_not_go_through_all_others(
    identities: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 2,000 of them each addition cost the event loop up to nine milliseconds."""
    monkeypatch.setattr(identities, "_arrange", lambda: pytest.fail("all were arranged again"))
    for number in range(3):
        constraints = KeyConstraints(1000.0 + number + 1)
        identities.add(SoftwareIdentity(Key().blob, b"key", constraints, None))  # type: ignore[arg-type]
    assert len(identities.shown.to(everything)) == 3
    assert identities.next_expiry() == 1.0


def test_a_module_full_of_tokens_full_of_keys_is_bounded(
    identities: Held, caplog: pytest.LogCaptureFixture
) -> None:
    """128 tokens with 512 keys each cost the event loop two seconds at every change."""

    def full(serial: str) -> ServedToken:
        served = token(serial)
        key, blobs = Key("key").token_key(), [f"{serial} {number}".encode() for number in range(512)]
        served._opening.keys.saw_logged_in({blob: replace(key, blob=blob) for blob in blobs})
        return served

    tokens = [full(str(number)) for number in range(3)]
    identities.add_provider(provider(module(*tokens)), None)
    assert len(identities.shown.to(everything)) == MOST_IDENTITIES == 1024
    assert {held.holder for held in identities.shown.to(everything)} == {one.identity for one in tokens[:2]}
    identities.changed()
    assert caplog.messages == ["only the first keys of the provider are served"]
    # What is gone makes room.
    tokens[0]._opening.keys.saw_logged_in({})
    identities.changed()
    assert {held.holder for held in identities.shown.to(everything)} == {one.identity for one in tokens[1:]}
