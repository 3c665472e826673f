"""The largest messages there can be, of every type: they keep an agent busy that does not budget its work."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ed25519
from rigs.agent import LIST_REQUEST, frame, sign_request, string

LARGEST = 256 * 1024
SEED = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
"""The key number 0."""
POINT = SEED.public_key().public_bytes_raw()
ED25519 = string(b"ssh-ed25519") + string(POINT)
SESSION = bytes(range(32))
ADD_KEY, ADD_PROVIDER, REMOVE_KEY, REMOVE_PROVIDER = b"\x19", b"\x1a", b"\x12", b"\x15"
LOCK, UNLOCK, EXTENSION = b"\x16", b"\x17", b"\x1b"
_CERTIFICATE = b"ssh-ed25519-cert-v01@openssh.com"
_RSA_SIGNATURE = string(b"rsa-sha2-512") + string(b"\x5a" * 2048)


@dataclass(frozen=True)
class Flood:
    """What each connection sends once, then again and again, and then without waiting for replies."""

    first: tuple[bytes, ...]
    again: tuple[bytes, ...]
    poured: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        """A longer message would end the connection, and keep nobody busy."""
        assert all(len(one) <= 4 + LARGEST for one in self.first + self.again)


def mpint(number: int) -> bytes:
    return string(number.to_bytes(number.bit_length() // 8 + 1, "big"))


def odd(bits: int) -> int:
    """A number of so many bits, without small patterns in it."""
    digits = (b"\xa5\x3c\x96\x5f" * (bits // 32 + 1))[: bits // 8]
    return int.from_bytes(digits, "big") | 1 | 1 << bits - 1


def rsa(bits: int, exponent: int = 65537) -> bytes:
    return string(b"ssh-rsa") + mpint(exponent) + mpint(odd(bits))


def key_message(constraints: bytes, comment: bytes = b"c", number: int = 0) -> bytes:
    """To add an ed25519 key, one for each number: floods with the same one would be in each other's way."""
    key = _key(number)
    point = key.public_key().public_bytes_raw()
    private = string(b"ssh-ed25519") + string(point) + string(key.private_bytes_raw() + point)
    return frame(ADD_KEY + private + string(comment) + constraints)


def blob(number: int) -> bytes:
    """The public key that `key_message` adds."""
    return string(b"ssh-ed25519") + string(_key(number).public_key().public_bytes_raw())


def _key(number: int) -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.from_private_bytes(bytes([number, *range(1, 32)]))


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
    return fields + string(_RSA_SIGNATURE)


def unsigned(certificate: bytes) -> bytes:
    """What a CA signs to make this certificate."""
    return certificate[: -len(string(_RSA_SIGNATURE))]


def bind(host_key: bytes, signature: bytes, *, forwarding: bool = False) -> bytes:
    contents = string(host_key) + string(SESSION) + string(signature) + bytes([forwarding])
    return frame(EXTENSION + string(b"session-bind@openssh.com") + contents)


def good_bind() -> bytes:
    """A session-bind that holds."""
    return bind(ED25519, string(b"ssh-ed25519") + string(SEED.sign(SESSION)))


def login(user: bytes, number: int) -> bytes:
    """A request to sign what ssh has signed to log in as `user` in the session of `good_bind`, with a key."""
    data = string(SESSION) + b"\x32" + string(user) + string(b"ssh-connection") + string(b"publickey")
    return sign_request(blob(number), data + b"\1" + string(b"ssh-ed25519") + string(blob(number)))


def many(item: bytes, room: int = LARGEST - 2000) -> bytes:
    return item * (room // len(item))


_STARS = b"*a" * 127 + b"*b"
_HOPS = destinations([destination(b"", b"h", [b""] * 1020)] * 50)
_CONSTRAINTS = destinations([destination(b"", b"h", [b"k"])] * 1024)
_PATTERNS = destinations(
    [destination(b"*" + b"%03x" % number + b"?a" * 60, b"h", [ED25519]) for number in range(1000)]
)
_UNKNOWN = extension(many(b"\x7f"), b"")

_ADDING = {
    "destinations, provider": Flood((), (provider_message(_CONSTRAINTS),)),
    "destinations, key": Flood((), (key_message(_CONSTRAINTS, number=1),)),
    "unknown constraint": Flood((), (provider_message(_UNKNOWN), key_message(_UNKNOWN))),
    "associated certificates": Flood((), (provider_message(associated([certificate()[:220]] * 1000)),)),
    "empty associated certificates": Flood((), (provider_message(associated([b""] * 60000)),)),
    "names": Flood((), (provider_message(b"", many(b"/\xc3\xa9")), provider_message(b"", b"/x", many(b"1")))),
    "comment": Flood((), (key_message(b"", many(b"c"), number=2),)),
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
        (), (frame(ADD_KEY + string(_CERTIFICATE) + string(certificate(many(string(b"p"), 250000)))),)
    ),
    "certificate's options": Flood(
        (),
        (frame(ADD_KEY + string(_CERTIFICATE) + string(certificate(b"", many(string(b"o") * 2, 250000)))),),
    ),
    "hop keys, provider": Flood((), (provider_message(_HOPS),)),
    "hop keys, key": Flood((), (key_message(_HOPS),)),
}
_SIGNING = {
    "large data": Flood((key_message(b"", number=5),), (sign_request(blob(5), many(b"d")),)),
    "certificates": Flood(
        (key_message(b"", number=6),),
        (
            sign_request(blob(6), unsigned(certificate(many(string(b"p"), 250000), ca=blob(6)))),
            sign_request(blob(6), unsigned(certificate(b"", many(string(b"o") * 2, 250000), ca=blob(6)))),
            sign_request(blob(6), unsigned(certificate(ca=blob(6), key_id=many(b"\xc3\xa9", 250000)))),
            sign_request(blob(6), unsigned(certificate(ca=many(b"c", 250000)))),
        ),
    ),
    "SSHSIG": Flood(
        (key_message(b"", number=7),),
        (
            sign_request(
                blob(7), b"SSHSIG" + string(many(b"n")) + string(b"") + string(b"sha512") + string(b"h")
            ),
            sign_request(
                blob(7), b"SSHSIG" + string(b"git") + string(b"") + string(b"sha512") + string(many(b"h"))
            ),
        ),
    ),
    "names of users": Flood(
        (key_message(b"", number=8), good_bind()),
        (login(many(b"\xc3\xa9"), 8), login(many(b"\xff"), 8), login(many(b" "), 8)),
    ),
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
        (key_message(destinations([destination(_STARS, b"h", [ED25519])]), number=3), good_bind()),
        (login(many(b"a"), 3), login(b"a" * 250, 3)),
    ),
    "user patterns": Flood(
        (key_message(_PATTERNS, number=4), good_bind()),
        (login(b"a" * 256, 4), login(b"0ff" * 85, 4)),
    ),
}
_EXTENSIONS = {
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
}
_POURED = {
    "listings": Flood((), (), (LIST_REQUEST * 200,)),
    "small messages": Flood(
        (), (), ((frame(b"\x0d") + sign_request(ED25519) + frame(EXTENSION + string(b"x"))) * 200,)
    ),
}
_REST = {
    "removals": Flood(
        (), (frame(REMOVE_PROVIDER + string(many(b"/a/..")) + string(b"")), frame(REMOVE_KEY + string(b"k")))
    ),
    "unknown types": Flood(
        (), (frame(b"\xc8" + many(b"x")), frame(b"\x0b" + many(b"x")), frame(b"\x13" + b"x"))
    ),
}
_LOCKED = {
    "passphrases": Flood(
        (),
        (frame(UNLOCK + string(many(b"u"))), frame(LOCK + string(many(b"l"))), frame(LOCK + many(b"\xff"))),
    ),
}

FLOODS: dict[str, dict[str, Flood]] = {
    "adding": _ADDING,
    "signing": _SIGNING,
    "extensions": _EXTENSIONS,
    "many small ones, without waiting for the replies": _POURED,
    "the rest": _REST,
    "while it is locked": _LOCKED,
}
"""By kind: those of one kind are sent together."""
