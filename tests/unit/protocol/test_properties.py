"""What holds for every value and every input: nothing is lost, and nothing but what is valid decodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import doubles.protocol_strategies as wire
import pytest
from doubles.protocol_strategies import bounded, mutated
from hypothesis import given
from hypothesis import strategies as st

from replug.protocol.certificates import Certificate
from replug.protocol.constraints import Constraint, parse_constraints
from replug.protocol.decoding import decode_request, decode_response
from replug.protocol.extensions import QueryResponse, SessionBind
from replug.protocol.keys import PublicKey, fingerprint, parse_public_key
from replug.protocol.private_keys import PrivateKey, read_private_key
from replug.protocol.signatures import InvalidSignatureError, Signature, verify
from replug.protocol.wire import ProtocolError, Reader, Writer


def decode_private_key(data: bytes) -> PrivateKey:
    reader = Reader(data)
    key = read_private_key(reader)
    reader.check_end()
    return key


def decode_constraint(data: bytes) -> Constraint:
    constraints = parse_constraints(Reader(data))
    if len(constraints) != 1:
        raise ProtocolError("not one constraint")
    return constraints[0]


# Each kind of value: its name, a strategy, and its decoder. The bytes of the closed ones tell where they end.
CLOSED = [
    ("request", wire.closed_requests, decode_request),
    ("response", wire.closed_responses, decode_response),
    ("public key", wire.public_keys, parse_public_key),
    ("certificate", wire.certificates, Certificate.decode),
    ("private key", wire.private_keys(), decode_private_key),
    ("constraint", wire.constraints, decode_constraint),
    ("session bind", wire.session_binds, SessionBind.decode),
    ("signature", st.builds(Signature, wire.texts, wire.strings), Signature.decode),
]
OPEN = [
    ("any request", wire.requests, decode_request),
    ("any response", wire.responses, decode_response),
    ("query response", wire.query_responses, QueryResponse.decode),
]
every_kind = pytest.mark.parametrize(
    ("values", "decode"), [pytest.param(*kind[1:], id=kind[0]) for kind in CLOSED + OPEN]
)
closed_kinds = pytest.mark.parametrize(
    ("values", "decode"), [pytest.param(*kind[1:], id=kind[0]) for kind in CLOSED]
)


@every_kind
@bounded
@given(data=st.data())
def test_what_is_encoded_decodes_to_the_same_value(values: Any, decode: Callable, data: st.DataObject):
    value = data.draw(values)
    assert decode(value.encode()) == value


@closed_kinds
@bounded
@given(data=st.data())
def test_no_part_of_it_decodes(values: Any, decode: Callable, data: st.DataObject):
    encoded = data.draw(values).encode()
    for size in range(len(encoded)):
        with pytest.raises(ProtocolError):
            decode(encoded[:size])


@closed_kinds
@bounded
@given(data=st.data(), more=st.binary(min_size=1, max_size=3))
def test_nothing_may_follow(values: Any, decode: Callable, data: st.DataObject, more: bytes):
    with pytest.raises(ProtocolError):
        decode(data.draw(values).encode() + more)


@every_kind
@bounded
@given(data=st.data())
def test_what_decodes_is_what_would_be_encoded(values: Any, decode: Callable, data: st.DataObject):
    encoded = data.draw(mutated(values.map(lambda value: value.encode())) | st.binary(max_size=40))
    try:
        value = decode(encoded)
    except ProtocolError:
        return
    assert decode(value.encode()) == value
    assert [
        (position, byte, canonical)
        for position, (byte, canonical) in enumerate(zip(encoded, value.encode(), strict=True))
        if byte != canonical and not is_another_form(position, byte, canonical)
    ] == []


def is_another_form(position: int, byte: int, canonical: int) -> bool:
    """The freedoms the protocol leaves: what is true, and the type of an add request."""
    a_boolean = canonical == 1 and byte > 1
    an_add = position == 0 and {byte, canonical} in ({17, 25}, {20, 26})
    return a_boolean or an_add


@bounded
@given(data=st.binary(max_size=40) | mutated(wire.certificates.map(Certificate.encode)))
def test_every_blob_has_a_fingerprint(data: bytes):
    assert fingerprint(data).startswith("SHA256:")


@bounded
@given(key=wire.public_keys, signature=st.data(), data=st.binary(max_size=8))
def test_no_made_up_signature_verifies(key: PublicKey, signature: st.DataObject, data: bytes):
    names = st.sampled_from(("ssh-rsa", "rsa-sha2-256", "rsa-sha2-512", key.algorithm))
    two_numbers = st.tuples(st.integers(0, 2**530), st.integers(0, 2**530)).map(
        lambda numbers: bytes(Writer().mpint(numbers[0]).mpint(numbers[1]))
    )
    values = st.binary(min_size=60, max_size=70) | two_numbers
    blobs = st.binary(max_size=40) | st.builds(Signature, names, values).map(Signature.encode)
    with pytest.raises(InvalidSignatureError):
        verify(key, signature.draw(blobs), data)
