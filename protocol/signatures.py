"""Signature blobs: the raw output of keys and tokens in SSH's encoding, and verification.

RFC 4253 section 6.6 and RFC 8332 (RSA), RFC 5656 section 3.1.2 (ECDSA), RFC 8709 section 6 (Ed25519).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from replug.protocol.constants import SignFlag
from replug.protocol.keys import (
    CompositePublicKey,
    Curve,
    EcdsaPublicKey,
    Ed25519PublicKey,
    PublicKey,
    RsaPublicKey,
    SkPublicKey,
)
from replug.protocol.visible_text import visible
from replug.protocol.wire import ProtocolError, Reader, Writer, mpint, string

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.hashes import HashAlgorithm

# Plain integers: the complement of an IntFlag lacks the bits that have no name.
_SHA2_256, _SHA2_512 = int(SignFlag.RSA_SHA2_256), int(SignFlag.RSA_SHA2_512)
_KEYS_LOADED = 64  # more than most users have; loading one costs a tenth of a verification
# The hash of each RSA signature algorithm, and the DER in front of the digest (RFC 8017 section 9.2, note 1).
_RSA_DIGEST_INFO = {
    "ssh-rsa": ("sha1", bytes.fromhex("3021300906052b0e03021a05000414")),
    "rsa-sha2-256": ("sha256", bytes.fromhex("3031300d060960864801650304020105000420")),
    "rsa-sha2-512": ("sha512", bytes.fromhex("3051300d060960864801650304020305000440")),
}


class InvalidSignatureError(ProtocolError):
    """The signature is malformed, or was not made by this key over this data."""


@dataclass(frozen=True)
class Signature:
    """A signature blob: its algorithm's name, and the value in that algorithm's own form."""

    algorithm: str
    value: bytes

    def encode(self) -> bytes:
        """Return the signature blob."""
        return string(self.algorithm.encode()) + string(self.value)

    @classmethod
    def decode(cls, blob: bytes) -> Signature:
        """Return the signature of a blob; `ProtocolError` if it is malformed."""
        reader = Reader(blob)
        signature = cls(algorithm=reader.text(), value=reader.string())
        reader.check_end()
        return signature


def rsa_algorithm(flags: int) -> str:
    """Return the signature algorithm that a sign request's flags select for an RSA key.

    SHA-256 wins over SHA-512 [agent_decode_alg]; no flag means SHA-1, which old clients still ask for. Any
    other bit is a `ProtocolError` (RFC 9987 section 5.6.1).
    """
    if flags & ~(_SHA2_256 | _SHA2_512):
        raise ProtocolError(f"unknown signature flags {flags:#x}")
    if flags & _SHA2_256:
        return "rsa-sha2-256"
    if flags & _SHA2_512:
        return "rsa-sha2-512"
    return "ssh-rsa"


def rsa_digest_info(algorithm: str, data: bytes) -> bytes:
    """Return the DigestInfo of `data` (RFC 8017 section 9.2): what CKM_RSA_PKCS is given to sign."""
    hash_name, prefix = _RSA_DIGEST_INFO[algorithm]
    return prefix + hashlib.new(hash_name, data).digest()


def verified_ecdsa(key: EcdsaPublicKey, raw: bytes, data: bytes) -> Signature:
    """Return the signature for the output of CKM_ECDSA: r || s, of equal length.

    Raises `InvalidSignatureError` if `raw` is not a signature of `data` by the key.
    """
    half, odd = divmod(len(raw), 2)
    r, s = int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big")
    if odd or half > key.curve.coordinate_size or not r or not s:
        raise InvalidSignatureError(f"{len(raw)} bytes are not an ECDSA signature on {key.curve.value}")
    _verify_numbers(key, r, s, data)
    return ecdsa_signature(key.curve, r, s)


def ecdsa_signature(curve: Curve, r: int, s: int) -> Signature:
    """Return the signature of two numbers (RFC 5656 section 3.1.2)."""
    return Signature(f"ecdsa-sha2-{curve.value}", mpint(r) + mpint(s))


def rsa_hash_name(algorithm: str) -> str:
    """Return the hash of an RSA signature algorithm, as hashlib names it."""
    return _RSA_DIGEST_INFO[algorithm][0]


@cache
def hash_algorithm(name: str) -> HashAlgorithm:
    """Return `cryptography`'s hash for hashlib's `name`, for the hashes of SSH's signature algorithms."""
    from cryptography.hazmat.primitives import hashes

    algorithms: dict[str, Callable[[], HashAlgorithm]] = {
        "sha1": hashes.SHA1,  # chosen by the signer or its client, not by us
        "sha256": hashes.SHA256,
        "sha384": hashes.SHA384,
        "sha512": hashes.SHA512,
    }
    return algorithms[name]()


def verify(key: PublicKey, signature_blob: bytes, data: bytes) -> None:
    """Raise `InvalidSignatureError` unless the blob is a signature of `data` by `key` [sshkey_verify].

    An RSA signature may use any of the three algorithms, and may lack leading zeros.
    """
    try:
        signature = Signature.decode(signature_blob)
    except ProtocolError as error:
        raise InvalidSignatureError(f"malformed signature: {error}") from error
    verify_signature(key, signature, data)


def verify_signature(key: PublicKey, signature: Signature, data: bytes) -> None:
    """Like `verify`, for a signature that is decoded already."""
    import cryptography.exceptions

    try:
        match key:
            case RsaPublicKey():
                _verify_rsa(key, signature, data)
            case EcdsaPublicKey():
                _verify_ecdsa(key, signature, data)
            case Ed25519PublicKey() | CompositePublicKey():
                _verify_of_one_name(key, signature, data)
    except InvalidSignatureError:
        raise
    except ProtocolError as error:
        raise InvalidSignatureError(f"malformed signature or key: {error}") from error
    except cryptography.exceptions.InvalidSignature as error:
        raise InvalidSignatureError("the signature does not match") from error


def verify_any(key: PublicKey | SkPublicKey, signature_blob: bytes, data: bytes) -> None:
    """Like `verify`, for FIDO keys too (PROTOCOL.u2f).

    Those sign the hash of the application, flags, a counter and the hash of the data; flags and counter
    follow the signature in the blob.
    """
    if not isinstance(key, SkPublicKey):
        verify(key, signature_blob, data)
        return
    try:
        reader = Reader(signature_blob)
        algorithm, value = reader.text(), reader.string()
        flags_and_counter = Writer().byte(reader.byte()).uint32(reader.uint32())
        reader.check_end()
    except ProtocolError as error:
        raise InvalidSignatureError(f"malformed signature: {error}") from error
    if algorithm != key.algorithm:
        raise InvalidSignatureError(f"a {visible(algorithm)} signature for a key of {visible(key.algorithm)}")
    application = hashlib.sha256(key.application.encode()).digest()
    signed = application + bytes(flags_and_counter) + hashlib.sha256(data).digest()
    verify(key.key, Signature(key.key.algorithm, value).encode(), signed)


def _verify_rsa(key: RsaPublicKey, signature: Signature, data: bytes) -> None:
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

    if signature.algorithm not in _RSA_DIGEST_INFO:
        raise InvalidSignatureError(f"a {visible(signature.algorithm)} signature for an RSA key")
    value = signature.value.rjust((key.n.bit_length() + 7) // 8, b"\0")
    _loaded(key).verify(value, data, PKCS1v15(), hash_algorithm(rsa_hash_name(signature.algorithm)))


def _verify_ecdsa(key: EcdsaPublicKey, signature: Signature, data: bytes) -> None:
    if signature.algorithm != key.algorithm:
        raise InvalidSignatureError(
            f"a {visible(signature.algorithm)} signature for a key on {key.curve.value}"
        )
    reader = Reader(signature.value)
    r, s = reader.mpint(), reader.mpint()
    reader.check_end()
    _verify_numbers(key, r, s, data)


def _verify_numbers(key: EcdsaPublicKey, r: int, s: int, data: bytes) -> None:
    try:
        public = _loaded(key)
    except ProtocolError as error:
        raise InvalidSignatureError(f"malformed key: {error}") from error
    _ecdsa_verifier(key.curve.hash_name)(public, r, s, data)


@cache
def _ecdsa_verifier(hash_name: str) -> Callable[[Any, int, int, bytes], None]:
    """Verifies with a loaded key; what that needs is imported once."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

    algorithm = ECDSA(hash_algorithm(hash_name))

    def verify(public: Any, r: int, s: int, data: bytes) -> None:
        try:
            public.verify(encode_dss_signature(r, s), data, algorithm)
        except InvalidSignature as error:
            raise InvalidSignatureError("the signature does not match") from error

    return verify


def _verify_of_one_name(
    key: Ed25519PublicKey | CompositePublicKey, signature: Signature, data: bytes
) -> None:
    if signature.algorithm != key.algorithm:
        raise InvalidSignatureError(
            f"a {visible(signature.algorithm)} signature for a key of {key.algorithm}"
        )
    _loaded(key).verify(signature.value, data)


@lru_cache(maxsize=_KEYS_LOADED)
def _loaded(key: PublicKey) -> Any:
    return key.to_cryptography()
