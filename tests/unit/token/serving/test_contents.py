"""What is found on tokens as they are: odd labels, no IDs, nothing but certificates."""

from __future__ import annotations

import datetime
import subprocess
import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_ssh_public_key
from cryptography.x509.oid import NameOID
from doubles.softhsm_bench import Session, tool
from doubles.stand_ins import run
from rigs.softhsm import MODULE, PIN, Token

from replug.token.keys import TokenKey


def found_after_login() -> list[TokenKey]:
    """What the one token shows after login, each key having proven that it signs if it says so."""

    async def main() -> list[TokenKey]:
        session = await Session.start()
        await session.keys()
        keys = await session.log_in()
        for key in keys:
            if key.signs:
                await session.sign(key)
        await session.end()
        return keys

    return run(main())


def test_a_label_that_is_not_utf8(token: Token) -> None:
    tool(token, "--keypairgen", "--key-type", "EC:prime256v1", "--label", b"caf\xe9", "--usage-sign")
    assert [(key.label, key.signs) for key in found_after_login()] == [("caf\N{REPLACEMENT CHARACTER}", True)]


def test_keys_without_an_id_are_told_apart_by_their_labels(token: Token) -> None:
    for label in ("one", "two"):
        tool(token, "--keypairgen", "--key-type", "EC:prime256v1", "--label", label, "--usage-sign")
    assert sorted((key.label, key.key_id, key.signs) for key in found_after_login()) == [
        ("one", b"", True),
        ("two", b"", True),
    ]


def test_a_token_with_nothing_but_certificates(token: Token) -> None:
    public = token.add("p256")
    add_certificate(token, "01")
    tool(token, "--delete-object", "--type", "pubkey", "--id", "01")
    [key] = found_after_login()
    assert (key.label, key.signs) == ("/O=Example/CN=alice", True)
    assert key.public.algorithm == public.read_text().split()[0]


def test_a_public_key_and_its_certificate_are_one(token: Token) -> None:
    token.add("p256")
    add_certificate(token, "01")
    [key] = found_after_login()
    assert (key.label, key.signs) == ("p256", True)


def test_a_key_whose_private_half_is_not_there_does_not_sign(token: Token) -> None:
    token.add("p256")
    tool(token, "--delete-object", "--type", "privkey", "--id", "01")
    assert [key.signs for key in found_after_login()] == [False]


def test_a_key_that_is_for_something_else_does_not_sign(token: Token) -> None:
    """As the EC key in a PIV card's slot 9d: it derives only."""
    program = f"""
import pkcs11
from pkcs11.util.ec import encode_named_curve_parameters
[token] = pkcs11.lib({str(MODULE)!r}).get_tokens(token_label={token.label!r})
with token.open(rw=True, user_pin={PIN!r}) as session:
    parameters = {{pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}}
    domain = session.create_domain_parameters(pkcs11.KeyType.EC, parameters, local=True)
    domain.generate_keypair(capabilities=pkcs11.MechanismFlag.DERIVE, store=True, label="derives", id=b"1")
"""
    subprocess.run([sys.executable, "-c", program], env=token.home.env, check=True)
    assert [(key.label, key.signs) for key in found_after_login()] == [("derives", False)]


def test_keys_on_other_curves_are_left_out(token: Token) -> None:
    tool(token, "--keypairgen", "--key-type", "EC:secp256k1", "--label", "k1", "--id", "0f", "--usage-sign")
    token.add("ed25519")
    assert [key.label for key in found_after_login()] == ["ed25519"]


def add_certificate(token: Token, key_id: str) -> None:
    """Puts a certificate for the token's key, or rather its public half, on the token."""
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example"),
            x509.NameAttribute(NameOID.COMMON_NAME, "alice"),
        ]
    )
    today = datetime.datetime(2024, 1, 1)
    certificate = (
        x509.CertificateBuilder(
            subject_name=name,
            issuer_name=name,
            public_key=load_ssh_public_key(token.public("p256").read_bytes()),
            serial_number=1,
            not_valid_before=today,
            not_valid_after=today + datetime.timedelta(days=1),
        )
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
        .public_bytes(Encoding.DER)
    )
    path = token.home.folder / "certificate.der"
    path.write_bytes(certificate)
    tool(token, "--write-object", path, "--type", "cert", "--id", key_id, "--label", "a certificate")
