"""The keys of a `[[certificate]]`, and what cannot be meant by them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from replug.agent.config.certificate_rule import EPHEMERAL, FIELDS, CertificateRule
from replug.agent.config.comment_template import check_template
from replug.agent.config.host_match import are_left_out, check_host
from replug.agent.config.key_choice import check_choice, check_fingerprint
from replug.agent.config.keys import Key
from replug.agent.config.kinds import ListOf, Text, Time, absolute_path

_FILE_END = "-cert.pub"
_EXTENSION = re.compile(r"[!-~]{1,128}", re.ASCII)
_USER = re.compile(r"@?[^\s,:@][^\s,:]{0,254}")
_LONGEST = 255  # characters of a principal and a key id


def _fingerprint(text: str) -> str:
    if not text.startswith("SHA256:"):
        raise ValueError("must be a fingerprint: ssh-add -l shows them, SHA256: and 43 characters")
    check_fingerprint(text)
    return text


def _principal(text: str) -> str:
    if not text or "," in text or len(text) > _LONGEST:
        raise ValueError("must be the name of a user at the host, one in each string")
    check_template(text, FIELDS)
    return text


def _user(text: str) -> str:
    if not _USER.fullmatch(text):
        raise ValueError('must be the name of a user of this machine, or of a group behind "@"')
    return text


def _key_id(text: str) -> str:
    if not text or len(text) > _LONGEST:
        raise ValueError(f"must have 1 to {_LONGEST} characters")
    check_template(text, FIELDS)
    return text


def _choice(text: str) -> str:
    if text != EPHEMERAL:
        check_choice(text)
    return text


def _extension(text: str) -> str:
    if not _EXTENSION.fullmatch(text):
        raise ValueError("must be the name of an extension, such as permit-pty")
    return text


def _command(text: str) -> str:
    if "\0" in text:
        raise ValueError("must be a command")
    return text


def _addresses(text: str) -> str:
    for address in filter(None, text.split(",")):
        ipaddress.ip_network(address)  # as strict as sshd: no bits beyond the mask
    return text


def _certificate_file(text: str) -> str:
    if not text:
        return ""
    if not text.endswith(_FILE_END):
        raise ValueError(f"must end in {_FILE_END}: beside IdentityFile ssh reads that")
    return absolute_path(text)


CERTIFICATE_KEYS = (
    Key(
        "ca",
        ListOf(Text(_fingerprint, what="a fingerprint"), alone=True, filled=True),
        "The CA keys, by fingerprint (SHA256:...): the first whose token is plugged in signs. Required.",
        sample=f'["SHA256:{"A" * 43}"]',
    ),
    Key(
        "hosts",
        ListOf(Text(check_host, what="a host"), alone=True, filled=True),
        "The hosts that get to see a certificate: patterns for their names in known_hosts or in their "
        "certificates, !patterns for those that do not, and fingerprints of host keys. Required.",
        sample='["*.example.com"]',
    ),
    Key(
        "principals",
        ListOf(Text(_principal, what="a name"), alone=True, filled=True),
        "The users as whom the certificate logs in; {user} is your own name. Required.",
        sample='["root"]',
    ),
    Key(
        "users",
        ListOf(Text(_user, what="a user"), alone=True),
        'Other users of this machine, by name or as "@group", where the agent is a service for them '
        "(replug setup --ca): each gets certificates of their own, and nothing else.",
    ),
    Key("lifetime", Time(), "How long a certificate is valid."),
    Key(
        "key",
        ListOf(Text(_choice, what="a choice of keys"), alone=True, filled=True),
        'The key that is certified: "ephemeral" is one that the agent makes and keeps in memory; else one of '
        "a token, chosen as by keys of a [[token]].",
    ),
    Key(
        "extensions",
        ListOf(Text(_extension, what="an extension"), lambda names: tuple(sorted(set(names)))),
        "What the certificate permits (ssh-keygen(1), -O).",
    ),
    Key("force_command", Text(_command), "The only command that it permits, if not empty."),
    Key(
        "source_address",
        Text(_addresses, what="a list of addresses"),
        'The addresses that it may be used from, if not empty: "10.0.0.0/24,192.0.2.7".',
    ),
    Key(
        "key_id",
        Text(_key_id),
        "What sshd logs; {user} is your name and {machine} this machine's.",
    ),
    Key(
        "renew_before",
        Time(zero=True),
        "How long before its end the next certificate is wanted; by default a fifth of its lifetime, and two "
        "minutes at most.",
        sample='"2m"',
    ),
    Key(
        "certificate_file",
        Text(_certificate_file, what="a path"),
        "Where the certificate is written as well, for ssh with IdentitiesOnly: a path that ends in "
        "-cert.pub. The key is beside it, in a file that ends in .pub.",
    ),
)


def contradictions(rule: CertificateRule) -> Iterator[tuple[str, str]]:
    """What in `rule` can never apply: the name of a key, and why."""
    if rule.renewed_before >= rule.lifetime:
        yield "renew_before", "must be shorter than lifetime"
    if are_left_out(rule.hosts):
        yield "hosts", "only says which hosts are left out"
    if EPHEMERAL in rule.key and len(rule.key) > 1:
        yield "key", f'"{EPHEMERAL}" stands alone, or is left out'
    if rule.users and rule.key != (EPHEMERAL,):
        yield "key", f'must be "{EPHEMERAL}" where users is given: they share no key'
    if rule.users and rule.certificate_file:
        yield "certificate_file", "is one file, and users have certificates of their own"
