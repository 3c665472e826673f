"""The seal: what is kept under it, and who gets it back."""

from __future__ import annotations

import pytest

from replug.token import seal as seal_module
from replug.token.seal import KEY_SIZE, Seal, SealedError, derive_key

SECRET = b"correct horse battery staple"
DERIVED, WRONG = bytearray(b"k" * KEY_SIZE), bytearray(b"w" * KEY_SIZE)


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cost of a derivation is not what is tested here."""
    monkeypatch.setattr(seal_module, "_SCRYPT_COST", 2)


def test_what_is_sealed_can_be_opened_and_shows_nothing() -> None:
    seal = Seal()
    sealed = seal.seal(bytearray(SECRET))
    assert SECRET not in sealed
    assert seal.open(sealed) == SECRET
    assert isinstance(seal.open(sealed), bytearray)
    assert seal.seal(bytearray(SECRET)) != sealed
    assert seal.open(seal.seal(bytearray())) == b""


def test_shut_it_opens_nothing_until_it_is_reopened() -> None:
    seal = Seal()
    sealed = seal.seal(bytearray(SECRET))
    seal.shut(DERIVED)
    assert seal.is_shut
    for operation in (
        lambda: seal.open(sealed),
        lambda: seal.seal(bytearray(SECRET)),
        lambda: seal.shut(WRONG),
    ):
        with pytest.raises(SealedError):
            operation()
    assert not seal.reopen(WRONG)
    assert seal.is_shut
    assert seal.reopen(DERIVED)
    assert not seal.is_shut
    assert seal.open(sealed) == SECRET
    assert not seal.reopen(DERIVED)  # it is open


def test_it_may_be_shut_before_it_was_used() -> None:
    seal = Seal()
    seal.shut(DERIVED)
    assert seal.reopen(DERIVED)
    assert seal.open(seal.seal(bytearray(SECRET))) == SECRET


def test_shutting_wipes_the_key() -> None:
    seal = Seal()
    seal.seal(bytearray(SECRET))
    key = seal._key
    assert any(key)
    seal.shut(DERIVED)
    assert not any(key)
    assert seal._key == b""


def test_a_derived_key_depends_on_passphrase_and_salt() -> None:
    key = derive_key(bytearray(b"secret"), b"salt")
    assert len(key) == KEY_SIZE
    assert derive_key(bytearray(b"secret"), b"salt") == key
    assert derive_key(bytearray(b"secret"), b"other") != key
    assert derive_key(bytearray(b"Secret"), b"salt") != key
    assert derive_key(bytearray(b"\0" * 100_000), b"salt") != key


def test_each_agent_has_a_key_of_its_own() -> None:
    assert Seal()._usable_key() != Seal()._usable_key()
