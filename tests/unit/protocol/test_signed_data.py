"""SSHSIG and host key proofs: what OpenSSH's programs send, and what is nearly that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from doubles.protocol_strategies import bounded, host_key_proofs, mutated, ssh_signatures
from fuzz.targets import recorded
from hypothesis import given
from hypothesis import strategies as st

from replug.protocol.decoding import decode_request
from replug.protocol.messages import SignRequest
from replug.protocol.signed_data import HostKeyProof, SshSignature
from replug.protocol.wire import ProtocolError, Writer

kinds = pytest.mark.parametrize(
    ("values", "decode"),
    [(ssh_signatures, SshSignature.decode), (host_key_proofs, HostKeyProof.decode)],
    ids=["SSHSIG", "proof"],
)


def recorded_data(name: str) -> bytes:
    (message,) = recorded("requests", name)
    request = decode_request(message)
    assert isinstance(request, SignRequest)
    return request.data


@kinds
@bounded
@given(data=st.data())
def test_they_survive_the_wire(values: Any, decode: Callable, data: st.DataObject) -> None:
    value = data.draw(values)
    assert decode(value.encode()) == value


@kinds
@bounded
@given(data=st.data())
def test_what_decodes_is_encoded_to_the_same_bytes(
    values: Any, decode: Callable, data: st.DataObject
) -> None:
    encoded = data.draw(mutated(values.map(lambda value: value.encode())))
    try:
        value = decode(encoded)
    except ProtocolError:
        return
    assert value.encode() == encoded


@kinds
@bounded
@given(data=st.data(), more=st.binary(min_size=1, max_size=3))
def test_nothing_is_missing_or_follows(
    values: Any, decode: Callable, data: st.DataObject, more: bytes
) -> None:
    encoded = data.draw(values).encode()
    for wrong in (encoded + more, encoded[: -len(more)]):
        with pytest.raises(ProtocolError):
            decode(wrong)


def test_what_ssh_keygen_signs() -> None:
    signature = SshSignature.decode(recorded_data("sign-ed25519"))
    assert (signature.namespace, signature.hash_name) == (b"test", "sha512")


def test_what_sshd_proves() -> None:
    assert HostKeyProof.decode(recorded_data("sign-host-key-proof")).host_key[4:23] == b"ecdsa-sha2-nistp256"


@pytest.mark.parametrize(
    ("namespace", "reserved", "hash_name", "size"),
    [
        (b"", b"", b"sha512", 64),
        (b"git\0", b"", b"sha512", 64),
        (b"git", b"x", b"sha512", 64),
        (b"git", b"", b"sha1", 20),
        (b"git", b"", b"sha512", 32),
        (b"git", b"", b"sha256", 64),
        (b"git", b"", b"", 0),
    ],
)
def test_what_is_no_sshsig(namespace: bytes, reserved: bytes, hash_name: bytes, size: int) -> None:
    writer = Writer().raw(b"SSHSIG").string(namespace).string(reserved)
    with pytest.raises(ProtocolError):
        SshSignature.decode(bytes(writer.string(hash_name).string(bytes(size))))
