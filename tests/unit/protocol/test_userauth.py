"""Logins to be signed: what ssh sends, and what is anything else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from doubles.session_hosts import certificate
from doubles.stand_ins import Key
from hypothesis import given
from hypothesis import strategies as st

from replug.protocol.decoding import decode_request
from replug.protocol.messages import SignRequest
from replug.protocol.userauth import UserauthRequest
from replug.protocol.wire import ProtocolError, Writer

KEY, RSA, HOST, CA = Key(), Key(kind="rsa"), Key(), Key()
LOGIN = UserauthRequest(b"session", "alice", "ssh-ed25519", KEY.blob, HOST.blob)
NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


def test_the_login_that_the_real_ssh_sent() -> None:
    path = Path(__file__).parents[2] / "messages" / "requests" / "sign-login.bin"
    request = decode_request(path.read_bytes())
    assert isinstance(request, SignRequest)
    login = UserauthRequest.decode(request.data)
    assert login.key_blob == request.key_blob
    assert login.encode() == request.data


@given(st.binary(min_size=1), NAMES, st.none() | st.binary())
def test_logins_survive_the_wire(session: bytes, user: str, host: bytes | None) -> None:
    login = UserauthRequest(session, user, "ssh-ed25519", KEY.blob, host)
    assert UserauthRequest.decode(login.encode()) == login


@given(st.integers(0, len(LOGIN.encode()) - 1))
def test_a_part_of_a_login_is_none(length: int) -> None:
    with pytest.raises(ProtocolError):
        UserauthRequest.decode(LOGIN.encode()[:length])


@pytest.mark.parametrize(
    ("algorithm", "key"),
    [
        ("ssh-rsa", RSA.blob),
        ("rsa-sha2-256", RSA.blob),
        ("rsa-sha2-512", RSA.blob),
        ("rsa-sha2-512-cert-v01@openssh.com", certificate(RSA, CA, "x")),
        ("ssh-rsa-cert-v01@openssh.com", certificate(RSA, CA, "x")),
        ("ssh-ed25519-cert-v01@openssh.com", certificate(KEY, CA, "x")),
    ],
    ids=["sha1", "sha256", "sha512", "rsa-certificate", "rsa-certificate-sha1", "ed25519-certificate"],
)
def test_algorithms_of_a_key(algorithm: str, key: bytes) -> None:
    login = replace(LOGIN, algorithm=algorithm, key_blob=key)
    assert UserauthRequest.decode(login.encode()) == login


@pytest.mark.parametrize(
    ("algorithm", "key"),
    [
        ("ssh-rsa", KEY.blob),
        ("ssh-ed25519", RSA.blob),
        ("rsa-sha2-512", certificate(RSA, CA, "x")),
        ("rsa-sha2-512-cert-v01@openssh.com", RSA.blob),
        ("rsa-sha2-512-cert-v01@openssh.com.evil", RSA.blob),
        ("", KEY.blob),
        ("ssh-ed25519", b""),
    ],
    ids=["rsa", "ed25519", "certificate", "plain", "something-after-it", "empty", "no-key"],
)
def test_an_algorithm_of_another_key(algorithm: str, key: bytes) -> None:
    with pytest.raises(ProtocolError):
        UserauthRequest.decode(replace(LOGIN, algorithm=algorithm, key_blob=key).encode())


def written(
    number: int = 50, service: str = "ssh-connection", method: str = "publickey", signed: int = 1
) -> bytes:
    writer = Writer().string(b"session").byte(number).text("alice").text(service).text(method)
    return bytes(writer.byte(signed).text("ssh-ed25519").string(KEY.blob))


def test_anything_else_is_no_login() -> None:
    assert UserauthRequest.decode(written()) == replace(LOGIN, host_key=None)
    for data in (
        written(number=51),
        written(service="ssh-userauth"),
        written(method="hostbased"),
        written(method="publickey-hostbound-v00@openssh.com"),
        written(signed=0),
        written(signed=2),
        written() + b"\0\0\0\0",
        written().replace(b"\0\0\0\7session", b"\0\0\0\0"),
    ):
        with pytest.raises(ProtocolError):
            UserauthRequest.decode(data)
