"""The states of a token: what each event makes of them, and that nothing else does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from doubles.stand_ins import StandInToken
from doubles.token_bench import Bench

from replug.token.serving.presence import Presence, TokenState

ABSENT, PRESENT, READY, LOCKED, UNREACHABLE = TokenState

INTO: dict[TokenState, Callable[[Presence], None]] = {
    ABSENT: lambda token: None,
    PRESENT: lambda token: token.returned(),
    READY: lambda token: token.opened(logged_in=True),
    LOCKED: lambda token: (token.returned(), token.pin_locked("the PIN is locked")),
    UNREACHABLE: lambda token: (token.returned(), token.cut_off("pcscd is gone")),
}
EVENTS: dict[str, tuple[Callable[[Presence], None], tuple[TokenState, ...]]] = {
    # Each with what follows in the five states above, in their order.
    "returned": (lambda token: token.returned(), (PRESENT, PRESENT, READY, LOCKED, PRESENT)),
    "left": (lambda token: token.left(), (ABSENT,) * 5),
    "cut off": (lambda token: token.cut_off("why"), (ABSENT, *(UNREACHABLE,) * 4)),
    "opened": (lambda token: token.opened(logged_in=False), (PRESENT,) * 5),
    "logged in": (lambda token: token.opened(logged_in=True), (READY,) * 5),
    "logged out": (lambda token: token.logged_out(), (ABSENT, PRESENT, PRESENT, LOCKED, UNREACHABLE)),
    "PIN locked": (lambda token: token.pin_locked("why"), (LOCKED,) * 5),
    "closed": (lambda token: token.close(), (ABSENT, PRESENT, READY, LOCKED, UNREACHABLE)),
}


@pytest.mark.parametrize("before", TokenState)
@pytest.mark.parametrize("event", EVENTS)
def test_what_follows_an_event(event: str, before: TokenState) -> None:
    changes: list[TokenState] = []
    token = Presence(StandInToken().identity, lambda: changes.append(token.state))
    INTO[before](token)
    assert token.state is before
    changes.clear()
    report, follows = EVENTS[event]
    report(token)
    after = follows[list(TokenState).index(before)]
    assert token.state is after
    assert changes[-1:] == ([after] if after is not before else [])


def test_a_bad_state_has_a_reason_and_a_good_one_has_none() -> None:
    token = Presence(StandInToken().identity, lambda: None)
    token.returned()
    token.pin_locked("the PIN is locked")
    assert token.reason == "the PIN is locked"
    token.opened(logged_in=True)
    assert token.reason == ""


def test_only_events_change_the_state(plain: Bench) -> None:
    with pytest.raises(AttributeError):
        plain.served.state = READY
