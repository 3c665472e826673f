"""The keys of the whole file and of a `[[token]]`: for parsing, showing, the example and their tests.

The defaults are in `model`, with the values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from replug.agent.config.agent_socket import different_sockets, socket_path
from replug.agent.config.comment_template import check_template
from replug.agent.config.key_choice import check_choice
from replug.agent.config.kinds import (
    Choice,
    Confirmation,
    Count,
    Kind,
    ListOf,
    Notice,
    Text,
    Time,
    absolute_path,
)
from replug.agent.config.model import AUTO
from replug.token.names.pin_source import PinSource, parse_pin_source
from replug.token.names.uri import Uri, is_uri, parse_uri
from replug.token.pins.lifetime import ForgetOn
from replug.token.prompts.way import PromptWay

_MOST_WORKERS = 64


@dataclass(frozen=True)
class Key:
    """One key: its name, which is also the field's, the kind of its value, and its meaning."""

    name: str
    kind: Kind
    meaning: str
    inherits: str | None = None
    """For a key of `[[token]]`: the global key that applies without it."""
    sample: str = ""
    """A value for the example, if there is no default."""
    needs_restart: bool = False
    """Whether a running agent keeps the old value when it reloads the file."""


def _token_uri(text: str) -> Uri:
    uri = parse_uri(text)
    if any((uri.object, uri.key_id, uri.type)):
        raise ValueError("the URI may only name a token: choose its keys with keys")
    if uri.module_name:
        raise ValueError("module-name is not allowed here: give the path with module")
    return uri


def _provider(text: str) -> str:
    if is_uri(text):
        parse_uri(text)
        return text
    return text if text == AUTO else absolute_path(text)


def _patterns(text: str) -> str:
    for pattern in filter(None, text.split(",")):
        if pattern.removeprefix("!")[:1] not in ("/", "*", "?"):
            raise ValueError(f"{pattern!r} matches no absolute path")
    return text


def _program(text: str) -> str | None:
    if text == AUTO:
        return None
    if not text or "\0" in text:
        raise ValueError("must be the name or the path of a program")
    return absolute_path(text) if "/" in text else text


def _program_text(program: str | None) -> str:
    return AUTO if program is None else program


def _key_choice(text: str) -> str:
    check_choice(text)
    return text


def _comment(text: str) -> str:
    check_template(text)
    return text


def _source_text(source: PinSource | None) -> str:
    return "prompt" if source is None else str(source)


_FORGET_ON = ListOf(Choice([event.value for event in ForgetOn], ForgetOn), frozenset, sorted)

GLOBAL_KEYS = (
    Key(
        "modules",
        ListOf(Text(_provider, what="a path, a URI or auto"), alone=True),
        'The modules to serve without ssh-add: paths of PKCS#11 modules, pkcs11: URIs, and "auto" for those '
        "that the machine has.",
    ),
    Key(
        "allowed_modules",
        ListOf(Text(_patterns, what="a pattern"), ",".join, lambda patterns: patterns.split(","), alone=True),
        "The modules that may be loaded: patterns for their real paths, as for -P, which overrides this.",
    ),
    Key(
        "certificates",
        ListOf(Text(absolute_path, what="a path")),
        "OpenSSH certificates (*-cert.pub) to list with their token keys; shell wildcards are allowed.",
    ),
    Key(
        "upstreams",
        ListOf(Text(socket_path, what="a path"), different_sockets),
        "The sockets of other agents whose keys are listed after those of this one, and used through it: "
        "~ and variables such as $XDG_RUNTIME_DIR are expanded.",
    ),
    Key(
        "default_lifetime",
        Time(never=True, forever=0, zero=True),
        "The lifetime of identities that were added without one; -t overrides this.",
    ),
    Key(
        "wait_for_token",
        Time(zero=True),
        "How long a signature waits for an absent token, whose keys are then listed last; by default it is "
        "refused at once, and they are not listed.",
    ),
    Key(
        "pin_time_to_live",
        Time(never=True),
        "How long a PIN is remembered after it was entered; time that the machine sleeps counts.",
    ),
    Key("pin_idle_time", Time(never=True), "How long a PIN is remembered after its last use."),
    Key(
        "forget_pin_on",
        _FORGET_ON,
        'The events that make the agent forget a PIN: "removal" of the token, "screen-lock", "suspend".',
    ),
    Key(
        "prompt",
        Choice(get_args(PromptWay)),
        'How the user is asked: "auto" chooses by where the request comes from, or only "pinentry", '
        '"askpass", "terminal" or "systemd" (its password agents).',
        needs_restart=True,
    ),
    Key(
        "pinentry_program",
        Text(_program, _program_text, what="a program"),
        'The pinentry to start: a path, or a name that is looked up in PATH; "auto" takes the first one that '
        "is installed.",
        needs_restart=True,
    ),
    Key(
        "prompt_timeout",
        Time(),
        "How long a question may stay unanswered.",
        needs_restart=True,
    ),
    Key(
        "confirm",
        Confirmation(),
        "Whether each use of a key has to be confirmed (true), or only one over a forwarded connection "
        '("forwarded"), or only what is not a login at a verified host ("other"); a list combines them. Keys '
        "added with ssh-add -c are confirmed each time.",
    ),
    Key(
        "confirm_for",
        Time(zero=True),
        "How long a yes is remembered for the same key, program and destination, or the same namespace of "
        "ssh-keygen -Y sign; by default it is for one signature.",
    ),
    Key(
        "confirm_for_forwarded",
        Time(zero=True),
        "The same for requests over a forwarded connection.",
    ),
    Key(
        "touch_notification",
        Notice(moment=1.0),
        "Whether a desktop notification asks for a touch when a signature takes longer than a second, or "
        "than the time given.",
    ),
    Key(
        "operation_timeout",
        Time(),
        "How long a module may be silent while it is loaded, lists its slots, reads keys or logs in.",
        needs_restart=True,
    ),
    Key(
        "touch_timeout",
        Time(),
        "How long a signature may take, including the time to touch the token.",
        needs_restart=True,
    ),
    Key(
        "keypad_timeout",
        Time(),
        "How long entering a PIN on the token's own keypad may take.",
        needs_restart=True,
    ),
    Key(
        "workers",
        Count(_MOST_WORKERS),
        "How many processes load a module, so that signatures run in parallel: for network HSMs and "
        "SoftHSM. Smart cards need 1.",
        needs_restart=True,
    ),
)

TOKEN_KEYS = (
    Key(
        "uri",
        Text(_token_uri, what="a pkcs11: URI"),
        "The tokens that the entry applies to, by label, serial, model and manufacturer (RFC 7512). It is "
        "required; the first entry that matches applies.",
        sample='"pkcs11:token=work"',
    ),
    Key(
        "module",
        Text(absolute_path, what="a path"),
        "The PKCS#11 module to serve the token through, without ssh-add; the entry applies to no other.",
        sample='"/usr/lib/softhsm/libsofthsm2.so"',
    ),
    Key(
        "pin_source",
        Text(parse_pin_source, _source_text),
        'Where the PIN comes from: "prompt" asks you, "file:/path" is a file that only you can read, '
        '"credential:NAME" a systemd credential of the agent\'s service.',
    ),
    Key(
        "keys",
        ListOf(Text(_key_choice, what="a choice of keys")),
        "The keys to offer, in this order: URIs (pkcs11:id=%01), fingerprints (SHA256:...), and "
        "patterns for labels.",
    ),
    Key("confirm", Confirmation(), "As above, for this token.", inherits="confirm"),
    Key(
        "comment",
        Text(_comment),
        "The comment of the keys; {label}, {id}, {token}, {serial}, {manufacturer} and {model} are replaced.",
    ),
    Key(
        "lifetime",
        Time(never=True, forever=0, zero=True),
        "The lifetime of the keys without ssh-add -t; overrides the agent's -t.",
        inherits="default_lifetime",
    ),
    Key(
        "pin_time_to_live",
        Time(never=True, forever=0),
        "As above, for this token.",
        inherits="pin_time_to_live",
    ),
    Key("pin_idle_time", Time(never=True, forever=0), "As above, for this token.", inherits="pin_idle_time"),
    Key("forget_pin_on", _FORGET_ON, "As above, for this token.", inherits="forget_pin_on"),
    Key(
        "workers",
        Count(_MOST_WORKERS),
        "As above, for the module of this token.",
        inherits="workers",
        needs_restart=True,
    ),
)
