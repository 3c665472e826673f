"""Finding the keys on a token, in the worker: public keys, X.509 certificates, and which of them can sign.

What leaves this file is plain data for JSON; turning it into SSH keys is the agent's work (`keys.py`),
so that the worker needs nothing but python-pkcs11.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pkcs11
from pkcs11 import Attribute, CertificateType, KeyType, ObjectClass, PKCS11Error
from pkcs11.attributes import AttributeMapper

from replug.token.identity import LONGEST_LABEL
from replug.token.worker.calls import calling
from replug.token.worker.frames import MAX_HEADER, Header, encode

_GONE = (
    pkcs11.DeviceError,
    pkcs11.DeviceRemoved,
    pkcs11.SessionClosed,
    pkcs11.SessionHandleInvalid,
    pkcs11.TokenNotPresent,
)
_MOST_OBJECTS = 512
"""Of one class; a token with more is a mistake, or wants to keep us busy."""
_LARGEST_RECORD = MAX_HEADER // 2
"""Bytes; that of a key which SSH can use has a few thousand."""
_KEY_KINDS = {KeyType.RSA: "rsa", KeyType.EC: "ec", KeyType.EC_EDWARDS: "edwards"}


class TolerantMapper(AttributeMapper):
    """Attribute values as tokens really hold them: labels need not be UTF-8, types may be a vendor's own."""

    def __init__(self) -> None:
        super().__init__()
        self.register_handler(
            Attribute.LABEL, lambda text: text.encode(), lambda raw: raw.decode("utf-8", errors="replace")
        )
        for key, enum in ((Attribute.CLASS, ObjectClass), (Attribute.KEY_TYPE, KeyType)):
            self._tolerate_unknown_members(key, enum)

    def _tolerate_unknown_members(self, key: Attribute, enum: Any) -> None:
        pack, unpack = self.attribute_types[key]

        def unpack_or_number(raw: bytes) -> Any:
            try:
                return unpack(raw)
            except ValueError:
                return int.from_bytes(raw, "little")

        self.register_handler(key, pack, unpack_or_number)


@dataclass
class PrivateObject:
    """A private key object that may sign, with what tells it from its neighbours."""

    handle: Any
    kind: str
    key_id: bytes
    label: str
    modulus: bytes
    curve: bytes
    always_authenticate: bool


@dataclass
class FoundKey:
    """A public key on the token and, when it is visible, the private key that belongs to it."""

    reference: str
    record: Header
    private: PrivateObject | None


def find_keys(session: Any, progress: Callable[[], None]) -> list[FoundKey]:
    """Every public key of the session's token, each once: key objects first, then certificates.

    `progress` is called for each object: there may be many, and a card may be slow.
    Before login most tokens hide their private keys; `private` is then None.
    """
    privates = list(_private_keys(session, progress))
    found: dict[str, FoundKey] = {}
    for record in (*_public_keys(session), *_certificates(session)):
        progress()
        public = repr((record["kind"], record["material"])).encode()
        reference = hashlib.sha256(public).hexdigest()
        if reference not in found:
            private = _choose(privates, record)
            record["reference"] = reference
            record["signs"] = private is not None
            record["always_authenticate"] = private is not None and private.always_authenticate
            if len(encode(record)) <= _LARGEST_RECORD:
                found[reference] = FoundKey(reference, record, private)
    return list(found.values())


def _public_keys(session: Any) -> Iterator[Header]:
    for item in _objects(session, ObjectClass.PUBLIC_KEY):
        kind = _KEY_KINDS.get(_read(item, Attribute.KEY_TYPE))
        if kind == "rsa":
            material = [_read(item, Attribute.MODULUS, b""), _read(item, Attribute.PUBLIC_EXPONENT, b"")]
        elif kind is not None:
            material = [_read(item, Attribute.EC_PARAMS, b""), _read(item, Attribute.EC_POINT, b"")]
        else:
            continue
        if all(material):
            yield _record(item, kind, material)


def _certificates(session: Any) -> Iterator[Header]:
    for item in _objects(session, ObjectClass.CERTIFICATE):
        value = _read(item, Attribute.VALUE, b"")
        if value and _read(item, Attribute.CERTIFICATE_TYPE) == CertificateType.X_509:
            yield _record(item, "x509", [value])


def _record(item: Any, kind: str, material: list[bytes]) -> Header:
    return {
        "kind": kind,
        "material": [part.hex() for part in material],
        "id": _read(item, Attribute.ID, b"").hex(),
        "label": _read(item, Attribute.LABEL, "")[:LONGEST_LABEL],
    }


def _private_keys(session: Any, progress: Callable[[], None]) -> Iterator[PrivateObject]:
    for item in _objects(session, ObjectClass.PRIVATE_KEY):
        progress()
        kind = _KEY_KINDS.get(_read(item, Attribute.KEY_TYPE))
        # A key without CKA_SIGN (a PIV slot 9d EC key only derives) would be offered and could not sign.
        if kind is None or not _read(item, Attribute.SIGN, False):
            continue
        yield PrivateObject(
            handle=item,
            kind=kind,
            key_id=_read(item, Attribute.ID, b""),
            label=_read(item, Attribute.LABEL, "")[:LONGEST_LABEL],
            modulus=_read(item, Attribute.MODULUS, b"") if kind == "rsa" else b"",
            curve=_read(item, Attribute.EC_PARAMS, b"") if kind != "rsa" else b"",
            always_authenticate=_read(item, Attribute.ALWAYS_AUTHENTICATE, False),
        )


def _choose(privates: list[PrivateObject], record: Header) -> PrivateObject | None:
    """The private key with this CKA_ID. Where IDs are empty or shared, modulus, curve and label decide.

    A wrong guess cannot reach a client: the agent verifies every signature against the public key.
    """
    kind, material = record["kind"], [bytes.fromhex(part) for part in record["material"]]

    def fits(private: PrivateObject) -> bool:
        if private.key_id.hex() != record["id"]:
            return False
        if kind == "x509":
            return True
        if private.kind != kind:
            return False
        if kind == "rsa":
            return not private.modulus or private.modulus.lstrip(b"\0") == material[0].lstrip(b"\0")
        return not private.curve or private.curve == material[0]

    candidates = [private for private in privates if fits(private)]
    candidates.sort(key=lambda private: private.label != record["label"])
    if not record["id"] and len(candidates) > 1 and candidates[0].label != record["label"]:
        return None
    return candidates[0] if candidates else None


def _objects(session: Any, kind: ObjectClass) -> list[Any]:
    # A list, because the search must end before attributes are read: some modules allow one operation.
    with calling("C_FindObjects"):
        found = session.get_objects({Attribute.CLASS: kind, Attribute.TOKEN: True})
        return list(itertools.islice(found, _MOST_OBJECTS))


def _read(item: Any, attribute: Attribute, default: Any = None) -> Any:
    """One attribute; tokens leave out what they do not know, each with an error of its own choice.

    That the token is gone is another matter.
    """
    try:
        return item[attribute]
    except _GONE:
        raise
    except (PKCS11Error, NotImplementedError, ValueError):
        return default
