"""The names that known_hosts files give to host keys (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT).

ssh looks for a name and finds keys; here a key is given and its names are wanted. A hashed name cannot be
read back, only compared with a name that somebody suggests.
"""

from __future__ import annotations

import binascii
import hmac
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from replug.protocol.certificates import Certificate
from replug.protocol.keys import blob_algorithm, is_certificate
from replug.protocol.patterns import matches_list
from replug.protocol.sessions import HostCertificate
from replug.protocol.wire import ProtocolError

LONGEST_NAME = 253
"""Characters of a host name (RFC 1035); a longer one is not shown as one."""
MOST_SHOWN = 3
"""Names of one host, and of what else there may be several of."""
ROOM = 160
"""Characters for several names; pinentry takes 1000 for a whole question."""
_LONGEST_LINE = 16 * 1024
_MOST_LINES = 50_000
_MOST_NAMES = 64  # of one key that are looked at
_MOST_PATTERNS = 256  # of one CA; each is compared with each name of a certificate
_MOST_OF_A_KEY = 32 * 1024  # bytes of the hosts in its lines
MOST_CANDIDATES = 8
"""Names that are compared with the hashed ones of a key at once."""
_CERT_AUTHORITY, _REVOKED = b"@cert-authority", b"@revoked"
_HASHED = "|1|"
_SHA1_SIZE = 20


@dataclass(frozen=True)
class KnownAs:
    """What known_hosts says about one host key."""

    names: tuple[str, ...] = ()
    """The first few, in the order of the files, as written there: `host`, `10.0.0.5`, `[host]:2222`."""
    more: int = 0
    """How many names it has besides: no more are kept with each connection than are shown."""
    hashed: bool = False
    """There are hashed names besides, which nobody suggested."""
    revoked: bool = False
    """It, or the CA that certified it, is marked as revoked."""
    others: tuple[str, ...] = ()
    """The names in `more`, if every name was asked for."""


@dataclass
class _Names:
    """Of one key."""

    plain: dict[str, None] = field(default_factory=dict)
    hashed: list[tuple[bytes, bytes]] = field(default_factory=list)
    revoked: bool = False
    certifies: list[str] = field(default_factory=list)
    """Pattern lists, where the key is a CA's."""
    patterns: int = 0
    """How many patterns these have."""

    def add(self, marker: bytes, hosts: str) -> None:
        """Take what a line says of the key."""
        if marker == _CERT_AUTHORITY:
            # Whole lists only: what is left out may be what a name is not to fit.
            patterns = hosts.count(",") + 1
            if self.patterns + patterns <= _MOST_PATTERNS:
                self.patterns += patterns
                self.certifies.append(hosts)
        elif hosts.startswith(_HASHED):
            if len(self.hashed) < _MOST_NAMES and (hashed := _hashed(hosts)):
                self.hashed.append(hashed)
        else:
            for host in hosts.split(","):
                if 0 < len(host) <= LONGEST_NAME and host[0] != "!" and len(self.plain) < _MOST_NAMES:
                    self.plain[host] = None

    def names(self, candidates: Sequence[str]) -> list[str]:
        return [*self.plain, *(_confirmed(self.hashed, candidates) if self.hashed else ())]


@dataclass(frozen=True)
class _Line:
    marker: bytes
    hosts: bytes
    key: bytes


_NOT_KNOWN = KnownAs()


def _known_as(names: Iterable[str], *, hashed: bool, revoked: bool, every: bool) -> KnownAs:
    found = list(dict.fromkeys(names))
    kept = found[:MOST_SHOWN]
    while len(kept) > 1 and len(",".join(kept)) > ROOM:
        del kept[-1]
    others = found[len(kept) :]
    return KnownAs(tuple(kept), len(others), hashed, revoked, tuple(others) if every else ())


class KnownHosts:
    """The host keys of known_hosts files. Lines that are malformed are skipped, as ssh does."""

    def __init__(self, files: Iterable[bytes] = ()) -> None:
        """`files` are the files' contents."""
        # Of bytes alone, as there may be many: to look through others for garbage would take Python's lock
        # for a tenth of a second.
        self._by_key: dict[bytes, bytes] = {}
        """What the lines of a key say: marker and hosts of each."""
        self._revoked: set[bytes] = set()
        for text in files:
            for line in _lines(text):
                self._add(line)

    @property
    def keys(self) -> tuple[bytes, ...]:
        """All keys that the files have lines about."""
        return tuple(self._by_key)

    def known_as(self, host_key: bytes, candidates: Sequence[str] = (), *, every: bool = False) -> KnownAs:
        """Return what the files say about a host key or a host certificate.

        `candidates` are names that may be among the hashed ones. A candidate becomes a name only if its hash
        is in the files for this very key, so a client may suggest what it likes. The certificate's own
        signature must have been verified. `every`: names that are not shown are wanted, too.
        """
        found = self._names_of(host_key)
        if found is None and (certificate := _certificate(host_key)) is not None:
            found = self._names_of(certificate.key.encode()) or _Names()
            if (authority := self._names_of(certificate.ca_key)) is not None:
                names = [*_certified(certificate, authority.certifies), *found.names(candidates)]
                revoked = found.revoked or authority.revoked
                return _known_as(names, hashed=bool(found.hashed), revoked=revoked, every=every)
        if found is None:
            return _NOT_KNOWN
        names = found.names(candidates)
        return _known_as(names, hashed=bool(found.hashed), revoked=found.revoked, every=every)

    def _add(self, line: _Line) -> None:
        before = self._by_key.get(line.key, b"")
        if line.marker == _REVOKED:
            self._revoked.add(line.key)
            self._by_key[line.key] = before
        elif len(before) + len(line.hosts) <= _MOST_OF_A_KEY:
            self._by_key[line.key] = b"%b%b %b\n" % (before, line.marker, line.hosts)

    def _names_of(self, key: bytes) -> _Names | None:
        """What the lines of this key say; None if there are none."""
        said = self._by_key.get(key)
        if said is None:
            return None
        names = _Names(revoked=key in self._revoked)
        for line in said.splitlines():
            marker, _, hosts = line.partition(b" ")
            names.add(marker, hosts.decode(errors="surrogateescape"))
        return names


def _lines(text: bytes) -> Iterator[_Line]:
    """The lines that hold a key: `[@marker] hosts type base64 [comment]`."""
    for line in text.split(b"\n", _MOST_LINES)[:_MOST_LINES]:
        words = line.split(None, 4) if len(line) <= _LONGEST_LINE else []
        if not words or words[0].startswith(b"#"):
            continue
        marker = b""
        if words[0].startswith(b"@"):
            marker, *words = words
            if marker not in (_CERT_AUTHORITY, _REVOKED):
                continue
        try:
            hosts, algorithm, encoded = words[:3]
            key = binascii.a2b_base64(encoded, strict_mode=True)
            if blob_algorithm(key).encode() == algorithm:
                yield _Line(marker, hosts, key)
        except (ValueError, ProtocolError):
            continue  # too few words, no base64, or a key of another type


def _hashed(hosts: str) -> tuple[bytes, bytes] | None:
    """The salt and the hash of `|1|salt|hash` [extract_salt]; None if it is malformed."""
    try:
        salt, value = (binascii.a2b_base64(part) for part in hosts.removeprefix(_HASHED).split("|"))
    except ValueError:
        return None
    return (salt, value) if len(salt) == len(value) == _SHA1_SIZE else None


def _confirmed(hashed: Sequence[tuple[bytes, bytes]], candidates: Sequence[str]) -> Iterator[str]:
    """The candidates that are among the hashed names [host_hash]; ssh hashes names in lower case."""
    for candidate in candidates[:MOST_CANDIDATES]:
        name = candidate.lower()
        encoded = name.encode(errors="surrogateescape")
        if 0 < len(encoded) <= LONGEST_NAME and any(
            hmac.digest(salt, encoded, "sha1") == value for salt, value in hashed
        ):
            yield name


def _certificate(host_key: bytes) -> Certificate | None:
    """The host certificate, if it is one."""
    with suppress(ProtocolError):
        if is_certificate(blob_algorithm(host_key)):
            return Certificate.decode(host_key)
    return None


def _certified(certificate: Certificate, authority: Sequence[str]) -> Iterator[str]:
    """The host names of a certificate that is good now and whose CA known_hosts trusts for them."""
    host = HostCertificate(certificate)
    for principal in certificate.principals[:_MOST_NAMES]:
        name = principal.decode(errors="surrogateescape")
        trusted = len(name) <= LONGEST_NAME and any(matches_list(name, patterns) for patterns in authority)
        if trusted and host.certifies(name):
            yield name
