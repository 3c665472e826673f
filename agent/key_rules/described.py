"""Rules and hosts as `replug status` and `replug explain` get them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from replug.agent.config.confirm_when import ConfirmWhen
from replug.agent.config.key_rule import KeyRule
from replug.token.errors import ExplainedError

if TYPE_CHECKING:
    from replug.agent.key_rules.destinations import Destinations


def rule_as_json(rule: KeyRule) -> dict[str, Any]:
    """A `[[key]]`."""
    always = ConfirmWhen.ALWAYS in rule.confirm
    return {
        "match": list(rule.match),
        "hosts": list(rule.hosts),
        "repositories": list(rule.repositories),
        "restrict": rule.restrict,
        "confirm": always,
        "confirm_when": [] if always else rule.confirm.words,
        "confirm_for": rule.confirm_for,
    }


def rule_from_json(said: dict[str, Any]) -> KeyRule:
    """The same without when it asks: what decides which keys a host gets to see."""
    match, hosts, repositories = (tuple(said[name]) for name in ("match", "hosts", "repositories"))
    return KeyRule(match, hosts, repositories, said["restrict"])


def rule_in_words(rule: KeyRule) -> str:
    """What it says about hosts."""
    words = f"match = {', '.join(rule.match)}"
    words += f"; hosts = {', '.join(rule.hosts)}" if rule.hosts else ""
    return words + (f"; repositories = {', '.join(rule.repositories)}" if rule.repositories else "")


def hosts_as_json(destinations: Destinations) -> list[dict[str, Any]]:
    """The hosts, the one used last first."""
    known = [
        {"host_key": host, "accepted": list(one.keys), "last_used": one.used} for host, one in destinations
    ]
    return known[::-1]


async def forget_hosts(destinations: Destinations) -> dict[str, Any]:
    """Forget which keys hosts accept: how many hosts there were, and what went wrong."""
    count, failed = len(list(destinations)), ""
    try:
        await destinations.forget()
    except (OSError, ExplainedError) as error:
        failed = f"{error}"
    return {"version": 1, "forgotten": count, "failed": failed}
