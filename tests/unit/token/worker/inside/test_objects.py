"""Which private key belongs to a public one, where tokens do not say it well."""

from __future__ import annotations

from typing import Any

import pytest
from pkcs11 import Attribute, CertificateType, KeyType, Mechanism, ObjectClass

from replug.token.worker.inside.cryptoki import encode_number
from replug.token.worker.inside.objects import FoundKey, TokenObjects, Values

Object = dict[Attribute, Any]
P256, P384 = b"p256", b"p384"
ALL_MECHANISMS = {int(one) for one in (Mechanism.RSA_PKCS, Mechanism.ECDSA, Mechanism.EDDSA)}


def encoded(value: Any) -> bytes:
    """An attribute's value as modules return it."""
    if isinstance(value, bool):
        return bytes([value])
    return (
        encode_number(value)
        if isinstance(value, int)
        else value.encode()
        if isinstance(value, str)
        else value
    )


class Session:
    """A token's session, which counts how often each object is read."""

    def __init__(self, *objects: Object) -> None:
        self.items = [{kind: encoded(value) for kind, value in one.items()} for one in objects]
        self.reads = [0] * len(objects)

    def find(self, most: int, wanted: Values) -> list[int]:
        found = [number for number, item in enumerate(self.items) if wanted.items() <= item.items()]
        return found[:most]

    def read(self, handle: int, types: tuple[int, ...]) -> Values:
        self.reads[handle] += 1
        return {kind: value for kind, value in self.items[handle].items() if kind in types}


def keys_of(*objects: Object) -> list[FoundKey]:
    return TokenObjects(Session(*objects), ALL_MECHANISMS).find_keys()


def public(label: str = "", key_id: bytes = b"", point: bytes = b"Q", curve: bytes = P256) -> Object:
    return {
        Attribute.CLASS: ObjectClass.PUBLIC_KEY,
        Attribute.KEY_TYPE: KeyType.EC,
        Attribute.EC_PARAMS: curve,
        Attribute.EC_POINT: point,
        Attribute.LABEL: label,
        Attribute.ID: key_id,
    }


def private(label: str = "", key_id: bytes = b"", curve: bytes = P256, **more: Any) -> Object:
    return {
        Attribute.CLASS: ObjectClass.PRIVATE_KEY,
        Attribute.KEY_TYPE: KeyType.EC,
        Attribute.EC_PARAMS: curve,
        Attribute.LABEL: label,
        Attribute.ID: key_id,
        Attribute.SIGN: True,
    } | {Attribute[name]: value for name, value in more.items()}


def rsa(modulus: bytes, **more: Any) -> tuple[Object, Object]:
    both = {Attribute.KEY_TYPE: KeyType.RSA, Attribute.MODULUS: modulus, Attribute.ID: b"1"}
    return (
        both | {Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.PUBLIC_EXPONENT: b"\1\0\1"},
        both
        | {Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.SIGN: True}
        | {Attribute[name]: value for name, value in more.items()},
    )


def certificate(value: bytes = b"DER", **more: Any) -> Object:
    return {
        Attribute.CLASS: ObjectClass.CERTIFICATE,
        Attribute.CERTIFICATE_TYPE: CertificateType.X_509,
        Attribute.VALUE: value,
        Attribute.ID: b"1",
    } | {Attribute[name]: value for name, value in more.items()}


def pairs(*objects: Object) -> list[tuple[str, str | None]]:
    """The label of each key that is found, and that of the private half which is tried first."""
    return [
        (key.record["label"], key.privates[0].label if key.privates else None) for key in keys_of(*objects)
    ]


@pytest.mark.parametrize(
    ("objects", "found"),
    [
        # The same CKA_ID.
        ([public("a", b"1"), private("b", b"1")], [("a", "b")]),
        ([public("a", b"1"), private("a", b"2")], [("a", None)]),
        ([public("a", b"1"), public("b", b"2", b"R"), private("y", b"2"), private("x", b"1")],
         [("a", "x"), ("b", "y")]),
        # A shared CKA_ID: curve and label decide.
        ([public("a", b"1"), private("a", b"1", P384), private("b", b"1")], [("a", "b")]),
        ([public("a", b"1"), private("b", b"1"), private("a", b"1")], [("a", "a")]),
        # No CKA_ID: the label decides, or there is only one it can be.
        ([public("a"), private("a")], [("a", "a")]),
        ([public("a"), private("b")], [("a", "b")]),
        ([public("a"), private("b"), private("a")], [("a", "a")]),
        ([public("a"), private("b"), private("c")], [("a", None)]),
        # No private key that may sign.
        ([public("a", b"1")], [("a", None)]),
        ([public("a", b"1"), private("a", b"1", SIGN=False)], [("a", None)]),
        # A certificate alone, and with its key.
        ([certificate(LABEL="c"), private("p", b"1")], [("c", "p")]),
        ([certificate(LABEL="c"), public("a", b"1"), private("p", b"1")], [("a", "p"), ("c", "p")]),
        # What is no key for us.
        ([public("a") | {Attribute.KEY_TYPE: KeyType.DSA}], []),
        ([public("a", point=b"")], []),
        ([certificate(b"")], []),
        ([certificate(CERTIFICATE_TYPE=CertificateType.WTLS)], []),
        # The same public key twice.
        ([public("a", b"1"), public("b", b"1"), private("p", b"1")], [("a", "p")]),
    ],
)  # fmt: skip
def test_who_belongs_to_whom(objects: list[Object], found: list[tuple[str, str | None]]) -> None:
    assert pairs(*objects) == found


def test_a_shared_id_of_rsa_keys_is_told_apart_by_the_modulus() -> None:
    public_key, private_key = rsa(b"\0\xc1", LABEL="right")
    _, other = rsa(b"\xc3", LABEL="wrong")
    assert pairs(public_key, other, private_key) == [("", "right")]


def test_an_rsa_key_whose_private_half_does_not_tell_its_modulus() -> None:
    public_key, private_key = rsa(b"\xc1", LABEL="p")
    del private_key[Attribute.MODULUS]
    assert pairs(public_key, private_key) == [("", "p")]


def test_what_the_agent_is_told() -> None:
    [key] = keys_of(public("a", b"\x01\xff"), private("p", b"\x01\xff", ALWAYS_AUTHENTICATE=True))
    assert key.record == {
        "kind": "ec",
        "material": [P256.hex(), b"Q".hex()],
        "id": "01ff",
        "label": "a",
        "reference": key.reference,
        "signs": True,
        "always_authenticate": True,
        "mechanism": True,
    }


def test_a_key_has_the_same_name_wherever_it_is_found() -> None:
    """The agent asks a fresh worker for the key that another one named."""
    one, other = (public("a", b"1"),), (public("z", b"9", b"Z"), public("b", b"2"))
    assert keys_of(*one)[0].reference == keys_of(*other)[1].reference


def test_attributes_that_are_missing_are_taken_for_empty() -> None:
    bare = {name: value for name, value in public("a").items() if name not in (Attribute.LABEL, Attribute.ID)}
    assert pairs(bare) == [("", None)]


def test_a_key_that_does_not_say_whether_it_signs_may() -> None:
    secretive = private("p", b"1")
    del secretive[Attribute.SIGN]
    assert pairs(public("a", b"1"), secretive) == [("a", "p")]


def test_labels_and_types_as_tokens_really_hold_them() -> None:
    strange = public("x") | {Attribute.KEY_TYPE: 0x80000123}
    latin = public("y") | {Attribute.LABEL: b"caf\xe9"}
    assert pairs(strange, latin) == [("caf\N{REPLACEMENT CHARACTER}", None)]


def test_all_private_keys_that_cannot_be_told_apart_are_candidates() -> None:
    twins = [private("same", b"1") for _ in range(3)]
    [key] = keys_of(public("same", b"1"), *twins)
    assert [one.handle for one in key.privates] == [1, 2, 3]


def test_a_key_that_the_module_has_no_mechanism_for() -> None:
    objects = (public("a", b"1"), private("p", b"1"))
    for mechanisms, able in ((set(), True), ({Mechanism.RSA_PKCS}, False), ({Mechanism.ECDSA_SHA256}, True)):
        [key] = TokenObjects(Session(*objects), {int(one) for one in mechanisms}).find_keys()
        assert (key.record["mechanism"], key.record["signs"]) == (able, able)


def test_an_object_is_read_once() -> None:
    """A public key in two calls, a private one in one, and neither again by another search or after login."""
    session = Session(public("a", b"1"), public("b", b"2", b"R"), private("p", b"1"), private("q", b"2"))
    objects = TokenObjects(session, ALL_MECHANISMS)
    every, session.items = session.items, session.items[:2]  # before login the private ones do not show
    assert [bool(key.privates) for key in objects.find_keys()] == [False, False]
    session.items = every
    for _ in range(2):
        assert [bool(key.privates) for key in objects.find_keys()] == [True, True]
        assert session.reads == [2, 2, 1, 1]


def test_for_one_key_no_other_is_read() -> None:
    session = Session(public("a", b"1"), private("p", b"1"), public("b", b"2", b"R"), private("q", b"2"))
    objects = TokenObjects(session, ALL_MECHANISMS)
    [key] = objects.find_key(b"2", with_private=True)
    assert (key.record["label"], key.privates[0].label) == ("b", "q")
    assert session.reads == [0, 0, 2, 1]
    assert [key.record["label"] for key in objects.find_keys()] == ["a", "b"]


def test_a_key_that_was_deleted_is_gone() -> None:
    session = Session(public("a", b"1"), public("b", b"2", b"R"))
    objects = TokenObjects(session, ALL_MECHANISMS)
    assert len(objects.find_keys()) == 2
    del session.items[1]
    assert [key.record["label"] for key in objects.find_keys()] == ["a"]


def test_hundreds_of_keys_that_are_alike_are_not_compared_by_the_token() -> None:
    """A key that others are like is read once more, not once for each of them."""
    count = 50
    session = Session(*(part for number in range(count) for part in rsa(bytes([1, number]))))
    keys = TokenObjects(session, ALL_MECHANISMS).find_keys()
    assert [len(key.privates) for key in keys] == [1] * count
    assert session.reads == [2, 2] * count
