"""Makes a signature on a token, given a worker, and turns the raw result into an SSH signature."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replug.protocol.keys import EcdsaPublicKey, PublicKey, RsaPublicKey
from replug.protocol.signatures import (
    InvalidSignatureError,
    Signature,
    rsa_algorithm,
    rsa_digest_info,
    verified_ecdsa,
    verify_signature,
)
from replug.token.errors import TokenError, Verdict, WorkerRefusedError
from replug.token.identity import TokenId
from replug.token.keys import TokenKey

if TYPE_CHECKING:
    from replug.token.worker.client import WorkerClient

_TOUCH_WAITED = 12.0
"""Seconds after which a card that refuses has waited for a touch: YubiKeys wait 15.

After less, the module may have waited for another program's transaction, whose end has reset the card.
"""

_MOST_CANDIDATES = 8

_RSA_HASH_MECHANISMS = {
    "ssh-rsa": "SHA1_RSA_PKCS",
    "rsa-sha2-256": "SHA256_RSA_PKCS",
    "rsa-sha2-512": "SHA512_RSA_PKCS",
}


@dataclass(frozen=True)
class SigningStep:
    """A mechanism (CKM_*, without the prefix) and what C_Sign gets with it."""

    mechanism: str
    data: bytes


def signing_algorithm(public: PublicKey, flags: int) -> str:
    """The signature algorithm for `flags` of a sign request; ProtocolError for unknown bits."""
    if not flags and not isinstance(public, RsaPublicKey):
        return public.algorithm
    of_rsa = rsa_algorithm(flags)  # which refuses unknown flags, for whatever key
    return of_rsa if isinstance(public, RsaPublicKey) else public.algorithm


def signing_steps(public: PublicKey, algorithm: str, data: bytes) -> Iterator[SigningStep]:
    """The mechanisms to try for `data`, the most widely supported first.

    Hashing here keeps long data away from slow cards; the mechanisms that include the hash are for modules
    that lack the plain ones.
    """
    if isinstance(public, RsaPublicKey):
        yield SigningStep("RSA_PKCS", rsa_digest_info(algorithm, data))
        yield SigningStep(_RSA_HASH_MECHANISMS[algorithm], data)
    elif isinstance(public, EcdsaPublicKey):
        hash_name = public.curve.hash_name
        yield SigningStep("ECDSA", hashlib.new(hash_name, data).digest())
        yield SigningStep(f"ECDSA_{hash_name.upper()}", data)
    else:
        yield SigningStep("EDDSA", data)


def finish_signature(public: PublicKey, algorithm: str, raw: bytes, data: bytes) -> bytes:
    """The signature blob for the wire, verified with the key we advertise.

    Raises InvalidSignatureError for one by any other key, from a swapped token or a confused module.
    """
    if isinstance(public, EcdsaPublicKey):
        return verified_ecdsa(public, raw, data).encode()
    if isinstance(public, RsaPublicKey):
        raw = raw.rjust((public.n.bit_length() + 7) // 8, b"\0")
    signature = Signature(algorithm, raw)
    verify_signature(public, signature, data)
    return signature.encode()


async def signature_on(
    worker: WorkerClient, token: TokenId, key: TokenKey, algorithm: str, data: bytes, pin: bytearray | None
) -> bytes:
    """The signature blob, made on `worker` by the first mechanism that the token has for it.

    `pin` is for a key that requires it at every use; None means the token's keypad. Raises
    WorkerRefusedError, and TokenError where a retry cannot help.
    """
    for step in signing_steps(key.public, algorithm, data):
        started = time.monotonic()
        try:
            return await _by_the_right_key(worker, token, key, algorithm, data, pin, step)
        except WorkerRefusedError as refused:
            if refused.verdict is Verdict.MECHANISM:
                continue
            if refused.verdict is Verdict.NOT_LOGGED_IN and time.monotonic() - started > _TOUCH_WAITED:
                # Cards report this when no touch came in time. A retry would ask for another touch.
                worker.kill()
                raise TokenError(
                    f"{token}: the signature was not confirmed in time", "touch it when it blinks"
                ) from refused
            raise
    raise TokenError(f"{token} has no mechanism for {algorithm} signatures with this key")


async def _by_the_right_key(
    worker: WorkerClient,
    token: TokenId,
    key: TokenKey,
    algorithm: str,
    data: bytes,
    pin: bytearray | None,
    step: SigningStep,
) -> bytes:
    """The signature blob by that private key of several with this CKA_ID which belongs to `key`."""
    keypad = key.always_authenticate and pin is None
    place = (token, key.reference)
    candidate = worker.candidates.get(place, 0)
    tried = 0
    while True:
        if pin is not None and not pin:  # the agent was locked between two attempts
            raise TokenError(f"{token}: the PIN was withdrawn before it was sent")
        raw = await worker.sign(
            token,
            key.reference,
            key.key_id,
            step.mechanism,
            step.data,
            key.signature_size,
            pin,
            keypad=keypad,
            candidate=candidate,
        )
        try:
            signature = finish_signature(key.public, algorithm, raw.value, data)
        except InvalidSignatureError as error:
            tried += 1
            if tried >= min(raw.candidates, _MOST_CANDIDATES):
                raise WorkerRefusedError(Verdict.FAILED, "the signature does not match the key") from error
            candidate = (candidate + 1) % raw.candidates
        else:
            if candidate:
                worker.candidates[place] = candidate
            return signature
