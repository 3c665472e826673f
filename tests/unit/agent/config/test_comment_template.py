"""Comments of keys, filled in."""

from __future__ import annotations

import pytest
from doubles.stand_ins import Key

from replug.agent.config.comment_template import check_template, fill_template
from replug.token.identity import TokenId
from replug.token.keys import TokenKey

PUBLIC = Key().public
TOKEN = TokenId("Yubico (www.yubico.com)", "YubiKey YK5", "5001234", "work")


def filled(template: str, label: str = "login") -> str:
    check_template(template)
    key = TokenKey(
        PUBLIC, PUBLIC.encode(), label, b"\x01\xab", reference="", signs=True, always_authenticate=False
    )
    return fill_template(template, key, TOKEN)


@pytest.mark.parametrize(
    ("template", "comment"),
    [
        ("{label}", "login"),
        ("me@work", "me@work"),
        ("", ""),
        ("{label} on {token}", "login on work"),
        ("{id}/{serial}/{model}/{manufacturer}", "01ab/5001234/YubiKey YK5/Yubico (www.yubico.com)"),
        ("{{label}} {{{label}}}", "{label} {login}"),
        ("}}{{", "}{"),
    ],
)
def test_places_are_filled_in(template: str, comment: str) -> None:
    assert filled(template) == comment


def test_a_label_is_not_a_template() -> None:
    assert filled("{label}", label="{token} {}") == "{token} {}"


def test_what_a_token_says_stays_on_one_line() -> None:
    assert filled("{label}", label="a\nssh-rsa AAAA") == "a\N{REPLACEMENT CHARACTER}ssh-rsa AAAA"


def test_nothing_left_is_nothing() -> None:
    assert filled(" {label} ", label="") == ""


@pytest.mark.parametrize(
    "template", ["{", "}", "{label", "label}", "{}", "{pin}", "{label.x}", "{{label}", "{label}}", "a\nb"]
)
def test_other_braces_are_mistakes(template: str) -> None:
    with pytest.raises(ValueError, match=r"is not a field|is not allowed|one line"):
        check_template(template)
