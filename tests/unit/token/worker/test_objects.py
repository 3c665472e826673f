"""Which private key belongs to a public one, where tokens do not say it well."""

from __future__ import annotations

from typing import Any

import pytest
from pkcs11 import Attribute, AttributeTypeInvalid, CertificateType, KeyType, ObjectClass

from replug.token.worker.objects import TolerantMapper, find_keys

Object = dict[Attribute, Any]
P256, P384 = b"p256", b"p384"


class Item:
    """An object on a token; what it lacks, it answers with an error."""

    def __init__(self, attributes: Object) -> None:
        self.attributes = attributes

    def __getitem__(self, attribute: Attribute) -> Any:
        if attribute not in self.attributes:
            raise AttributeTypeInvalid
        return self.attributes[attribute]


class Session:
    """A token's session that finds objects by class."""

    def __init__(self, *objects: Object) -> None:
        self.items = [Item(attributes) for attributes in objects]

    def get_objects(self, template: Object) -> list[Item]:
        assert template[Attribute.TOKEN] is True
        return [item for item in self.items if item[Attribute.CLASS] == template[Attribute.CLASS]]


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
    """The label of each key that is found, and that of its private half."""
    return [
        (key.record["label"], key.private and key.private.label)
        for key in find_keys(Session(*objects), lambda: None)
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
    [key] = find_keys(
        Session(public("a", b"\x01\xff"), private("p", b"\x01\xff", ALWAYS_AUTHENTICATE=True)), lambda: None
    )
    assert key.record == {
        "kind": "ec",
        "material": [P256.hex(), b"Q".hex()],
        "id": "01ff",
        "label": "a",
        "reference": key.reference,
        "signs": True,
        "always_authenticate": True,
    }


def test_a_key_has_the_same_name_wherever_it_is_found() -> None:
    """The agent asks a fresh worker for the key that another one named."""
    one, other = Session(public("a", b"1")), Session(public("z", b"9", b"Z"), public("b", b"2"))
    assert find_keys(one, lambda: None)[0].reference == find_keys(other, lambda: None)[1].reference


def test_attributes_that_are_missing_are_taken_for_empty() -> None:
    bare = {name: value for name, value in public("a").items() if name not in (Attribute.LABEL, Attribute.ID)}
    assert pairs(bare) == [("", None)]


def test_labels_and_types_as_tokens_really_hold_them() -> None:
    mapper = TolerantMapper()
    assert mapper.unpack_attributes(Attribute.LABEL, b"caf\xc3\xa9") == "café"
    assert mapper.unpack_attributes(Attribute.LABEL, b"caf\xe9") == "caf\N{REPLACEMENT CHARACTER}"
    known = int(KeyType.RSA).to_bytes(8, "little")
    assert mapper.unpack_attributes(Attribute.KEY_TYPE, known) is KeyType.RSA
    assert mapper.unpack_attributes(Attribute.KEY_TYPE, (0x80000123).to_bytes(8, "little")) == 0x80000123
