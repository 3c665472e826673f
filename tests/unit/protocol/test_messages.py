"""Messages: which bytes are one, and what they do not tell."""

from __future__ import annotations

import pytest

from replug.protocol.certificates import Certificate, CertificateType
from replug.protocol.constants import MessageType
from replug.protocol.constraints import AssociatedCerts, Confirm, SkProvider
from replug.protocol.decoding import UnknownMessageError, decode_request, decode_response
from replug.protocol.extensions import QUERY, QueryResponse, SessionBind
from replug.protocol.framing import frame
from replug.protocol.keys import Curve, EcdsaPublicKey, Ed25519PublicKey, RsaPublicKey, SkPublicKey
from replug.protocol.messages import (
    AddIdentity,
    AddSmartcardKey,
    Extension,
    ExtensionFailure,
    ExtensionResponse,
    Failure,
    Lock,
    RemoveSmartcardKey,
    RequestIdentities,
    SignRequest,
    Unlock,
)
from replug.protocol.private_keys import EcdsaPrivateKey, Ed25519PrivateKey, RsaPrivateKey, SkPrivateKey
from replug.protocol.wire import ProtocolError, Writer

ED25519 = Ed25519PublicKey(b"P" * 32)
P256 = EcdsaPublicKey(Curve.NISTP256, b"\4" + bytes(64))
RSA = RsaPublicKey(3, 2**1023 + 1)
KEY = Ed25519PrivateKey(ED25519, b"S" * 32)
REQUEST_TYPES = {9, 11, 13, 17, 18, 19, 20, 21, 22, 23, 25, 26, 27}
RESPONSE_TYPES = {5, 6, 12, 14, 28, 29}


def certificate(key: Ed25519PublicKey | RsaPublicKey, **fields: object) -> Certificate:
    values = {
        "nonce": b"", "key": key, "serial": 0, "type": CertificateType.USER, "key_id": b"", "principals": (),
        "valid_after": 0, "valid_before": 0, "critical_options": (), "extensions": (), "reserved": b"",
        "ca_key": ED25519.encode(), "signature": b"",
    }  # fmt: skip
    return Certificate(**{**values, **fields})


def test_a_frame_is_the_length_and_the_payload():
    assert frame(RequestIdentities().encode()) == b"\0\0\0\1\x0b"
    assert frame(SignRequest(b"k", b"dd", 4).encode()) == (
        b"\0\0\0\x10\x0d" + b"\0\0\0\1k" + b"\0\0\0\2dd" + b"\0\0\0\4"
    )


def test_an_empty_payload_is_no_message():
    for decode in (decode_request, decode_response):
        with pytest.raises(ProtocolError, match="truncated"):
            decode(b"")


def test_types_that_do_not_belong():
    for decode, known in ((decode_request, REQUEST_TYPES), (decode_response, RESPONSE_TYPES)):
        for number in set(range(256)) - known:
            with pytest.raises(UnknownMessageError, match=f"type {number}$"):
                decode(bytes((number,)))


def test_every_type_has_its_number():
    assert {member.value for member in MessageType} == REQUEST_TYPES | RESPONSE_TYPES


@pytest.mark.parametrize(
    ("message", "plain", "constrained"),
    [
        (AddIdentity(KEY, b"comment"), 17, 25),
        (AddSmartcardKey(b"/module.so", b"1234"), 20, 26),
    ],
)
def test_both_types_of_an_add_request_may_have_constraints(
    message: AddIdentity | AddSmartcardKey, plain: int, constrained: int
):
    payload = message.encode()
    assert payload[0] == plain
    assert decode_request(bytes((constrained,)) + payload[1:]) == message
    with_constraint = decode_request(payload + Confirm().encode())
    assert with_constraint.constraints == (Confirm(),)
    assert with_constraint.encode() == bytes((constrained,)) + payload[1:] + Confirm().encode()


@pytest.mark.parametrize(
    "message",
    [
        AddIdentity(KEY, b"", (AssociatedCerts(certs_only=False, certs=()),)),
        AddSmartcardKey(b"/module.so", b"", (SkProvider(b"internal"),)),
    ],
)
def test_a_constraint_of_the_other_kind_of_key(message: AddIdentity | AddSmartcardKey):
    with pytest.raises(ProtocolError, match="does not belong"):
        decode_request(message.encode())


@pytest.mark.parametrize(
    "message",
    [
        AddIdentity(KEY, b"a\0"),
        AddSmartcardKey(b"/module.so\0", b""),
        AddSmartcardKey(b"/module.so", b"12\0"),
        RemoveSmartcardKey(b"/module.so\0", b""),
        Lock(b"pass\0"),
        Unlock(b"\0"),
        Extension("query\0", b""),
    ],
)
def test_no_nul_in_what_is_text(message: Lock):
    with pytest.raises(ProtocolError, match="NUL"):
        decode_request(message.encode())


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (Lock(b"SECRET"), "Lock()"),
        (Unlock(b"SECRET"), "Unlock()"),
        (AddSmartcardKey(b"/m", b"SECRET"), "AddSmartcardKey(provider=b'/m', constraints=())"),
        (RemoveSmartcardKey(b"/m", b"SECRET"), "RemoveSmartcardKey(provider=b'/m')"),
        (Ed25519PrivateKey(ED25519, b"S" * 32), f"Ed25519PrivateKey(public={ED25519}, certificate=None)"),
        (EcdsaPrivateKey(P256, 7), f"EcdsaPrivateKey(public={P256}, certificate=None)"),
        (RsaPrivateKey(RSA, 7, 7, 7, 7), f"RsaPrivateKey(public={RSA}, certificate=None)"),
        (
            SkPrivateKey(SkPublicKey(ED25519, "ssh:"), 1, b"SECRET", b""),
            f"SkPrivateKey(public={SkPublicKey(ED25519, 'ssh:')}, certificate=None, flags=1, reserved=b'')",
        ),
    ],
)
def test_secrets_are_not_shown(message: object, shown: str):
    assert repr(message) == shown


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (Writer().text("ssh-dss"), "not supported"),
        (
            Writer().text("ssh-ed25519").string(b"P" * 32).string(b"S" * 32 + b"X" * 32),
            "do not belong together",
        ),
        (
            Writer().text("ssh-ed25519").string(b"P" * 32).string(b"S" * 31 + b"P" * 32),
            "do not belong together",
        ),
        (Writer().text("ssh-ed25519").string(b"P" * 32).string(b"S" * 32), "do not belong together"),
        (
            Writer().text("ecdsa-sha2-nistp256").text("nistp256").string(P256.point).mpint(0),
            "impossible ECDSA",
        ),
        (
            Writer().text("ecdsa-sha2-nistp256").text("nistp256").string(P256.point).mpint(2**256),
            "impossible",
        ),
        (
            Writer().text("ssh-rsa").mpint(RSA.n).mpint(3).mpint(0).mpint(7).mpint(7).mpint(7),
            "impossible RSA",
        ),
        (
            Writer().text("ssh-rsa").mpint(RSA.n).mpint(3).mpint(7).mpint(7).mpint(7).mpint(RSA.n),
            "impossible",
        ),
        (
            Writer().text("ssh-rsa-cert-v01@openssh.com").string(certificate(ED25519).encode()),
            "named ssh-rsa",
        ),
        (Writer().text("ssh-rsa-cert-v01@openssh.com").string(ED25519.encode()), "not a certificate"),
        (
            Writer()
            .text("ssh-ed25519-cert-v01@openssh.com")
            .string(certificate(Ed25519PublicKey(b"X" * 32)).encode())
            .string(b"P" * 32)
            .string(b"S" * 32 + b"P" * 32),
            "for another key",
        ),
    ],
)
def test_impossible_private_keys(key: Writer, reason: str):
    payload = bytes(Writer().byte(MessageType.ADD_IDENTITY).raw(bytes(key)).string(b"comment"))
    with pytest.raises(ProtocolError, match=reason):
        decode_request(payload)


def test_an_ed25519_seed_of_another_size():
    with pytest.raises(ProtocolError, match="31 bytes"):
        Ed25519PrivateKey(ED25519, bytes(31))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"type": 3}, "unknown type 3"),
        ({"principals": (b"p",) * 257}, "more than 256 items"),
        ({"extensions": tuple((f"{number}", b"") for number in range(257))}, "more than 256 items"),
        ({"principals": (b"a\0",)}, "NUL"),
        ({"key_id": b"a\0"}, "NUL"),
        ({"ca_key": b""}, "truncated"),
        ({"ca_key": certificate(ED25519).encode()}, "signed by a certificate"),
    ],
)
def test_impossible_certificates(changes: dict[str, object], reason: str):
    good = certificate(ED25519)
    for name, value in changes.items():
        object.__setattr__(good, name, value)
    with pytest.raises(ProtocolError, match=reason):
        Certificate.decode(good.encode())


def test_the_most_principals():
    most = certificate(ED25519, principals=(b"p",) * 256)
    assert Certificate.decode(most.encode()) == most


def test_a_certificate_that_its_ca_did_not_sign():
    with pytest.raises(ProtocolError, match="malformed signature"):
        certificate(ED25519).verify_signature()


def test_a_session_identifier_has_at_most_128_bytes():
    longest = SessionBind(b"key", b"s" * 128, b"sig", is_forwarding=False).encode()
    assert SessionBind.decode(longest).session_id == b"s" * 128
    with pytest.raises(ProtocolError, match="more than 128"):
        SessionBind.decode(longest.replace(b"\0\0\0\x80", b"\0\0\0\x81").replace(b"ss", b"sss", 1))


def test_the_answer_to_a_query():
    names = QueryResponse(("session-bind@openssh.com", QUERY))
    answer = ExtensionResponse(QUERY, names.encode())
    assert answer.encode() == (
        b"\x1d\0\0\0\5query" + b"\0\0\0\x18session-bind@openssh.com" + b"\0\0\0\5query"
    )
    assert QueryResponse.decode(decode_response(answer.encode()).contents) == names


def test_failures_are_of_two_kinds():
    assert (Failure().encode(), ExtensionFailure().encode()) == (b"\x05", b"\x1c")
    assert Failure() != ExtensionFailure()
