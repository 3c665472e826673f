"""The process that holds the private keys which clients gave the agent, and signs with them.

The agent itself never has their numbers: what Python computed with cannot be wiped from a process's memory.
When the agent is locked, or a key is removed, this process ends.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from typing import NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

from replug.protocol import composite
from replug.protocol.constants import MessageType
from replug.protocol.keys import ED25519_SIZE, Curve, Ed25519PublicKey
from replug.protocol.private_keys import (
    CompositePrivateKey,
    EcdsaPrivateKey,
    Ed25519PrivateKey,
    PrivateKey,
    RsaPrivateKey,
    SkPrivateKey,
    read_private_key,
)
from replug.protocol.signatures import (
    Signature,
    ecdsa_signature,
    hash_algorithm,
    rsa_algorithm,
    rsa_hash_name,
)
from replug.protocol.wire import ProtocolError, Reader
from replug.token.errors import Verdict
from replug.token.worker.frames import Header
from replug.token.worker.inside.loop import RefusedError, answer_requests

_NO_COMMENT = bytes(4)
_Loaded = (
    rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | composite.CompositePrivateKey
)


class Operations:
    """The operations; each takes the request's header and body and returns the reply's."""

    def __init__(self) -> None:
        self._keys: dict[str, _Loaded] = {}

    def add(self, header: Header, body: bytearray) -> tuple[Header, bytes]:
        """Take the key of an ADD_IDENTITY message, to be known as `key`; what follows it was read already.

        One that is `new` has to make a signature.
        """
        with _refusing():
            reader = Reader(body)
            reader.byte()
            try:
                key = _load(read_private_key(reader))
            finally:
                reader.wipe()
            if header["new"] and isinstance(key, rsa.RSAPrivateKey):
                _try(key)
            self._keys[header["key"]] = key
        return {}, b""

    def make(self, _header: Header, _body: bytearray) -> tuple[Header, bytes]:
        """The ADD_IDENTITY message of a new Ed25519 key."""
        seed = os.urandom(ED25519_SIZE)
        point = ed25519.Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
        key = Ed25519PrivateKey(Ed25519PublicKey(point), seed)
        return {}, bytes([MessageType.ADD_IDENTITY]) + key.encode() + _NO_COMMENT

    def sign(self, header: Header, body: bytearray) -> tuple[Header, bytes]:
        """The signature blob over the body by the key listed as `key`; `flags` are the sign request's."""
        with _refusing():
            return {}, _sign(self._keys[header["key"]], header["flags"], bytes(body))


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """A mistake of the client's is an answer; it says nothing about this process."""
    try:
        yield
    except ProtocolError as error:
        raise RefusedError(Verdict.NOT_A_KEY, str(error)) from error


def _load(key: PrivateKey) -> _Loaded:
    """The key, ready to sign; ProtocolError if its parts do not belong together."""
    try:
        match key:
            case RsaPrivateKey():
                return _load_rsa(key)
            case EcdsaPrivateKey():
                return _load_ecdsa(key)
            case Ed25519PrivateKey():
                return _load_ed25519(key)
            case CompositePrivateKey():
                return _load_composite(key)
            case SkPrivateKey():
                raise RefusedError(
                    Verdict.NOT_A_KEY, f"keys of FIDO authenticators ({key.algorithm}) are not supported"
                )
    except ProtocolError:
        raise
    except ValueError as error:
        raise ProtocolError(f"not a valid {key.algorithm} key: {error}") from error


def _load_rsa(key: RsaPrivateKey) -> rsa.RSAPrivateKey:
    n, e, d, p, q = key.public.n, key.public.e, key.d, key.p, key.q
    if p * q != n or 1 in (p, q) or e * d % (p - 1) != 1 or e * d % (q - 1) != 1 or key.iqmp * q % p != 1:
        raise ValueError("its numbers do not belong together")
    numbers = rsa.RSAPrivateNumbers(
        p=p,
        q=q,
        d=d,
        dmp1=rsa.rsa_crt_dmp1(d, p),
        dmq1=rsa.rsa_crt_dmq1(d, q),
        iqmp=key.iqmp,
        public_numbers=rsa.RSAPublicNumbers(e, n),
    )
    # That p and q are primes is not checked, as it is not by ssh-agent: for a key of 16384 bits it takes
    # most of a minute, in which no other key signs.
    return numbers.private_key(unsafe_skip_rsa_key_validation=True)


def _try(key: rsa.RSAPrivateKey) -> None:
    """ProtocolError if it makes none: OpenSSL would try in another way, and take five times as long."""
    padded, hashed, data = padding.PKCS1v15(), hash_algorithm("sha256"), os.urandom(32)
    try:
        key.public_key().verify(key.sign(data, padded, hashed), data, padded, hashed)
    except (InvalidSignature, ValueError) as error:
        raise ProtocolError("not a valid ssh-rsa key: its signatures are none") from error


def _load_ecdsa(key: EcdsaPrivateKey) -> ec.EllipticCurvePrivateKey:
    public = key.public.to_cryptography()
    return ec.EllipticCurvePrivateNumbers(key.d, public.public_numbers()).private_key()


def _load_ed25519(key: Ed25519PrivateKey) -> ed25519.Ed25519PrivateKey:
    loaded = ed25519.Ed25519PrivateKey.from_private_bytes(key.seed)
    if loaded.public_key().public_bytes_raw() != key.public.point:
        raise ProtocolError("the public half of the ssh-ed25519 key is another one's")
    return loaded


def _load_composite(key: CompositePrivateKey) -> composite.CompositePrivateKey:
    loaded = composite.CompositePrivateKey(key.public.algorithm, key.seeds)
    if loaded.public_numbers() != key.public.numbers:
        raise ProtocolError(f"the public half of the {key.public.algorithm} key is another one's")
    return loaded


def _sign(key: _Loaded, flags: int, data: bytes) -> bytes:
    rsa_name = rsa_algorithm(flags)  # which bits are allowed does not depend on the key
    if isinstance(key, rsa.RSAPrivateKey):
        return Signature(
            rsa_name, key.sign(data, padding.PKCS1v15(), hash_algorithm(rsa_hash_name(rsa_name)))
        ).encode()
    if isinstance(key, ec.EllipticCurvePrivateKey):
        curve = {256: Curve.NISTP256, 384: Curve.NISTP384, 521: Curve.NISTP521}[key.curve.key_size]
        r, s = utils.decode_dss_signature(key.sign(data, ec.ECDSA(hash_algorithm(curve.hash_name))))
        return ecdsa_signature(curve, r, s).encode()
    if isinstance(key, composite.CompositePrivateKey):
        return Signature(key.algorithm, key.sign(data)).encode()
    return Signature("ssh-ed25519", key.sign(data)).encode()


def work(connection: socket.socket) -> NoReturn:
    """Do what is asked on `connection` until it is closed, and end the process."""
    answer_requests(connection, Operations(), lambda _: (Verdict.FAILED, ""))
    os._exit(0)
