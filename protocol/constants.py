"""The numbers of the agent protocol (RFC 9987), and the limits: those of OpenSSH's agent."""

from __future__ import annotations

from enum import IntEnum, IntFlag

MAX_MESSAGE = 256 * 1024
"""Bytes of one message after its length field; a longer one closes the connection [AGENT_MAX_LEN]."""

MAX_SESSION_ID = 128
"""Bytes of the session identifier in a session-bind [AGENT_MAX_SID_LEN]."""

MAX_HOST_KEY = 32 * 1024
"""Bytes of a host key or certificate in a session-bind; ours, as the agent keeps it with the connection."""

MAX_HOST_KEYS = 64 * 1024
"""Bytes of all host keys that one connection is bound to; ours, for the same reason."""

MAX_BINDINGS = 16
"""Session binds recorded for one connection [AGENT_MAX_SESSION_IDS]."""

MAX_DEST_CONSTRAINTS = 1024
"""Hops in one restrict-destination constraint [AGENT_MAX_DEST_CONSTRAINTS]."""

MAX_ASSOCIATED_CERTS = 1024
"""Certificates in one associated-certs constraint [AGENT_MAX_EXT_CERTS]."""

MAX_USER = 256
"""Bytes of the user pattern of a destination constraint [AGENT_USER_CONSTRAINT_MAX_LEN].

Of the user's name that is compared with it, too; that bound is ours (Linux has the same).
"""

MAX_PRINCIPALS = 256
"""Principals in one certificate [SSHKEY_CERT_MAX_PRINCIPALS]."""

MAX_HOP_KEYS = 2048
"""Host keys in all destination constraints of a message; ours, so that it cannot keep the agent busy.

With keys of the usual sizes a message has no room for more.
"""

MAX_COMMENT = 4096
"""Bytes of a key's comment; ours: a longer one would make the listing longer than clients accept."""

MAX_NAME = 256
"""Bytes of the name of a key type, of a constraint or of an extension; ours: all that exist are shorter."""

MAX_CERTIFICATE_OPTIONS = 256
"""Critical options, and extensions, in one certificate; ours, for the same reason."""

MIN_RSA_BITS = 1024
"""Bits of the smallest RSA modulus accepted [SSH_RSA_MINIMUM_MODULUS_SIZE]."""

MAX_RSA_BITS = 16384
"""Bits of the largest RSA modulus accepted [SSHBUF_MAX_BIGNUM]."""

MAX_RSA_EXPONENT_BITS = 256
"""Bits of an RSA public exponent; FIPS 186-5 allows no more. Verifying takes time by them."""


class MessageType(IntEnum):
    """The first byte of a message (RFC 9987; 9 remains from SSH protocol 1)."""

    # Answers.
    FAILURE = 5
    SUCCESS = 6
    IDENTITIES_ANSWER = 12
    SIGN_RESPONSE = 14
    EXTENSION_FAILURE = 28
    EXTENSION_RESPONSE = 29

    # Requests.
    REMOVE_ALL_RSA1_IDENTITIES = 9
    REQUEST_IDENTITIES = 11
    SIGN_REQUEST = 13
    ADD_IDENTITY = 17
    REMOVE_IDENTITY = 18
    REMOVE_ALL_IDENTITIES = 19
    ADD_SMARTCARD_KEY = 20
    REMOVE_SMARTCARD_KEY = 21
    LOCK = 22
    UNLOCK = 23
    ADD_ID_CONSTRAINED = 25
    ADD_SMARTCARD_KEY_CONSTRAINED = 26
    EXTENSION = 27


class ConstraintType(IntEnum):
    """The first byte of a key constraint (RFC 9987)."""

    LIFETIME = 1
    CONFIRM = 2
    EXTENSION = 255


class SignFlag(IntFlag):
    """The flags of a sign request (RFC 9987)."""

    RSA_SHA2_256 = 2
    RSA_SHA2_512 = 4


FINGERPRINT_HASHES = ("sha256", "md5", "sha1", "sha384", "sha512")
"""Names of the hashes of fingerprints, the usual one first [ssh_digest_alg_by_name]."""

MLDSA44_PUBLIC_SIZE = 1312
"""Bytes of an ML-DSA-44 public key (FIPS 204)."""
