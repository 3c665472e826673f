"""`replug explain HOST`: which keys a host gets to see when ssh logs in there, in which order, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from replug.agent.commands.known_host_keys import known_host_keys, output
from replug.agent.commands.terminal_style import Style
from replug.agent.config.host_match import names_host
from replug.agent.config.key_match import rules_of
from replug.agent.config.key_rule import Fit, KeyRule
from replug.agent.control.client import AskError, ask
from replug.agent.control.listing import listed_at
from replug.agent.key_rules.about_keys import about_key
from replug.agent.key_rules.described import rule_from_json, rule_in_words
from replug.agent.key_rules.fitting import fits_of
from replug.agent.key_rules.order import FEW, Order, Place, order
from replug.agent.key_rules.repositories import split_address
from replug.agent.keys.known_host_names import read_known_hosts
from replug.protocol.keys import blob_algorithm, fingerprint, is_certificate
from replug.protocol.known_hosts import KnownAs
from replug.protocol.messages import ListedIdentity
from replug.protocol.purpose import Host
from replug.token.identity import printable

_SSH_PORT = "22"


def explain_host(name: str, repository: str, style: Style) -> Iterator[str]:
    """Lines for a host as one calls it on ssh's command line, and what git wants there; AskError.

    Either may be the address of a repository.
    """
    try:
        name, inside = split_address(name)
        repository = split_address(repository)[1] or repository or inside
    except ValueError as error:
        raise AskError(str(error)) from error
    if not name:
        raise AskError("a host has no empty name")
    status = ask("status")
    if "key_rules" not in status:
        raise AskError("the agent is older than this program: restart it")
    if status["locked"]:
        yield "The agent is locked: it lists no keys. Unlock it with ssh-add -X."
        return
    called = _name_in_known_hosts(name)
    hosts = _hosts(called)
    if not hosts:
        yield from style.wrap(
            printable(f"{called} is in no known_hosts file. Once it is, by this name alone, it gets:")
        )
        hosts = [Host(b"", KnownAs((called,)))]
    said: list[list[str]] = []
    for host in hosts:
        lines = [*_described(status, host, repository, style)]
        if lines not in said:
            if said:
                yield ""
            if len(hosts) > 1:
                yield f"By its key {host.fingerprint}:"
            yield from lines
        said.append(lines)


def _described(status: Mapping[str, Any], host: Host, repository: str, style: Style) -> Iterator[str]:
    rules = [rule_from_json(rule) for rule in status["key_rules"]]
    accepted = next((one["accepted"] for one in status["hosts"] if one["host_key"] == host.fingerprint), ())
    certificates = [
        one for one in status["certificates"] if not one["users"] and names_host(tuple(one["hosts"]), host)
    ]
    keys = _keys(status)
    fits = fits_of(rules, host, repository)
    about = [about_key(rules, key) for key in keys]
    certified = any(one["serial"] for one in certificates)
    made = order(keys, about, rules, fits, accepted, may_be_empty=certified)
    count = f"{len(made.offered)} of {len(keys)} {'key' if len(keys) == 1 else 'keys'}"
    yield f"{printable(_called(host))} is listed {count}{', in this order:' if made.offered else '.'}"
    if certificates:
        principals = ", ".join(certificates[0]["principals"])
        yield printable(f"      a certificate for {principals}, if one can be made (see replug status)")
    ours = sum(place.fit in (Fit.REPOSITORY, Fit.HOST) for place in made.offered)
    limited = {key["fingerprint"] for key in _described_keys(status) if key["restricted"]}
    for number, place in enumerate(made.offered, 1):
        yield f"  {number:2}. {_line(place.entry)}"
        why = _why(place, made, accepted)
        why += "; only if its destinations permit (ssh-add -h)" if _print(place.entry) in limited else ""
        yield from style.wrap(printable(why), first="      ", rest="      ")
    if made.none_fits:
        yield from style.wrap("The rules would leave no key for this host, so none is left out.")
    if len(made.offered) > FEW and not made.accepted_first and not 0 < ours <= FEW:
        yield from style.wrap("Servers hear about 6 keys: name those for this host in a [[key]].")
    if made.left_out:
        yield "Left out:"
    for place in made.left_out:
        yield f"      {_line(place.entry)}"
        why = _why(_nearest(place, rules, host), made, accepted)
        yield from style.wrap(printable(why), first="      ", rest="      ")
    if made.left_out and not repository and any(rule.repositories for rule in rules):
        yield from style.wrap("What git is listed for a repository: replug explain --repository.")


def _called(host: Host) -> str:
    names = host.known.names if host.known is not None else ()
    return ", ".join(names) or host.fingerprint


def _line(entry: ListedIdentity) -> str:
    return printable(f"{_print(entry)} {entry.comment.decode(errors='replace')}")


def _print(entry: ListedIdentity) -> str:
    return fingerprint(entry.key_blob)


def _why(place: Place, made: Order, accepted: Sequence[str]) -> str:
    if made.accepted_first and _print(place.entry) in accepted:
        return "the host has accepted it before, and none of the first five keys"
    if place.rule is None:
        return "no rule says where it is for"
    rule = f"[[key]] {rule_in_words(place.rule)}"
    match place.fit:
        case Fit.REPOSITORY:
            return f"for this repository, by {rule}"
        case Fit.HOST:
            return f"for this host, by {rule}"
        case Fit.OPEN:
            return f"the host has no name that is known, for {rule}"
        case Fit.ELSEWHERE:
            return f"{_elsewhere(place.rule)}, by {rule}"


def _nearest(place: Place, rules: Sequence[KeyRule], host: Host) -> Place:
    """A key that is left out, by the rule that names the host, if one does."""
    about = rules_of(rules, place.entry.key_blob, place.entry.comment)
    rule = next((one for one in about if names_host(one.hosts, host)), place.rule)
    return replace(place, rule=rule)


def _elsewhere(rule: KeyRule) -> str:
    return "for other repositories" if rule.repositories else "for other hosts"


def _keys(status: Mapping[str, Any]) -> list[ListedIdentity]:
    """What is listed to ssh, without CA keys and certificates just in time."""
    authorities = {key["fingerprint"] for key in _described_keys(status) if key["ca"]}
    made = {one["fingerprint"] for one in status["certificates"]}
    listed = listed_at(status["socket"])
    return [
        key for key in listed if fingerprint(key.key_blob) not in (made if _certified(key) else authorities)
    ]


def _described_keys(status: Mapping[str, Any]) -> list[dict[str, Any]]:
    keys = [key for token in status["tokens"] for key in token["keys"]]
    return [*keys, *status["software_keys"], *status["security_keys"]]


def _certified(key: ListedIdentity) -> bool:
    return is_certificate(blob_algorithm(key.key_blob))


def _name_in_known_hosts(name: str) -> str:
    """What ssh looks for there, by its configuration."""
    config: dict[str, str] = {}
    for line in output("ssh", "-G", "--", name).splitlines():
        keyword, _, value = line.partition(" ")
        config.setdefault(keyword, value)
    if alias := config.get("hostkeyalias"):
        return alias.lower()
    host, port = config.get("hostname", name).lower(), config.get("port", _SSH_PORT)
    return host if port == _SSH_PORT else f"[{host}]:{port}"


def _hosts(name: str) -> list[Host]:
    """The keys that known_hosts has under this name, each with all of its names."""
    known = read_known_hosts()
    keys = dict.fromkeys(key for marker, key in known_host_keys(name) if not marker)
    return [Host(key, known.known_as(key, [name], every=True)) for key in keys]
