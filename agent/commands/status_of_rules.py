"""What `replug status` says of the rules for keys, and of the keys that hosts have accepted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from replug.agent.commands.terminal_style import Style
from replug.agent.control.ages import how_long_ago
from replug.agent.key_rules.described import rule_from_json, rule_in_words
from replug.protocol.keys import fingerprint
from replug.token.identity import printable

ASKS = {"forwarded": "asks if forwarded", "other": "asks unless it is a login"}


def rules_of(status: dict[str, Any], style: Style) -> Iterator[str]:
    """A line for each `[[key]]`."""
    yield style.paint("Rules for keys", "bold")
    for rule in status["key_rules"]:
        words = [rule_in_words(rule_from_json(rule))]
        words += ["signs nothing elsewhere"] if rule["restrict"] else []
        words += ["asks each time"] if rule["confirm"] else []
        words += [ASKS[case] for case in rule["confirm_when"] if case in ASKS]
        yield from style.wrap(printable("; ".join(words)), first="  ", rest="    ")


def hosts_of(status: dict[str, Any], style: Style, now: float) -> Iterator[str]:
    """The hosts of which the agent knows what they accept, by their names in known_hosts."""
    yield style.paint("Keys that hosts have accepted", "bold")
    names = _names()
    comments = _comments(status)
    for host in status["hosts"]:
        called = ", ".join(names.get(host["host_key"], ())) or host["host_key"]
        yield from style.wrap(
            printable(f"{called}, last {how_long_ago(host['last_used'], now)}"), first="  ", rest="    "
        )
        for key in host["accepted"]:
            yield printable(f"    {key} {comments.get(key, '(not here)')}")


def _names() -> dict[str, tuple[str, ...]]:
    """What known_hosts calls the hosts with these keys, by their fingerprints."""
    from replug.agent.keys.known_host_names import read_known_hosts  # slow

    known = read_known_hosts()
    return {fingerprint(key): known.known_as(key).names for key in known.keys}


def _comments(status: dict[str, Any]) -> dict[str, str]:
    keys = [key for token in status["tokens"] for key in token["keys"]]
    return {
        key["fingerprint"]: key["comment"]
        for key in [*keys, *status["software_keys"], *status["security_keys"]]
    }
