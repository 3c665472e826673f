"""PINs in memory: when one may be sent, and that it is gone when it is forgotten."""

from __future__ import annotations

import pytest
from doubles.stand_ins import Key

from replug.token.identity import TokenFlag, TokenId
from replug.token.pins.owner import PinOwner
from replug.token.pins.pin import Pin, PinCache
from replug.token.serving.shown_keys import ShownKeys


def owner(serial: str, *keys: Key, module: str = "/module.so") -> PinOwner:
    """A token at a module, with these keys."""
    shown = ShownKeys(lambda: None)
    shown.saw_logged_in({key.blob: key.token_key() for key in keys})
    return PinOwner(module, TokenId("Maker", "Model", serial, "work"), shown)


KEY = Key()
WORK, HOME = owner("1", KEY), owner("2")
AT_PROXY = owner("1", Key(), KEY, module="/proxy.so")
STRANGER, KEYLESS = owner("1", Key(), module="/other.so"), owner("1", module="/other.so")

NONE = TokenFlag(0)
COUNT_LOW = TokenFlag.USER_PIN_COUNT_LOW
FINAL_TRY = TokenFlag.USER_PIN_FINAL_TRY
LOCKED = TokenFlag.USER_PIN_LOCKED

# What is known of the PIN: verified, how often sent since the token accepted it, last_try_known.
FRESH = (False, 0, False)
FRESH_AND_WARNED = (False, 0, True)
WITHOUT_VERDICT = (False, 1, False)
WITHOUT_VERDICT_AND_WARNED = (False, 1, True)
REMEMBERED = (True, 0, False)
REMEMBERED_AND_WARNED = (True, 0, True)
REMEMBERED_AND_UNANSWERED = (True, 1, False)
REMEMBERED_AND_UNANSWERED_TWICE = (True, 2, False)

MAY_BE_SENT = {
    NONE: {FRESH, FRESH_AND_WARNED, REMEMBERED, REMEMBERED_AND_WARNED, REMEMBERED_AND_UNANSWERED},
    COUNT_LOW: {FRESH, FRESH_AND_WARNED, REMEMBERED, REMEMBERED_AND_WARNED},
    FINAL_TRY: {FRESH_AND_WARNED},
    FINAL_TRY | COUNT_LOW: {FRESH_AND_WARNED},
    LOCKED: set(),
    LOCKED | FINAL_TRY: set(),
    LOCKED | COUNT_LOW: set(),
}
ALL = (
    FRESH,
    FRESH_AND_WARNED,
    WITHOUT_VERDICT,
    WITHOUT_VERDICT_AND_WARNED,
    REMEMBERED,
    REMEMBERED_AND_WARNED,
    REMEMBERED_AND_UNANSWERED,
    REMEMBERED_AND_UNANSWERED_TWICE,
)


@pytest.mark.parametrize("known", ALL)
@pytest.mark.parametrize("flags", MAY_BE_SENT)
def test_when_a_pin_may_be_sent(flags: TokenFlag, known: tuple[bool, int, bool]) -> None:
    pin = pin_with(known)
    assert pin.may_be_sent(flags | TokenFlag.LOGIN_REQUIRED, proven=True) == (known in MAY_BE_SENT[flags])


def test_with_tries_missing_a_remembered_pin_is_for_a_token_that_shows_its_keys() -> None:
    assert pin_with(REMEMBERED).may_be_sent(NONE, proven=False)
    assert not pin_with(REMEMBERED).may_be_sent(COUNT_LOW, proven=False)
    assert pin_with(FRESH).may_be_sent(COUNT_LOW, proven=False)


def pin_with(known: tuple[bool, int, bool]) -> Pin:
    verified, unanswered, last_try_known = known
    pin = Pin(b"123456", last_try_known=last_try_known)
    pin.past.verified, pin.past.sent, pin.past.unanswered = verified, verified or unanswered > 0, unanswered
    return pin


def test_wiping_clears_the_callers_own_buffer() -> None:
    class Watched(bytearray):
        """Notes what it held when it was emptied."""

        held = None

        def clear(self) -> None:
            self.held = bytes(self)
            super().clear()

    buffer = Watched(b"123456")
    pin = Pin(buffer)
    assert pin.value is buffer
    pin.wipe()
    assert buffer.held == bytes(6)
    assert buffer == b""


def test_a_wiped_pin_is_not_sent() -> None:
    pin = Pin(b"123456")
    pin.past.verified = pin.past.sent = True
    pin.wipe()
    assert not pin.may_be_sent(NONE, proven=True)


def test_a_pin_does_not_show() -> None:
    pin = Pin(b"123456")
    assert "123456" not in repr(pin) + str(pin)


def test_each_token_has_a_pin_of_its_own() -> None:
    cache, pin = PinCache(lambda: None), Pin(b"123456")
    cache.remember(WORK, pin)
    assert cache.get(WORK) is pin
    assert cache.get(HOME) is None


def test_the_same_label_on_another_token_is_another_token() -> None:
    cache = PinCache(lambda: None)
    cache.remember(WORK, Pin(b"123456"))
    assert cache.get(owner("3", KEY)) is None


@pytest.mark.parametrize("other", [STRANGER, KEYLESS])
def test_a_copy_of_its_name_behind_another_module_is_another_token(other: PinOwner) -> None:
    cache, pin = PinCache(lambda: None), Pin(b"123456")
    cache.remember(WORK, pin)
    assert cache.get(other) is None
    assert not cache.forget(other)
    cache.remember(other, Pin(b"654321"))
    assert cache.get(WORK) is pin
    assert cache.get(other) is not pin


def test_a_token_at_two_modules_has_one_pin() -> None:
    cache, pin, newer = PinCache(lambda: None), Pin(b"123456"), Pin(b"654321")
    cache.remember(WORK, pin)
    assert cache.get(AT_PROXY) is pin
    cache.remember(AT_PROXY, newer)
    assert (cache.get(WORK), pin.value) == (newer, b"")
    assert cache.forget(WORK)
    assert (cache.get(AT_PROXY), newer.value) == (None, b"")


def test_both_pins_of_a_token_that_showed_its_keys_late_are_forgotten() -> None:
    cache, late = PinCache(lambda: None), owner("1", module="/other.so")
    one, other = Pin(b"123456"), Pin(b"654321")
    cache.remember(WORK, one)
    cache.remember(late, other)
    late.keys.saw_logged_in({KEY.blob: KEY.token_key()})
    assert cache.get(WORK) is one
    assert cache.get(late) is other
    assert cache.forget(late)
    assert (one.value, other.value) == (b"", b"")


def test_one_login_at_a_time_at_all_modules() -> None:
    cache = PinCache(lambda: None)
    lock = cache.one_login(WORK.token)
    assert cache.one_login(AT_PROXY.token) is lock
    assert cache.one_login(HOME.token) is not lock


def test_remembering_another_wipes_the_old_one() -> None:
    cache, old, new = PinCache(lambda: None), Pin(b"123456"), Pin(b"654321")
    cache.remember(WORK, old)
    cache.remember(WORK, new)
    assert (old.value, new.value) == (b"", b"654321")
    assert cache.get(WORK) is new


def test_remembering_the_same_again_keeps_it() -> None:
    cache, pin = PinCache(lambda: None), Pin(b"123456")
    cache.remember(WORK, pin)
    cache.remember(WORK, pin)
    assert pin.value == b"123456"


def test_forgetting_wipes_one() -> None:
    cache, pin, other = PinCache(lambda: None), Pin(b"123456"), Pin(b"654321")
    cache.remember(WORK, pin)
    cache.remember(HOME, other)
    assert cache.forget(WORK)
    assert (pin.value, other.value) == (b"", b"654321")
    assert cache.get(WORK) is None
    assert not cache.forget(WORK)


def test_a_pin_is_not_for_what_answers_elsewhere_with_the_same_keys() -> None:
    """Behind p11-kit's client may be any program, and public keys are no secret."""
    client = "/usr/lib/pkcs11/p11-kit-client.so"
    here, far = owner("1", KEY), owner("1", KEY, module=client)
    assert owner("1", KEY, module="/other.so").is_same_token(here)
    assert not far.is_same_token(here)
    assert not here.is_same_token(far)
    assert not far.is_same_token(owner("1", KEY, module=client))
    assert far.is_same_token(far)
