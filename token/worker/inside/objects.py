"""The keys on a token, in the worker: public keys, X.509 certificates, and the private keys to them.

What leaves this file is plain data for JSON; turning it into SSH keys is the agent's work (`keys.py`),
so that the worker needs nothing but python-pkcs11.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from pkcs11 import Attribute, CertificateType, KeyType, Mechanism, ObjectClass

from replug.token.identity import LONGEST_LABEL
from replug.token.worker.frames import MAX_HEADER, Header, encode
from replug.token.worker.inside.cryptoki import decode_number, encode_number

_MOST_OBJECTS = 600
"""Of one class; a token with more is a mistake, or wants to keep us busy."""
_LARGEST_RECORD = MAX_HEADER // 2
"""Bytes; that of a key which SSH can use has a few thousand."""
_KEY_KINDS = {KeyType.RSA: "rsa", KeyType.EC: "ec", KeyType.EC_EDWARDS: "edwards"}
SIGNATURE_MECHANISMS = {
    "rsa": {
        Mechanism.RSA_PKCS, Mechanism.SHA1_RSA_PKCS, Mechanism.SHA256_RSA_PKCS, Mechanism.SHA512_RSA_PKCS,
    },
    "ec": {Mechanism.ECDSA, Mechanism.ECDSA_SHA256, Mechanism.ECDSA_SHA384, Mechanism.ECDSA_SHA512},
    "edwards": {Mechanism.EDDSA},
}  # fmt: skip
"""Those that make the signatures of SSH, by the kind of key."""
_NAMED = (Attribute.KEY_TYPE, Attribute.ID, Attribute.LABEL)
_RSA = (Attribute.MODULUS, Attribute.PUBLIC_EXPONENT)
_CURVE = (Attribute.EC_PARAMS, Attribute.EC_POINT)
_CERTIFICATE = (Attribute.CERTIFICATE_TYPE, Attribute.ID, Attribute.LABEL, Attribute.VALUE)
_PRIVATE = (*_NAMED, Attribute.SIGN, Attribute.ALWAYS_AUTHENTICATE)

T = TypeVar("T")
Values = dict[int, bytes]


class Session(Protocol):
    """A session on a token."""

    def find(self, most: int, wanted: Values) -> list[int]:
        """The handles of the objects with these attributes."""

    def read(self, handle: int, types: tuple[int, ...]) -> Values:
        """Those of the attributes that the object has."""


@dataclass(frozen=True)
class PrivateObject:
    """A private key object that may sign, with what tells it from its neighbours."""

    handle: int
    kind: str
    key_id: str
    """In hexadecimal digits, as in the records."""
    label: str
    always_authenticate: bool


@dataclass
class FoundKey:
    """A public key on the token and, when they are visible, the private keys that may belong to it."""

    reference: str
    record: Header
    handle: int
    privates: list[PrivateObject]


class TokenObjects:
    """The objects that a session on a token shows. Each is read once, however often they are searched."""

    def __init__(self, session: Session, mechanisms: set[int]) -> None:
        """`mechanisms` are the token's; none means that they are not known."""
        self._session = session
        self._kinds_that_sign = {
            kind
            for kind, able in SIGNATURE_MECHANISMS.items()
            if not mechanisms or not able.isdisjoint(mechanisms)
        }
        self._publics: dict[int, Header | None] = {}
        self._certificates: dict[int, Header | None] = {}
        self._privates: dict[int, PrivateObject | None] = {}
        self._parts: dict[int, bytes] = {}
        """The modulus or curve of those private keys that others are like."""

    def find_keys(self) -> list[FoundKey]:
        """Every public key, each once: key objects first, then certificates.

        Before login most tokens hide their private keys.
        """
        publics = self._search(ObjectClass.PUBLIC_KEY)
        certificates = self._search(ObjectClass.CERTIFICATE)
        privates = self._search(ObjectClass.PRIVATE_KEY)
        for known, handles in (
            (self._publics, publics), (self._certificates, certificates), (self._privates, privates)
        ):  # fmt: skip
            for deleted in known.keys() - set(handles):
                del known[deleted]
                self._parts.pop(deleted, None)
        return self._keys(publics, certificates, privates)

    def find_one(self) -> list[FoundKey]:
        """Any one of the public keys, without private ones."""
        publics = self._search(ObjectClass.PUBLIC_KEY, most=1)
        certificates = [] if publics else self._search(ObjectClass.CERTIFICATE, most=1)
        return self._keys(publics, certificates, [])

    def find_key(self, key_id: bytes, *, with_private: bool) -> list[FoundKey]:
        """The public keys with this CKA_ID, of which no other is searched or read.

        Those that are known are not searched again, and private keys only `with_private`.
        """
        publics = [handle for handle, one in self._publics.items() if one and one["id"] == key_id.hex()]
        publics = publics or self._search(ObjectClass.PUBLIC_KEY, key_id)
        certificates = [] if publics else self._search(ObjectClass.CERTIFICATE, key_id)
        privates = self._search(ObjectClass.PRIVATE_KEY, key_id) if with_private else []
        return self._keys(publics, certificates, privates)

    def _keys(self, publics: list[int], certificates: list[int], privates: list[int]) -> list[FoundKey]:
        _read_new(publics, self._publics, self._public_key)
        _read_new(certificates, self._certificates, self._certificate)
        _read_new(privates, self._privates, self._private_key)
        visible = [private for handle in privates if (private := self._privates[handle]) is not None]
        found: dict[str, FoundKey] = {}
        records = [(handle, self._publics[handle]) for handle in publics]
        records += [(handle, self._certificates[handle]) for handle in certificates]
        for handle, known in records:
            if known is None:
                continue
            record = dict(known)
            public = repr((record["kind"], record["material"])).encode()
            reference = hashlib.sha256(public).hexdigest()
            if reference not in found:
                candidates = self._candidates(visible, record)
                record["reference"] = reference
                record["signs"] = bool(candidates)
                record["always_authenticate"] = any(one.always_authenticate for one in candidates)
                record["mechanism"] = record["kind"] == "x509" or record["kind"] in self._kinds_that_sign
                if len(encode(record)) <= _LARGEST_RECORD:
                    found[reference] = FoundKey(reference, record, handle, candidates)
        return list(found.values())

    def _search(self, kind: ObjectClass, key_id: bytes = b"", most: int = _MOST_OBJECTS) -> list[int]:
        wanted: Values = {Attribute.CLASS: encode_number(kind)}
        if key_id:
            wanted[Attribute.ID] = key_id
        return list(dict.fromkeys(self._session.find(most, wanted)))

    def material(self, handle: int, kind: str) -> list[str]:
        """What makes the public key `handle`, read now, as in its record."""
        types = {"rsa": _RSA, "x509": (Attribute.VALUE,)}.get(kind, _CURVE)
        values = self._session.read(handle, types)
        return [values.get(one, b"").hex() for one in types]

    def _public_key(self, handle: int) -> Header | None:
        values = self._session.read(handle, _NAMED)
        kind = _kind(values)
        if kind is None:
            return None
        material = self.material(handle, kind)
        return _record(values, kind, material) if all(material) else None

    def _certificate(self, handle: int) -> Header | None:
        values = self._session.read(handle, _CERTIFICATE)
        value, kind = values.get(Attribute.VALUE, b""), values.get(Attribute.CERTIFICATE_TYPE, b"")
        is_x509 = bool(kind) and decode_number(kind) == CertificateType.X_509
        return _record(values, "x509", [value.hex()]) if value and is_x509 else None

    def _private_key(self, handle: int) -> PrivateObject | None:
        values = self._session.read(handle, _PRIVATE)
        kind = _kind(values)
        # A key without CKA_SIGN (a PIV slot 9d EC key only derives) would be offered and could not sign. If
        # the token does not say, it may.
        if kind is None or kind not in self._kinds_that_sign or not any(values.get(Attribute.SIGN, b"\1")):
            return None
        return PrivateObject(
            handle=handle,
            kind=kind,
            key_id=values.get(Attribute.ID, b"").hex(),
            label=_label(values),
            always_authenticate=any(values.get(Attribute.ALWAYS_AUTHENTICATE, b"")),
        )

    def _part(self, handle: int, kind: Attribute) -> bytes:
        if handle not in self._parts:
            self._parts[handle] = self._session.read(handle, (kind,)).get(kind, b"").lstrip(b"\0")
        return self._parts[handle]

    def _candidates(self, privates: list[PrivateObject], record: Header) -> list[PrivateObject]:
        """The private keys with this CKA_ID, likely ones first: that with the same label, then the others.

        Where several share the ID, or it is empty, modulus and curve decide as well. A wrong guess cannot
        reach a client: the agent verifies every signature, and tries the next candidate if it does not fit.
        """
        kind = record["kind"]
        candidates = [
            private
            for private in privates
            if private.key_id == record["id"] and kind in ("x509", private.kind)
        ]
        if len(candidates) > 1 and kind != "x509":
            wanted = bytes.fromhex(record["material"][0]).lstrip(b"\0")
            part = Attribute.MODULUS if kind == "rsa" else Attribute.EC_PARAMS
            candidates = [
                private for private in candidates if self._part(private.handle, part) in (b"", wanted)
            ]
        candidates.sort(key=lambda private: private.label != record["label"])
        if not record["id"] and len(candidates) > 1 and candidates[0].label != record["label"]:
            return []
        return candidates


def _read_new(handles: list[int], known: dict[int, T], read: Callable[[int], T]) -> None:
    """Read those of the objects that are not known."""
    for handle in handles:
        if handle not in known:
            known[handle] = read(handle)


def _kind(values: Values) -> str | None:
    kind = values.get(Attribute.KEY_TYPE)
    return None if kind is None else _KEY_KINDS.get(decode_number(kind))  # type: ignore[call-overload]


def _record(values: Values, kind: str, material: list[str]) -> Header:
    return {
        "kind": kind,
        "material": material,
        "id": values.get(Attribute.ID, b"").hex(),
        "label": _label(values),
    }


def _label(values: Values) -> str:
    return values.get(Attribute.LABEL, b"").decode("utf-8", errors="replace")[:LONGEST_LABEL]
