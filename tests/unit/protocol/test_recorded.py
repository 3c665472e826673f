"""The messages that OpenSSH's own programs sent (see ../messages/record.py) mean what they meant there."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, derive_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from replug.protocol.certificates import Certificate, CertificateType
from replug.protocol.composite import CompositePrivateKey
from replug.protocol.constants import SignFlag
from replug.protocol.constraints import Confirm, Lifetime, RestrictDestination, SkProvider
from replug.protocol.decoding import decode_request, decode_response
from replug.protocol.extensions import SESSION_BIND, SessionBind
from replug.protocol.keys import (
    CompositePublicKey,
    Curve,
    EcdsaPublicKey,
    Ed25519PublicKey,
    RsaPublicKey,
    SkPublicKey,
    blob_algorithm,
    is_certificate,
    parse_public_key,
)
from replug.protocol.messages import (
    AddIdentity,
    AddSmartcardKey,
    Extension,
    Failure,
    IdentitiesAnswer,
    Lock,
    RemoveAllIdentities,
    RemoveAllRsa1Identities,
    RemoveIdentity,
    RemoveSmartcardKey,
    RequestIdentities,
    SignRequest,
    SignResponse,
    Success,
    Unlock,
)
from replug.protocol.signatures import InvalidSignatureError, Signature, rsa_algorithm, verify

RECORDED = Path(__file__).parents[2] / "messages"
SOFTHSM = b"/usr/lib/softhsm/libsofthsm2.so"
SK_DUMMY = b"/usr/lib/openssh/regress/misc/sk-dummy/sk-dummy.so"
PIN = b"1234"
FIDO_USER_PRESENCE = 1
T = TypeVar("T")


def names(folder: str, pattern: str = "*") -> list[str]:
    found = sorted(path.stem for path in (RECORDED / folder).glob(f"{pattern}.bin"))
    assert found
    return found


def request(name: str, kind: type[T]) -> T:
    message = decode_request((RECORDED / "requests" / f"{name}.bin").read_bytes())
    assert isinstance(message, kind)
    return message


def response(name: str, kind: type[T]) -> T:
    message = decode_response((RECORDED / "responses" / f"{name}.bin").read_bytes())
    assert isinstance(message, kind)
    return message


@pytest.mark.parametrize("name", names("requests"))
def test_requests_come_back_byte_for_byte(name: str):
    payload = (RECORDED / "requests" / f"{name}.bin").read_bytes()
    assert decode_request(payload).encode() == payload


@pytest.mark.parametrize("name", names("responses"))
def test_responses_come_back_byte_for_byte(name: str):
    payload = (RECORDED / "responses" / f"{name}.bin").read_bytes()
    assert decode_response(payload).encode() == payload


ADDED = {
    "add-rsa": RsaPublicKey,
    "add-ecdsa-nistp256": EcdsaPublicKey,
    "add-ecdsa-nistp384": EcdsaPublicKey,
    "add-ecdsa-nistp521": EcdsaPublicKey,
    "add-ed25519": Ed25519PublicKey,
    "add-constrained-sk-ecdsa-nistp256": SkPublicKey,
    "add-constrained-sk-ed25519": SkPublicKey,
}
OF_A_NEWER_RELEASE = {"add-mldsa44-ed25519": CompositePublicKey}


@pytest.mark.parametrize(("name", "kind"), (ADDED | OF_A_NEWER_RELEASE).items())
def test_added_keys(name: str, kind: type):
    message = request(name, AddIdentity)
    key_name = name.removeprefix("add-").removeprefix("constrained-")
    assert type(message.key.public) is kind
    assert message.comment == f"{key_name} key".encode()
    assert message.key.certificate is None
    assert message.constraints == ((SkProvider(SK_DUMMY),) if "sk-" in name else ())


def test_added_key_of_each_algorithm():
    assert [request(name, AddIdentity).key.algorithm for name in ADDED] == [
        "ssh-rsa",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "ssh-ed25519",
        "sk-ecdsa-sha2-nistp256@openssh.com",
        "sk-ssh-ed25519@openssh.com",
    ]


@pytest.mark.parametrize("name", ADDED | OF_A_NEWER_RELEASE)
def test_added_certificates(name: str):
    plain, certified = request(name, AddIdentity), request(f"{name}-cert", AddIdentity)
    key_name = name.removeprefix("add-").removeprefix("constrained-")
    certificate = certified.key.certificate
    assert certificate is not None
    assert certified.key.public == certificate.key == plain.key.public
    assert certified.key.algorithm == certificate.algorithm
    assert certificate.type is CertificateType.USER
    assert certificate.key_id == f"{key_name} id".encode()
    assert certificate.serial == 7
    assert certificate.principals == (b"alice", b"bob")
    assert (certificate.valid_after, certificate.valid_before) == (1577836800, 2208988800)  # 2020, 2040
    assert certificate.critical_options == (("source-address", b"\0\0\0\x0b127.0.0.0/8"),)
    assert [extension for extension, data in certificate.extensions if data == b""] == [
        "permit-X11-forwarding",
        "permit-agent-forwarding",
        "permit-port-forwarding",
        "permit-pty",
        "permit-user-rc",
    ]
    certificate.verify_signature()


def test_added_private_numbers_belong_to_the_public_key():
    rsa = request("add-rsa", AddIdentity).key
    assert rsa.p * rsa.q == rsa.public.n
    assert rsa.iqmp * rsa.q % rsa.p == 1
    assert rsa.d * rsa.public.e % (rsa.p - 1) == 1
    ecdsa = request("add-ecdsa-nistp384", AddIdentity).key
    assert derive_private_key(ecdsa.d, SECP384R1()).public_key() == ecdsa.public.to_cryptography()
    ed25519 = request("add-ed25519", AddIdentity).key
    computed = Ed25519PrivateKey.from_private_bytes(ed25519.seed)
    assert computed.public_key() == ed25519.public.to_cryptography()


def test_added_seeds_belong_to_the_public_key():
    key = request("add-mldsa44-ed25519", AddIdentity).key
    assert key.algorithm == "ssh-mldsa44-ed25519"
    assert CompositePrivateKey(key.algorithm, key.seeds).public_numbers() == key.public.numbers
    certified = request("add-mldsa44-ed25519-cert", AddIdentity).key
    assert (certified.algorithm, certified.seeds) == ("ssh-mldsa44-ed25519-cert", key.seeds)


def test_added_fido_key():
    key = request("add-constrained-sk-ecdsa-nistp256", AddIdentity).key
    assert (key.public.key.curve, key.public.application) == (Curve.NISTP256, "ssh:")
    assert (key.flags, key.reserved) == (FIDO_USER_PRESENCE, b"")


def test_the_agent_lists_what_was_added():
    added = [request(f"{name}{suffix}", AddIdentity) for name in ADDED for suffix in ("", "-cert")]
    listed = response("identities-answer", IdentitiesAnswer).identities
    assert [(identity.key_blob, identity.comment) for identity in listed] == [
        (message.key.blob, message.comment) for message in added
    ]


def test_constraints():
    assert request("add-constrained-lifetime", AddIdentity).constraints == (Lifetime(600),)
    assert request("add-constrained-confirm", AddIdentity).constraints == (Confirm(),)
    (destinations,) = request("add-constrained-destination", AddIdentity).constraints
    assert request("add-constrained-all", AddIdentity).constraints == (
        Lifetime(3600),
        Confirm(),
        destinations,
    )


def test_destinations():
    (restriction,) = request("add-constrained-destination", AddIdentity).constraints
    assert isinstance(restriction, RestrictDestination)
    here, onward = restriction.constraints
    assert (here.from_hop.hostname, here.from_hop.keys) == ("", ())
    assert (here.to_hop.user, here.to_hop.hostname) == ("", "bastion")
    assert [key.is_ca for key in here.to_hop.keys] == [False]
    assert onward.from_hop == here.to_hop
    assert (onward.to_hop.user, onward.to_hop.hostname) == ("alice", "inner.example.org")
    assert [key.is_ca for key in onward.to_hop.keys] == [True]
    assert type(parse_public_key(onward.to_hop.keys[0].blob)) is Ed25519PublicKey


@pytest.mark.parametrize("name", names("responses", "sign-*"))
def test_signatures_verify(name: str):
    asked, signature = request(name, SignRequest), response(name, SignResponse).signature
    certified = is_certificate(blob_algorithm(asked.key_blob))
    key = Certificate.decode(asked.key_blob).key if certified else parse_public_key(asked.key_blob)
    assert certified is name.endswith("-cert")
    verify(key, signature, asked.data)
    with pytest.raises(InvalidSignatureError):
        verify(key, signature, asked.data + b"\0")


@pytest.mark.parametrize(
    ("name", "flags", "algorithm"),
    [
        ("sign-rsa-sha1", 0, "ssh-rsa"),
        ("sign-rsa-sha256", SignFlag.RSA_SHA2_256, "rsa-sha2-256"),
        ("sign-rsa-sha512", SignFlag.RSA_SHA2_512, "rsa-sha2-512"),
        ("sign-rsa", SignFlag.RSA_SHA2_512, "rsa-sha2-512"),
    ],
)
def test_flags_choose_the_rsa_algorithm(name: str, flags: int, algorithm: str):
    assert request(name, SignRequest).flags == flags
    assert rsa_algorithm(flags) == algorithm
    assert Signature.decode(response(name, SignResponse).signature).algorithm == algorithm


@pytest.mark.parametrize(
    ("name", "key_type", "is_forwarding"),
    [
        ("host-ed25519", Ed25519PublicKey, False),
        ("host-ecdsa-nistp256", EcdsaPublicKey, False),
        ("host-rsa", RsaPublicKey, False),
        ("host-mldsa44-ed25519", CompositePublicKey, False),
        ("host-certificate", Certificate, False),
        ("forwarding", Certificate, True),
    ],
)
def test_session_binds(name: str, key_type: type, is_forwarding: bool):
    message = request(f"extension-session-bind-{name}", Extension)
    bind = SessionBind.decode(message.contents)
    assert message.name == SESSION_BIND
    assert bind.encode() == message.contents
    assert bind.is_forwarding is is_forwarding
    if key_type is Certificate:
        certificate = Certificate.decode(bind.host_key)
        assert (certificate.type, certificate.principals) == (CertificateType.HOST, (b"localhost",))
        certificate.verify_signature()
        key = certificate.key
    else:
        key = parse_public_key(bind.host_key)
        assert type(key) is key_type
    verify(key, bind.signature, bind.session_id)


def test_smartcards():
    assert request("add-smartcard", AddSmartcardKey) == AddSmartcardKey(SOFTHSM, PIN)
    constrained = AddSmartcardKey(SOFTHSM, PIN, (Lifetime(600), Confirm()))
    assert request("add-smartcard-constrained", AddSmartcardKey) == constrained
    assert request("remove-smartcard", RemoveSmartcardKey) == RemoveSmartcardKey(SOFTHSM, b"")
    card_key = response("identities-answer-smartcard", IdentitiesAnswer).identities[-1]
    assert card_key.comment == b"a key"
    assert parse_public_key(card_key.key_blob).algorithm == "ecdsa-sha2-nistp256"


def test_the_rest():
    added = request("add-rsa", AddIdentity).key.blob
    assert request("remove", RemoveIdentity) == RemoveIdentity(added)
    assert request("lock", Lock) == Lock(PIN)
    assert request("unlock", Unlock) == Unlock(PIN)
    for name, kind in {
        "request-identities": RequestIdentities,
        "remove-all": RemoveAllIdentities,
        "remove-all-rsa1": RemoveAllRsa1Identities,
    }.items():
        assert request(name, kind) == kind()
    assert response("success", Success) == Success()
    assert response("failure", Failure) == Failure()
    assert response("identities-answer-empty", IdentitiesAnswer) == IdentitiesAnswer(())
