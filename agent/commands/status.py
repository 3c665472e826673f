"""`replug status`: the agent's tokens and keys, and its last refusals."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from typing import Any

from replug.agent.commands.command import Commands
from replug.agent.commands.status_of_rules import ASKS, hosts_of, rules_of
from replug.agent.commands.terminal_style import Colour, Style
from replug.agent.control.ages import clock, how_long, how_long_ago
from replug.agent.control.client import ask
from replug.agent.control.release import change_over, older_agent, what_is_lost
from replug.token.identity import printable

_FEW_REFUSALS = 3
_COLOURS: dict[str, Colour] = {
    "ready": "green",
    "present": "yellow",
    "absent": "dim",
    "locked": "red",
    "unreachable": "red",
}
_PROPERTIES = (
    ("certificate", "certificate"),
    ("confirm", "asks each time"),
    ("restricted", "some hosts only"),
    ("ca", "signs certificates only"),
)
_TRIES = {
    "final": "one PIN try is left: a wrong PIN locks the token",
    "low": "a wrong PIN was entered since the last correct one",
}
_KINDS = {
    "ssh-ed25519": "ED25519",
    "ssh-rsa": "RSA",
    "ssh-mldsa44-ed25519": "MLDSA44-ED25519",
    "ssh-mldsa44-ed25519@openssh.com": "MLDSA44-ED25519",
    "sk-ssh-ed25519@openssh.com": "ED25519-SK",
    "sk-ecdsa-sha2-nistp256@openssh.com": "ECDSA-SK",
}


def add_parser(commands: Commands) -> None:
    """Add `status` to the commands of `replug`."""
    parser = commands.add_parser("status", help="show tokens, keys, and the last refusals with their reasons")
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="show which keys hosts have accepted as well"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Print the agent's status."""
    status = ask("status")
    if chosen.json:
        print(json.dumps(status, indent=2))
    else:
        style, now = Style.of_output(), time.time()
        print("\n".join(describe(status, style, now)))
        if chosen.verbose and status.get("hosts"):
            print("\n".join(["", *hosts_of(status, style, now)]))
        from importlib.metadata import version  # slow

        older = older_agent(status, version("replug"))
        if older:
            print(f"\n{older}. {what_is_lost(status)}\nTo change over: {change_over(status['socket'])}")
    return 0


def describe(status: dict[str, Any], style: Style, now: float) -> Iterator[str]:
    """The status as lines of text; `now` is in seconds since the epoch."""
    yield style.paint("replug-agent", "bold") + printable(f" (pid {status['pid']}) on {status['socket']}")
    if status["locked"]:
        yield "  " + style.paint("locked", "red", "bold") + ": unlock it with ssh-add -X"
    if status.get("memory_readable"):
        yield "  " + style.paint("other programs of yours can read PINs and keys", "red", "bold")
        yield "  the agent runs in a user namespace (PrivateUsers= in its unit): see replug doctor"
    if status.get("configuration_refused"):
        in_force = ", ".join(status["forget_pin_on"]) or "nothing"
        since, read = status.get("configuration_refused_since"), status.get("configuration_read")
        refused = style.paint("config.toml is refused", "red", "bold")
        when = f" since {clock(since, now)}" if since else ""
        reasons = status["configuration_refused"].replace("\n", "; ")
        yield f"  {refused}{when}" + printable(f": {reasons}")
        old = f"the settings read at {clock(read, now)}" if read else "the settings read before"
        yield f"  {old} remain in force; PINs are forgotten on: {in_force}"
    if not status["tokens"]:
        yield "  no token: plug one in, or add one with ssh-add -s MODULE; if one is in, see replug doctor"
    for token in status["tokens"]:
        yield ""
        yield from _token(token, style, now)
    if status.get("software_keys"):
        yield ""
        yield style.paint("In memory", "bold")
        for key in status["software_keys"]:
            yield _key(key, style)
    if status.get("security_keys"):
        yield ""
        yield style.paint("Security key keys", "bold")
        for key in status["security_keys"]:
            yield _key(key, style)
            facts = ", ".join(_security_key_facts(key, now))
            yield from (style.paint(line, "dim") for line in style.wrap(facts, first="    ", rest="    "))
    if status.get("upstreams"):
        yield ""
        yield style.paint("Other agents", "bold")
        for upstream in status["upstreams"]:
            yield from _upstream(upstream, style)
    if status.get("certificates"):
        yield ""
        yield style.paint("Certificates", "bold")
        for rule in status["certificates"]:
            yield from _certificate(rule, style, now)
    if status.get("sockets"):
        yield ""
        yield style.paint("Sockets for some of the keys", "bold")
        for socket in status["sockets"]:
            yield from _socket(socket, style)
    if status.get("key_rules"):
        yield ""
        yield from rules_of(status, style)
    if status["refusals"]:
        yield ""
        yield from _refusals(status["refusals"], style, now)


def _token(token: dict[str, Any], style: Style, now: float) -> Iterator[str]:
    colour = _COLOURS.get(token["state"], "bold")
    mark = "\N{BLACK CIRCLE}" if style.unicode else "*"
    name = f'"{token["label"]}"' if token["label"] else token["model"]
    serial = f" (serial {token['serial']})" if token["serial"] else ""
    if token.get("copy"):
        serial += f" #{token['copy'] + 1}"
    title = style.paint(printable(name), "bold") + printable(serial)
    reason = f": {printable(token['why'])}" if token["why"] else ""
    state = style.paint(token["state"], colour, "bold")
    width = len(printable(name + serial)) + len(f"{mark} Token  is {token['state']}")
    if style.width is not None and reason and width + len(reason) > style.width:
        yield f"{style.paint(mark, colour)} Token {title} is {state}"
        yield from style.wrap(reason[2:], first="  ", rest="  ")
    else:
        yield f"{style.paint(mark, colour)} Token {title} is {state}{reason}"
    facts = ", ".join(_facts(token, now))
    if facts:
        yield from (style.paint(line, "dim") for line in style.wrap(facts, first="  ", rest="  "))
    tries = _TRIES.get(token.get("pin_tries", ""))
    if tries:
        yield "  " + style.paint(tries, "yellow")
    if token.get("without_keys"):
        yield "  " + style.paint(token["without_keys"], "yellow")
    if token.get("first_key"):
        # Not wrapped: it is there to be copied.
        for command in filter(None, (token["first_key"], token.get("first_key_then"))):
            yield f"    {style.arrow} {printable(command)}"
    for key in token["keys"]:
        yield _key(key, style)
    for key in token.get("left_out", ()):
        text = f'left out: key "{printable(key["label"])}": {printable(key["why"])}'
        yield from (style.paint(line, "dim") for line in style.wrap(text, first="  ", rest="    "))


def _facts(token: dict[str, Any], now: float) -> Iterator[str]:
    if token.get("has_twin"):
        yield "another token has the same name and serial: their keys tell them apart"
    inserted, removed = token["last_inserted"] or 0.0, token["last_removed"] or 0.0
    if token["state"] == "absent":
        if removed:
            yield f"removed {how_long_ago(removed, now)}"
    elif inserted:
        yield f"inserted {how_long_ago(inserted, now)}"
    left = token["expires_in"]
    if token["pin_remembered"]:
        left = token.get("pin_expires_in", left)
        yield _remembered(left, now)
    elif left is not None:
        yield f"served until {clock(now + left, now)} ({how_long(left)} left)"


def _key(key: dict[str, Any], style: Style) -> str:
    """One line: the whole fingerprint, and the comment, shortened to fit."""
    kind = _KINDS.get(key["type"]) or ("ECDSA" if key["type"].startswith("ecdsa-") else key["type"])
    kind += "".join(f", {word}" for field, word in _PROPERTIES if key.get(field))
    kind += "".join(f", {ASKS[case]}" for case in key.get("confirm_when", ()) if case in ASKS)
    ends = f"  {printable(key['fingerprint'])} ", f" ({printable(kind)})"
    room = max(8, (style.width or 0) - sum(map(len, ends)))
    return ends[0] + style.shorten(printable(key["comment"]), room) + style.paint(ends[1], "dim")


def _security_key_facts(key: dict[str, Any], now: float) -> Iterator[str]:
    yield printable(f"for {key['application']}, by {key['provider']}")
    if key["pin_remembered"]:
        yield _remembered(key["pin_expires_in"], now)


def _remembered(left: float | None, now: float) -> str:
    until = "the agent ends" if left is None else f"{clock(now + left, now)} ({how_long(left)} left)"
    return f"PIN remembered until {until}"


def _upstream(upstream: dict[str, Any], style: Style) -> Iterator[str]:
    """Another agent: how many keys it shows, or why it shows none."""
    keys = upstream["keys"]
    if upstream["why"]:
        what = "left out of lists until it answers" if upstream["left_out"] else "not there"
    elif upstream["lists_nothing"]:
        what = "does not list its keys; it may be locked"
    elif keys is None:
        what = "not asked yet"
    else:
        what = f"{keys} key{'s' * (keys != 1)}"
    yield from style.wrap(printable(f"{upstream['socket']}: {what}"), first="  ", rest="    ")
    if upstream["why"]:
        yield from _failure(upstream["why"], style)
    yield from _what_to_do(upstream, style)


def _certificate(rule: dict[str, Any], style: Style, now: float) -> Iterator[str]:
    """What there is of one `[[certificate]]`, and why the last attempt failed."""
    hosts = ", ".join(rule["hosts"])
    whose = f", for user {rule['user']}" if rule.get("user") else ""
    if rule["serial"]:
        names = ", ".join(rule["certified_principals"])
        text = (
            f"serial {rule['serial']} for {names} at {hosts}, by CA {rule['certified_by']} "
            f"({rule['certified_on']}), valid {how_long(rule['valid_before'] - now)} more{whose}"
        )
    else:
        text = f"none for {hosts}{whose}"
        text += "" if rule["failed"] else " yet: one is made at the next login there"
    yield from style.wrap(printable(text), first="  ", rest="    ")
    if rule["failed"]:
        yield from _failure(f"{how_long_ago(rule['failed_at'], now)}: {rule['failed']}", style)
        yield from _what_to_do(rule, style)


def _socket(socket: dict[str, Any], style: Style) -> Iterator[str]:
    """What one `[[socket]]` is for, and why it is not there."""
    text = f"{socket['path']} for {', '.join(socket['keys'])}"
    if socket["hosts"]:
        text += f", at {', '.join(socket['hosts'])} only"
    asks = ["asks each time"] if socket["confirm"] else [ASKS[case] for case in socket["confirm_when"]]
    yield from style.wrap(printable(", ".join([text, *asks])), first="  ", rest="    ")
    if socket["failed"]:
        yield from _failure(f"not there: {socket['failed']}", style)
        yield from _what_to_do(socket, style)


def _failure(text: str, style: Style) -> Iterator[str]:
    for line in style.wrap(printable(text), first="    ", rest="    "):
        yield style.paint(line, "yellow")


def _what_to_do(about: dict[str, Any], style: Style) -> Iterator[str]:
    if about["next_step"]:
        yield from style.wrap(printable(about["next_step"]), first=f"    {style.arrow} ", rest="      ")


def _refusals(refusals: list[dict[str, Any]], style: Style, now: float) -> Iterator[str]:
    shown = refusals[-_FEW_REFUSALS:]
    more = f", {len(shown)} of {len(refusals)}" if len(refusals) > len(shown) else ""
    yield style.paint("Last refusals", "bold") + f"{more} (see replug explain for details):"
    for refusal in shown:
        head = f"{how_long_ago(refusal['time'], now)}, {refusal['program']}, {refusal['request']}:"
        yield from style.wrap(printable(head), first="  ", rest="    ")
        if refusal.get("purpose"):
            yield from style.wrap(printable(refusal["purpose"]), first="    ", rest="    ")
        yield from style.wrap(printable(refusal["reason"]), first="    ", rest="    ")
        yield from _what_to_do(refusal, style)
