"""Which `[[certificate]]` of the configuration is for a host, and which keys are its CA's."""

from __future__ import annotations

from collections.abc import Sequence

from replug.agent.config.certificate_rule import CertificateRule
from replug.agent.config.host_match import names_host
from replug.protocol.purpose import Host


def rule_for(rules: Sequence[CertificateRule], host: Host) -> CertificateRule | None:
    """The first of the rules that is for this host; None for a host whose key is revoked."""
    return next((rule for rule in rules if names_host(rule.hosts, host)), None)


def ca_keys(rules: Sequence[CertificateRule]) -> frozenset[str]:
    """The fingerprints of the CA keys that the rules name."""
    return frozenset(key for rule in rules for key in rule.ca)
