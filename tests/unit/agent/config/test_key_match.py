"""Naming keys by comment and fingerprint."""

from __future__ import annotations

import pytest
from doubles.certificate_bodies import SUBJECT, user_certificate
from doubles.stand_ins import Key

from replug.agent.config.key_match import check_match, fits
from replug.protocol.keys import fingerprint

BLOB = Key().public.encode()
OWN, OTHER = fingerprint(BLOB), fingerprint(Key().public.encode())


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        (["work@laptop"], True),
        (["work*"], True),
        (["*"], True),
        (["Work*"], False),
        (["work"], False),
        (["home", "*@lapto?"], True),
        ([OWN], True),
        ([OTHER], False),
        ([OTHER, OWN], True),
        ([OWN[:-1] + "*"], False),
        ([], False),
    ],
)
def test_keys_are_named_by_their_whole_comment_or_their_fingerprint(match: list[str], expected: bool) -> None:
    assert fits(match, BLOB, b"work@laptop") is expected


def test_a_certificate_has_the_fingerprint_of_its_key() -> None:
    certificate = user_certificate(Key(), "root").encode()
    assert fits([fingerprint(SUBJECT.blob)], certificate, b"")
    assert not fits([OWN], certificate, b"")


def test_a_comment_that_reads_like_a_fingerprint_is_none() -> None:
    assert not fits([OWN], Key().public.encode(), OWN.encode())


def test_a_comment_that_is_no_text_can_be_named_by_its_readable_part() -> None:
    assert fits(["w*k"], BLOB, b"w\xff\xfek")
    assert not fits(["home"], BLOB, b"\xff")


@pytest.mark.parametrize("good", ["SHA256:" + 43 * "k", "work*", "*", "a b", "?"])
def test_a_choice_that_can_name_a_key_is_valid(good: str) -> None:
    assert check_match(good) == good


@pytest.mark.parametrize(
    ("bad", "why"),
    [("", "must not be empty"), ("SHA256:short", "not a fingerprint"), ("pkcs11:id=%01", "one token only")],
)
def test_a_choice_that_can_name_none_is_an_error(bad: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        check_match(bad)
