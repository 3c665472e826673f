"""A signature's purpose in words, for prompts, the log, `replug status` and `explain`.

What the agent knows itself comes first and is never cut: the form, the host by its proven key and its name in
known_hosts, the hosts the agent is forwarded to, how long a certificate is valid. What a client chose (user
names, principals, key ids, namespaces) follows, escaped and bounded in length.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from replug.protocol.certificates import Certificate
from replug.protocol.keys import fingerprint
from replug.protocol.known_hosts import LONGEST_NAME, MOST_SHOWN, ROOM
from replug.protocol.purpose import (
    FOREVER,
    CertificateToSign,
    Host,
    Login,
    OtherData,
    Purpose,
    UnboundLogin,
)
from replug.protocol.signed_data import HostKeyProof, SshSignature
from replug.protocol.visible_text import visible, visible_path
from replug.protocol.wire import ProtocolError, Reader

_SMALLEST_LOGIN = 65  # bytes; what is smaller can be the hash of a key exchange, which is 20 to 64
_LAST_DATE = 253_402_300_799  # seconds since 1970: the end of the year 9999
_UNITS = ((86_400, "days"), (3_600, "hours"), (60, "minutes"), (1, "seconds"))


def in_one_line(purpose: Purpose) -> str:
    """Return all of it for the log: `login at server.example.com (SHA256:...), as root`."""
    return ", ".join(in_lines(purpose))


def in_lines(purpose: Purpose) -> list[str]:
    """Return one fact a line for prompts, the most important first."""
    chosen: list[str] = []
    match purpose.signed:
        case Login(host, user):
            head, chosen = f"login at {host_in_words(host)}", [f"as {visible(user)}"]
        case UnboundLogin(user, why, claimed):
            head, chosen = f"login at an UNKNOWN host: {why}", [f"as {visible(user)}"]
            if claimed is not None:
                chosen.append(f"claims to be at the host with key {fingerprint(claimed)}")
        case SshSignature(namespace):
            head, chosen = "SSHSIG signature, not a login", [f"namespace {visible(namespace)}"]
        case CertificateToSign() as asked:
            head, chosen = _certificate(asked)
        case HostKeyProof():
            head = "proof that a server holds this key as a host key"
        case OtherData(size, ""):
            head = _unknown(size)
        case OtherData(size, resembles):
            head = f"data of {size} bytes of no known form"
            chosen = [f"starts like {visible(resembles, 160)}"]
    lines = [head]
    if purpose.view:
        lines.append(f"over the socket {visible_path(purpose.view)}")
    if purpose.unverified:
        lines.append("through a connection whose sessions could not be verified")
    if purpose.forwarded_to and purpose.view:
        lines.append(f"which reports hops: {_some(map(host_in_words, purpose.forwarded_to))}")
    elif purpose.forwarded_to:
        nearest, *beyond = map(host_in_words, purpose.forwarded_to)
        lines.append(f"for a program on {nearest}, over the forwarded agent")
        if beyond:
            lines.append(f"which reports further hops: {_some(beyond)}")
    return lines + chosen


def host_in_words(host: Host) -> str:
    """Return a host as its names in known_hosts and its key's fingerprint."""
    known = host.known
    claim = f"the key's constraints call it {visible(host.claimed_name)}" if host.claimed_name else ""
    if known is None:
        return f"the host with key {host.fingerprint}" + (f" ({claim})" if claim else "")
    warning = "REVOKED " if known.revoked else ""
    if known.names:
        names = _some((visible(name, LONGEST_NAME) for name in known.names), more=known.more)
        return f"{names} ({warning}{host.fingerprint})"
    where = "in known_hosts under a hashed name" if known.hashed else "not in known_hosts"
    return f"the host with {warning}key {host.fingerprint} ({'; '.join(filter(None, (where, claim)))})"


def host_as_listed(host: Host) -> str:
    """Return a host's names in known_hosts and its key's fingerprint, separated by commas."""
    names = host.known.names if host.known is not None else ()
    return ",".join([*(visible(name, LONGEST_NAME) for name in names), host.fingerprint])


def _unknown(size: int) -> str:
    if size < _SMALLEST_LOGIN:
        return f"something that is not a login: {size} bytes of no known form"
    return f"data of {size} bytes that is no login, certificate or signature of a known form"


def _certificate(asked: CertificateToSign) -> tuple[str, list[str]]:
    certificate = asked.certificate
    kind = "host" if asked.is_for_host else "user"
    anybody = "" if certificate.principals else f" for ANY {kind.upper()}"
    principals = [visible(principal, 48) for principal in certificate.principals]
    subject = certificate.key
    details = [f"for {_some(principals)}"] if principals else []
    details.append(f"key id {visible(certificate.key_id)}")
    details.append(f"serial {certificate.serial}")
    if certificate.critical_options:
        details.append(f"only with {_some(_options(certificate))}")
    details.append(f"certifies {subject.algorithm} key {fingerprint(subject.encode())}")
    login = f" for a login at {host_in_words(asked.login_at)}" if asked.login_at else ""
    return f"{kind} certificate{anybody}{login}, {_validity(asked)}", details


def _validity(asked: CertificateToSign) -> str:
    certificate, left = asked.certificate, asked.seconds_left
    start = f"from {_date(certificate.valid_after)} " if certificate.valid_after > asked.asked_at else ""
    if certificate.valid_before == FOREVER or left is None:
        return f"valid {start}FOREVER"
    return f"valid {start}until {_date(certificate.valid_before)} ({_span(left)} from now)"


def _options(certificate: Certificate) -> Iterable[str]:
    for name, data in certificate.critical_options:
        try:
            reader = Reader(data)
            value = reader.string() if data else b""
            reader.check_end()
        except ProtocolError:
            value = data  # not in the form of those that OpenSSH knows
        yield visible(name) + (f" {visible(value)}" if value else "")


def _some(names: Iterable[str], more: int = 0) -> str:
    """The first few of them, and how many there are besides; all but the first only if they are short.

    There are `more` that are not among `names`.
    """
    listed = list(names)
    shown = ""
    for count, name in enumerate(listed):
        longer = f"{shown},{name}" if shown else name
        if count == MOST_SHOWN or (shown and len(longer) > ROOM):
            more += len(listed) - count
            break
        shown = longer
    return f"{shown} and {more} more" if more else shown


def _date(seconds: int) -> str:
    if seconds > _LAST_DATE:
        return "after the year 9999"
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _span(seconds: int) -> str:
    """A length of time in the largest unit of which there are at least two."""
    for size, unit in _UNITS:
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} seconds"
