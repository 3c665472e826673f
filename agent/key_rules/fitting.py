"""Which `[[key]]` of the configuration are for a login, by its host and by what git wants there."""

from __future__ import annotations

from collections.abc import Sequence

from replug.agent.config.host_match import names_host
from replug.agent.config.key_rule import Fit, KeyRule
from replug.agent.key_rules.repositories import names_repository
from replug.protocol.purpose import Host


def fits_of(rules: Sequence[KeyRule], host: Host, repository: str | None) -> tuple[Fit, ...]:
    """How each of the rules fits; `repository` is empty for what is not git, None if not known."""
    return tuple(_fit(rule, host, repository) for rule in rules)


def _fit(rule: KeyRule, host: Host, repository: str | None) -> Fit:
    fit = Fit.OPEN
    if rule.hosts:
        fit = Fit.HOST if names_host(rule.hosts, host) else _unless_named(host)
    if rule.repositories and fit is not Fit.ELSEWHERE:
        if repository is None:
            fit = Fit.OPEN
        elif not names_repository(rule.repositories, repository):
            fit = Fit.ELSEWHERE
        elif fit is Fit.HOST or not rule.hosts:
            fit = Fit.REPOSITORY
    return fit


def _unless_named(host: Host) -> Fit:
    """How a rule fits that does not name this host: one without a name might have any."""
    has_name = host.known is not None and (host.known.names or host.known.revoked)
    return Fit.ELSEWHERE if has_name else Fit.OPEN
