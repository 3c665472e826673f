"""Keys that sign logins at certain hosts and nothing else: `restrict` of a `[[key]]`."""

from __future__ import annotations

from collections.abc import Sequence

from replug.agent.clients.client import Client
from replug.agent.config.host_match import names_host
from replug.agent.config.key_match import rules_of
from replug.agent.config.key_rule import KeyRule
from replug.agent.keys.identity import Identity
from replug.agent.keys.refusal import RequestRefusedError
from replug.protocol.purpose import Login, Purpose


def check_restrictions(
    rules: Sequence[KeyRule], candidates: Sequence[Identity], purpose: Purpose, client: Client
) -> None:
    """Raise RequestRefusedError if a rule forbids the signature with one of these identities of a key."""
    for held in candidates if any(rule.restrict for rule in rules) else ():
        restricting = [rule for rule in rules_of(rules, held.blob, held.comment) if rule.restrict]
        if restricting and not any(_permits(rule, purpose, client) for rule in restricting):
            hosts = ", ".join(dict.fromkeys(host for rule in restricting for host in rule.hosts))
            raise RequestRefusedError(
                f"key {held.fingerprint} signs logins at {hosts} only, from this machine",
                "see restrict of the [[key]] in config.toml",
            )


def _permits(rule: KeyRule, purpose: Purpose, client: Client) -> bool:
    signed = purpose.signed
    return isinstance(signed, Login) and not client.forwarded and names_host(rule.hosts, signed.host)
