"""The largest messages there can be, of every type: they keep an agent busy that does not budget its work."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ed25519
from rigs.agent import LIST_REQUEST, frame, sign_request, string

LARGEST = 256 * 1024
SEED = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
POINT = SEED.public_key().public_bytes_raw()
ED25519 = string(b"ssh-ed25519") + string(POINT)
SESSION = bytes(range(32))
ADD_KEY, ADD_PROVIDER, REMOVE_KEY, REMOVE_PROVIDER = b"\x19", b"\x1a", b"\x12", b"\x15"
LOCK, UNLOCK, EXTENSION = b"\x16", b"\x17", b"\x1b"
_CERTIFICATE = b"ssh-ed25519-cert-v01@openssh.com"


@dataclass(frozen=True)
class Flood:
    """What each connection sends once, then again and again, and then without waiting for replies."""

    first: tuple[bytes, ...]
    again: tuple[bytes, ...]
    poured: tuple[bytes, ...] = ()


def mpint(number: int) -> bytes:
    return string(number.to_bytes(number.bit_length() // 8 + 1, "big"))


def odd(bits: int) -> int:
    """A number of so many bits, without small patterns in it."""
    digits = (b"\xa5\x3c\x96\x5f" * (bits // 32 + 1))[: bits // 8]
    return int.from_bytes(digits, "big") | 1 | 1 << bits - 1


def rsa(bits: int, exponent: int = 65537) -> bytes:
    return string(b"ssh-rsa") + mpint(exponent) + mpint(odd(bits))


def key_message(constraints: bytes, comment: bytes = b"c") -> bytes:
    private = string(b"ssh-ed25519") + string(POINT) + string(SEED.private_bytes_raw() + POINT)
    return frame(ADD_KEY + private + string(comment) + constraints)


def provider_message(constraints: bytes, provider: bytes = b"/usr/lib/none.so", pin: bytes = b"1") -> bytes:
    return frame(ADD_PROVIDER + string(provider) + string(pin) + constraints)


def extension(name: bytes, contents: bytes) -> bytes:
    return b"\xff" + string(name) + contents


def hop(user: bytes, host: bytes, keys: Iterable[bytes]) -> bytes:
    return string(user) + string(host) + string(b"") + b"".join(string(key) + b"\0" for key in keys)


def destination(user: bytes, host: bytes, keys: Iterable[bytes], start: bytes = hop(b"", b"", ())) -> bytes:
    return string(start) + string(hop(user, host, keys)) + string(b"")


def destinations(constraints: Iterable[bytes]) -> bytes:
    inner = b"".join(string(constraint) for constraint in constraints)
    return extension(b"restrict-destination-v00@openssh.com", string(inner))


def associated(certificates: Iterable[bytes]) -> bytes:
    inner = b"".join(string(certificate) for certificate in certificates)
    return extension(b"associated-certs-v00@openssh.com", b"\0" + string(inner))


def certificate(
    principals: bytes = b"", options: bytes = b"", ca: bytes = ED25519, key_id: bytes = b"id", kind: int = 2
) -> bytes:
    """Unsigned, so of no use to anybody; `principals` and `options` as the wire has them."""
    fields = string(_CERTIFICATE) + string(bytes(32)) + string(POINT) + bytes(8) + struct.pack(">I", kind)
    fields += string(key_id) + string(principals) + bytes(8) + b"\xff" * 8
    fields += string(options) + string(b"") + string(b"") + string(ca)
    signature = string(b"rsa-sha2-512") + string(b"\x5a" * 2048)
    return fields + string(signature)


def bind(host_key: bytes, signature: bytes, *, forwarding: bool = False) -> bytes:
    contents = string(host_key) + string(SESSION) + string(signature) + bytes([forwarding])
    return frame(EXTENSION + string(b"session-bind@openssh.com") + contents)


def good_bind() -> bytes:
    """A session-bind that holds."""
    return bind(ED25519, string(b"ssh-ed25519") + string(SEED.sign(SESSION)))


def login(user: bytes) -> bytes:
    """What ssh has signed to log in as `user` in the session of `good_bind`."""
    data = string(SESSION) + b"\x32" + string(user) + string(b"ssh-connection") + string(b"publickey")
    return data + b"\1" + string(b"ssh-ed25519") + string(ED25519)


def many(item: bytes, room: int = LARGEST - 2000) -> bytes:
    return item * (room // len(item))


_RSA_SIGNATURE = string(b"rsa-sha2-512") + string(b"\x5a" * 2048)
_STARS = b"*a" * 127 + b"*b"
_HOPS = destinations([destination(b"", b"h", [b""] * 1020)] * 50)
_CONSTRAINTS = destinations([destination(b"", b"h", [b"k"])] * 1024)
_PATTERNS = destinations(
    [destination(b"*" + b"%03x" % number + b"?a" * 60, b"h", [ED25519]) for number in range(1000)]
)
_UNKNOWN = extension(many(b"\x7f"), b"")

FLOODS: dict[str, Flood] = {
    # Adding keys and providers.
    "hop keys, provider": Flood((), (provider_message(_HOPS),)),
    "hop keys, key": Flood((), (key_message(_HOPS),)),
    "destinations, provider": Flood((), (provider_message(_CONSTRAINTS),)),
    "destinations, key": Flood((), (key_message(_CONSTRAINTS),)),
    "unknown constraint": Flood((), (provider_message(_UNKNOWN), key_message(_UNKNOWN))),
    "associated certificates": Flood((), (provider_message(associated([certificate()[:220]] * 1000)),)),
    "empty associated certificates": Flood((), (provider_message(associated([b""] * 60000)),)),
    "names": Flood((), (provider_message(b"", many(b"/\xc3\xa9")), provider_message(b"", b"/x", many(b"1")))),
    "comment": Flood((), (key_message(b"", many(b"c")),)),
    "huge RSA key": Flood((), (frame(ADD_KEY + string(b"ssh-rsa") + mpint(odd(8 * 250000)) + mpint(3)),)),
    "RSA-16384 key": Flood(
        (),
        (
            frame(
                ADD_KEY
                + string(b"ssh-rsa")
                + mpint(odd(16384))
                + mpint(65537)
                + mpint(odd(16376)) * 2
                + mpint(odd(8192)) * 2
                + string(many(b"c", 200000))
            ),
        ),
    ),
    "certificate's principals": Flood(
        (), (frame(ADD_KEY + string(_CERTIFICATE) + string(certificate(many(string(b"p"))))),)
    ),
    "certificate's options": Flood(
        (), (frame(ADD_KEY + string(_CERTIFICATE) + string(certificate(b"", many(string(b"o") * 2)))),)
    ),
    # Signing.
    "large data": Flood((), (sign_request(ED25519, many(b"d")),)),
    "blobs": Flood(
        (),
        (
            sign_request(many(b"k")),
            sign_request(string(b"ssh-rsa") + mpint(3) + mpint(odd(8 * 250000))),
            frame(REMOVE_KEY + string(string(b"ssh-rsa") + mpint(3) + mpint(odd(8 * 250000)))),
            sign_request(string(many(b"\xc3\xa9"))),
            frame(REMOVE_KEY + string(certificate(string(many(b"p", LARGEST - 4000))))),
        ),
    ),
    "user pattern": Flood(
        (key_message(destinations([destination(_STARS, b"h", [ED25519])])), good_bind()),
        (sign_request(ED25519, login(many(b"a"))), sign_request(ED25519, login(b"a" * 250))),
    ),
    "user patterns": Flood(
        (key_message(_PATTERNS), good_bind()),
        (sign_request(ED25519, login(b"a" * 256)), sign_request(ED25519, login(b"0ff" * 85))),
    ),
    # Extensions.
    "session-bind, RSA-16384": Flood((), (bind(rsa(16384), _RSA_SIGNATURE),)),
    "session-bind, RSA with a huge exponent": Flood((), (bind(rsa(2048, odd(2040)), _RSA_SIGNATURE),)),
    "session-bind, host certificate": Flood(
        (), (bind(certificate(string(many(b"p", 250000)), ca=rsa(16384)), _RSA_SIGNATURE),)
    ),
    "session-bind, principals": Flood(
        (), (bind(certificate(many(string(b""), 250000), ca=rsa(16384)), _RSA_SIGNATURE),)
    ),
    "extensions": Flood(
        (),
        (
            frame(EXTENSION + string(many(b"\x7f"))),
            frame(EXTENSION + string(b"query") + many(b"q")),
            frame(EXTENSION + string(b"session-bind@openssh.com") + many(b"s")),
        ),
    ),
    # Many small ones at once, without waiting for the replies.
    "listings": Flood((), (), (LIST_REQUEST * 200,)),
    "small messages": Flood(
        (), (), ((frame(b"\x0d") + sign_request(ED25519) + frame(EXTENSION + string(b"x"))) * 200,)
    ),
    # The rest.
    "passphrases": Flood(
        (frame(LOCK + string(b"sesame")),),
        (frame(UNLOCK + string(many(b"u"))), frame(LOCK + string(many(b"l"))), frame(LOCK + many(b"\xff"))),
    ),
    "removals": Flood(
        (), (frame(REMOVE_PROVIDER + string(many(b"/a/..")) + string(b"")), frame(REMOVE_KEY + string(b"k")))
    ),
    "unknown types": Flood(
        (), (frame(b"\xc8" + many(b"x")), frame(b"\x0b" + many(b"x")), frame(b"\x13" + b"x"))
    ),
}
