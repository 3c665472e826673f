"""Which `[[certificate]]` of the configuration is for a host, and which keys are its CA's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from replug.agent.config.certificate_rule import CertificateRule
from replug.protocol.patterns import matches
from replug.protocol.purpose import Host

_FINGERPRINT = "SHA256:"


def rule_for(rules: Sequence[CertificateRule], host: Host) -> CertificateRule | None:
    """The first of the rules that is for this host; None for a host whose key is revoked."""
    if host.known is not None and host.known.revoked:
        return None
    names = [*_names(host)]
    return next((rule for rule in rules if _is_for(rule, host.fingerprint, names)), None)


def exact_names(rules: Sequence[CertificateRule]) -> list[str]:
    """The names of hosts that are spelt out in the rules: what known_hosts has hashed can be one of them."""
    hosts = (host.removeprefix("!") for rule in rules for host in rule.hosts)
    return list(dict.fromkeys(host for host in hosts if not set(host) & set("*?") and not _is_key(host)))


def ca_keys(rules: Sequence[CertificateRule]) -> frozenset[str]:
    """The fingerprints of the CA keys that the rules name."""
    return frozenset(key for rule in rules for key in rule.ca)


def _is_for(rule: CertificateRule, key: str, names: Sequence[str]) -> bool:
    included = False
    for host in rule.hosts:
        pattern = host.removeprefix("!")
        fits = pattern == key if _is_key(pattern) else any(matches(name, pattern) for name in names)
        if fits and pattern != host:
            return False
        included |= fits
    return included


def _names(host: Host) -> Iterator[str]:
    """The host's names as known_hosts has them, and without the port."""
    known = host.known
    for name in (*known.names, *known.others) if known is not None else ():
        yield name.lower()
        if name.startswith("["):
            yield name[1:].partition("]")[0].lower()


def _is_key(host: str) -> bool:
    return host.startswith(_FINGERPRINT)
