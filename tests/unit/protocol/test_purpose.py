"""What is signed: each form as OpenSSH's programs send it, in bound sessions and others, and near misses."""

from __future__ import annotations

import base64
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from doubles.protocol_strategies import (
    bounded,
    certificates,
    host_key_proofs,
    mutated,
    ssh_signatures,
    strings,
    texts,
)
from doubles.session_hosts import certificate, sessions
from doubles.stand_ins import Key
from fuzz.targets import recorded
from hypothesis import given
from hypothesis import strategies as st

from replug.protocol.certificates import Certificate, CertificateType
from replug.protocol.decoding import decode_request
from replug.protocol.known_hosts import KnownAs
from replug.protocol.messages import SignRequest
from replug.protocol.purpose import (
    CertificateToSign,
    Host,
    Login,
    OtherData,
    Purpose,
    Signed,
    UnboundLogin,
    purpose_of,
)
from replug.protocol.sessions import Binding, Sessions
from replug.protocol.signed_data import HostKeyProof, SshSignature
from replug.protocol.userauth import UserauthRequest
from replug.protocol.wire import Writer

KEY, SERVER, BASTION, OTHER = Key(), Key(), Key(), Key()
HERE = Sessions()
AT_SERVER = sessions((SERVER, False))
OVER_BASTION = sessions((BASTION, True), (SERVER, False))
FORWARDED = sessions((BASTION, True))
NOW = 1_800_000_000
KEY_TYPES = (
    *("rsa", "ecdsa-nistp256", "ecdsa-nistp384", "ecdsa-nistp521"),
    *("ed25519", "sk-ecdsa-nistp256", "sk-ed25519", "mldsa44-ed25519"),
)
LOGIN = UserauthRequest(b"session 0", "root", "ssh-ed25519", KEY.blob, SERVER.blob)


def known(blob: bytes) -> KnownAs:
    return KnownAs((f"host-{blob[-1]}",))


def purpose(data: bytes, connection: Sessions = HERE, key: bytes = KEY.blob) -> Purpose:
    hosts = tuple(Host(bound.host_key, known(bound.host_key)) for bound in connection.bindings)
    return purpose_of(data, key, connection, hosts, NOW)


def signed(data: bytes, connection: Sessions = HERE, key: bytes = KEY.blob) -> Signed:
    return purpose(data, connection, key).signed


def host(key: Key) -> Host:
    return Host(key.blob, known(key.blob))


def asked(name: str) -> SignRequest:
    (message,) = recorded("requests", name)
    request = decode_request(message)
    assert isinstance(request, SignRequest)
    return request


def recorded_purpose(name: str) -> Signed:
    return signed(asked(name).data, HERE, asked(name).key_blob)


def test_a_login_in_the_session_of_the_connection() -> None:
    found = purpose(LOGIN.encode(), AT_SERVER)
    assert found == Purpose(Login(host(SERVER), "root"), (), unverified=False)
    assert (found.is_login, found.forwarded) == (True, False)


def test_a_login_over_a_forwarded_agent() -> None:
    found = purpose(replace(LOGIN, session_id=b"session 1").encode(), OVER_BASTION)
    assert found == Purpose(Login(host(SERVER), "root"), (host(BASTION),), unverified=False)
    assert (found.is_login, found.forwarded) == (True, True)


def test_a_server_without_the_hostbound_extension() -> None:
    assert signed(replace(LOGIN, host_key=None).encode(), AT_SERVER) == Login(host(SERVER), "root")


def test_the_login_of_the_real_ssh() -> None:
    request = asked("sign-login")
    login = UserauthRequest.decode(request.data)
    assert login.host_key is not None
    bound = Sessions((Binding(login.host_key, login.session_id, False),), bind_attempted=True)
    found = signed(request.data, bound, request.key_blob)
    assert isinstance(found, Login)
    assert (found.host.key, found.user) == (login.host_key, login.user)
    assert isinstance(recorded_purpose("sign-login"), UnboundLogin)


@pytest.mark.parametrize(
    ("login", "connection", "why"),
    [
        (LOGIN, HERE, "bound to no session"),
        (LOGIN, Sessions((), bind_attempted=True), "bound to no session"),
        (replace(LOGIN, session_id=b"another"), AT_SERVER, "another session"),
        (LOGIN, OVER_BASTION, "another session"),
        (LOGIN, FORWARDED, "forwarded in"),
        (replace(LOGIN, host_key=OTHER.blob), AT_SERVER, "another host key"),
    ],
    ids=["unbound", "failed", "another", "hop", "forwarding", "host-key"],
)
def test_a_login_in_an_unknown_session(login: UserauthRequest, connection: Sessions, why: str) -> None:
    found = purpose(login.encode(), connection)
    assert isinstance(found.signed, UnboundLogin)
    assert (found.signed.user, found.signed.claimed_host_key) == ("root", login.host_key)
    assert why in found.signed.why
    assert not found.is_login
    assert found.forwarded == connection.bind_attempted & (connection is not AT_SERVER)


def test_the_plain_key_signs_for_its_certificate() -> None:
    """As ssh does with CertificateFile and an agent that lists the plain key alone."""
    certified = certificate(KEY, OTHER, "root")
    login = replace(LOGIN, algorithm="ssh-ed25519-cert-v01@openssh.com", key_blob=certified)
    assert signed(login.encode(), AT_SERVER) == Login(host(SERVER), "root")


@pytest.mark.parametrize("blob", [OTHER.blob, certificate(OTHER, KEY, "root")], ids=["key", "certificate"])
def test_a_login_by_another_key_is_none(blob: bytes) -> None:
    kind = blob[4 : 4 + blob[3]].decode()
    login = replace(LOGIN, algorithm=kind, key_blob=blob)
    found = signed(login.encode(), AT_SERVER)
    assert found == OtherData(len(login.encode()), "a login (by another key)")


@pytest.mark.parametrize("name", KEY_TYPES)
def test_a_certificate_as_ssh_keygen_asks_an_agent_for_it(name: str) -> None:
    request = asked(f"sign-certificate-{name}")
    found = signed(request.data, HERE, request.key_blob)
    assert isinstance(found, CertificateToSign)
    body = found.certificate
    assert body.body() == request.data
    assert (found.is_for_host, body.principals, body.key_id) == (False, (b"root", b"www"), b"alice@bastion")
    assert body.serial == 7
    assert found.seconds_left == body.valid_before - NOW
    assert [option for option, _ in body.critical_options] == ["source-address"]


def test_certificates_for_anybody_and_for_hosts() -> None:
    anybody, of_host = (recorded_purpose(f"sign-certificate-{name}") for name in ("anybody", "host"))
    assert isinstance(anybody, CertificateToSign)
    assert isinstance(of_host, CertificateToSign)
    assert (anybody.certificate.principals, anybody.seconds_left) == ((), None)
    assert of_host.is_for_host


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
@pytest.mark.parametrize("ca_kind", ["rsa", "ecdsa", "ed25519"])
def test_the_bodies_of_certificates_by_every_ca(tmp_path: Path, kind: str, ca_kind: str) -> None:
    def keygen(*arguments: str) -> None:
        subprocess.run(["ssh-keygen", "-q", *arguments], check=True, cwd=tmp_path, capture_output=True)

    keygen("-t", ca_kind, "-N", "", "-f", "ca")
    keygen("-t", kind, "-N", "", "-f", "key")
    keygen("-s", "ca", "-I", "x", "-n", "a,b", "-O", "force-command=ls", "-V", "+1h", "key.pub")
    blob = base64.b64decode((tmp_path / "key-cert.pub").read_text().split()[1])
    made = Certificate.decode(blob)
    found = signed(blob[: -4 - len(made.signature)], HERE, made.ca_key)
    assert found == CertificateToSign(replace(made, signature=b""), NOW)


def test_a_certificate_of_another_ca_is_none() -> None:
    body = Certificate.decode(certificate(KEY, OTHER, "root")).body()
    assert isinstance(signed(body, HERE, OTHER.blob), CertificateToSign)
    assert signed(body, HERE, KEY.blob) == OtherData(len(body), "a certificate (by another CA key)")


def test_a_certificate_is_one_though_the_ca_is_asked_by_the_name_of_a_certificate_of_its_own() -> None:
    """An agent holds both; the signature is by the same key."""
    body = Certificate.decode(certificate(KEY, OTHER, "root")).body()
    found = signed(body, HERE, certificate(OTHER, KEY, "ca"))
    assert isinstance(found, CertificateToSign)
    assert found.certificate.principals == (b"root",)


def test_a_certificate_with_its_signature_is_none() -> None:
    blob = certificate(KEY, OTHER, "root")
    found = signed(blob, HERE, OTHER.blob)
    assert isinstance(found, OtherData)
    assert found.resembles.startswith("a certificate")


def test_a_certificate_of_an_unsupported_type_is_said_to_resemble_one() -> None:
    data = bytes(Writer().string(b"ssh-dss-cert-v01@openssh.com").string(b"nonce").string(b"p"))
    found = signed(data)
    assert isinstance(found, OtherData)
    assert found.resembles.startswith("a certificate")


@pytest.mark.parametrize("left", [0, 600])
def test_how_long_a_certificate_is_valid_counts_from_now(left: int) -> None:
    body = Certificate.decode(certificate(KEY, OTHER, valid_after=0, valid_before=NOW + left)).body()
    found = signed(body, HERE, OTHER.blob)
    assert isinstance(found, CertificateToSign)
    assert found.seconds_left == left


@pytest.mark.parametrize("name", ["rsa", "ecdsa-nistp521", "ed25519-cert"])
def test_a_file_signed_by_ssh_keygen(name: str) -> None:
    found = recorded_purpose(f"sign-{name}")
    assert isinstance(found, SshSignature)
    assert found.namespace == b"test"


def test_what_sshd_asks_of_host_keys_in_an_agent() -> None:
    assert isinstance(recorded_purpose("sign-host-key-proof"), HostKeyProof)
    assert recorded_purpose("sign-key-exchange") == OtherData(64, "")
    proof = HostKeyProof(b"session", OTHER.blob).encode()
    assert signed(proof) == OtherData(len(proof), "a host key proof (of another key)")


@pytest.mark.parametrize(
    ("data", "resembles"),
    [
        (b"", ""),
        (bytes(32), ""),
        (b"\0\0\0\4abc", ""),
        (b"\xff\xff\xff\xffabc", ""),
        (b"\0\0\0\1x\x32", "a login"),
        (bytes(Writer().string(b"session").byte(50).string(b"\xff")), "a login"),
        (LOGIN.encode() + b"\0", "a login"),
        (LOGIN.encode()[:-1], "a login"),
        (LOGIN.encode().replace(b"ssh-connection", b"ssh-userauth"), "a login"),
        (b"SSHSIG", "an SSHSIG"),
        (b"SSHSIG" + bytes(12), "an SSHSIG"),
        (bytes(Writer().string(b"hostkeys-prove-00@openssh.com")) + b"\0", "a host key proof"),
    ],
    ids=range(12),
)
def test_anything_else(data: bytes, resembles: str) -> None:
    found = signed(data, AT_SERVER)
    assert isinstance(found, OtherData)
    assert found.size == len(data)
    assert found.resembles.partition(" (")[0] == resembles


def test_a_session_identifier_that_reads_like_another_form() -> None:
    """A client chooses the data it has signed, so also what the session identifier in it is."""
    for name in (b"hostkeys-prove-00@openssh.com", b"ssh-ed25519-cert-v01@openssh.com"):
        assert isinstance(signed(replace(LOGIN, session_id=name).encode()), UnboundLogin)


@given(st.data())
@bounded
def test_what_is_of_a_form_is_written_as_the_same_bytes(drawn: st.DataObject) -> None:
    logins = st.builds(
        UserauthRequest, strings.filter(bool), texts, st.just("ssh-ed25519"), st.just(KEY.blob), strings
    ).map(UserauthRequest.encode)
    bodies = certificates.map(lambda made: replace(made, ca_key=KEY.blob).body())
    proofs = host_key_proofs.map(lambda proof: replace(proof, host_key=KEY.blob).encode())
    encoded = logins | bodies | proofs | ssh_signatures.map(SshSignature.encode)
    data = drawn.draw(encoded | mutated(encoded) | st.binary(max_size=80))
    match signed(data):
        case UnboundLogin(user, _, claimed):
            login = UserauthRequest.decode(data)
            assert (login.user, login.host_key, login.encode()) == (user, claimed, data)
        case CertificateToSign(made):
            assert made.body() == data
        case SshSignature() | HostKeyProof() as found:
            assert found.encode() == data
        case OtherData(size):
            assert size == len(data)
        case other:
            raise AssertionError(other)


@given(certificates)
@bounded
def test_every_certificate_body_is_one(made: Certificate) -> None:
    unsigned = replace(made, signature=b"")
    assert signed(made.body(), HERE, made.ca_key) == CertificateToSign(unsigned, NOW)
    assert unsigned.type in CertificateType


@pytest.mark.parametrize(
    "start", [b"", b"SSHSIG", b"\0\0\0\1x\x32", LOGIN.encode()], ids=["none", "SSHSIG", "login", "long"]
)
def test_the_largest_data_takes_no_time(start: bytes) -> None:
    """CPU time, so that a busy machine decides nothing: a millisecond is 20 times what it takes."""
    option = bytes(Writer().string(b"o").string(b""))
    body = bytes(Writer().string(b"ssh-ed25519-cert-v01@openssh.com").string(bytes(200_000))) + option * 5000
    for data in (start + bytes(250_000), start + b"\xff" * 250_000, body):
        began = time.process_time()
        for _ in range(20):
            purpose(data, OVER_BASTION)
        assert (time.process_time() - began) / 20 < 0.002
