"""Choosing keys of a token, and their order."""

from __future__ import annotations

import pytest
from doubles.stand_ins import Key

from replug.agent.config.key_choice import check_choice, chosen_keys
from replug.protocol.keys import fingerprint
from replug.token.keys import TokenKey


def key(label: str, key_id: bytes) -> TokenKey:
    public = Key().public
    blob = public.encode()
    return TokenKey(public, blob, label, key_id, reference="", signs=True, always_authenticate=False)


LOGIN, SIGNING, OLD, NAMELESS = (
    key("login", b"\x01"),
    key("signing", b"\x02"),
    key("login old", b"\x03"),
    key("", b""),
)
KEYS = [LOGIN, SIGNING, OLD, NAMELESS]


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        (["*"], KEYS),
        ([], []),
        (["nothing"], []),
        (["login"], [LOGIN]),
        (["Login"], []),
        (["login*"], [LOGIN, OLD]),
        (["login?old", "l*"], [OLD, LOGIN]),
        (["signing", "*"], [SIGNING, LOGIN, OLD, NAMELESS]),
        (["*", "signing"], KEYS),
        (["pkcs11:id=%03", "pkcs11:object=login"], [OLD, LOGIN]),
        (["pkcs11:id=%02;object=login"], []),
        (["pkcs11:id=%02;type=private"], [SIGNING]),
        ([fingerprint(NAMELESS.blob), fingerprint(LOGIN.blob)], [NAMELESS, LOGIN]),
    ],
)
def test_keys_come_in_the_order_of_the_choices(choices: list[str], expected: list[TokenKey]) -> None:
    for choice in choices:
        check_choice(choice)
    assert chosen_keys(KEYS, choices) == expected


@pytest.mark.parametrize("choice", ["", "SHA256:", "SHA256:g7tBF9d8", "pkcs11:", "pkcs11:slot-id=1"])
def test_what_chooses_no_key(choice: str) -> None:
    with pytest.raises(ValueError, match=r"empty|not a fingerprint|does not choose a key|not supported"):
        check_choice(choice)
