"""The tables of the configuration file that may be repeated: `[[token]]`, `[[key]]`, `[[ca]]` and so on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from replug.agent.config import ca_keys, certificate_keys, key_rule, key_rule_keys, socket_keys
from replug.agent.config.ca_entry import CaEntry
from replug.agent.config.certificate_rule import MOST_RULES, CertificateRule
from replug.agent.config.keys import GLOBAL_KEYS, TOKEN_KEYS, Key
from replug.agent.config.model import Config, TokenEntry
from replug.agent.config.socket_entry import MOST_SOCKETS, SocketEntry


@dataclass(frozen=True)
class Table:
    """A table: its name, the field of `Config` with its entries, their class and their keys."""

    name: str
    field: str
    entry: type[Any]
    keys: tuple[Key, ...]
    meaning: str
    """A sentence or two for the example."""
    contradictions: Callable[[Any], Iterable[tuple[str, str]]] = lambda _: ()
    """What in an entry can never apply: the name of a key, and why."""
    most: int = 256
    """Entries: each is compared with each other one."""


TOKENS = Table(
    "token",
    "tokens",
    TokenEntry,
    TOKEN_KEYS,
    "Settings of single tokens: one [[token]] for each. Global keys must be above the first table.",
)
KEYS = Table(
    "key",
    "key_rules",
    key_rule.KeyRule,
    key_rule_keys.KEY_RULE_KEYS,
    "Which keys are for which hosts: one [[key]] for each group of keys, on tokens, in memory or elsewhere.",
    key_rule_keys.contradictions,
    key_rule.MOST_RULES,
)
CAS = Table(
    "ca",
    "cas",
    CaEntry,
    ca_keys.CA_KEYS,
    "CA keys on tokens: one [[ca]] for each. The key signs certificates within these rules and nothing "
    "else, and none over a forwarded connection.",
    ca_keys.contradictions,
)
CERTIFICATES = Table(
    "certificate",
    "certificate_rules",
    CertificateRule,
    certificate_keys.CERTIFICATE_KEYS,
    "Certificates that a CA key signs when ssh logs in: one [[certificate]] for each group of hosts.",
    certificate_keys.contradictions,
    MOST_RULES,
)
SOCKETS = Table(
    "socket",
    "sockets",
    SocketEntry,
    socket_keys.SOCKET_KEYS,
    "More sockets, each for some of the keys: one [[socket]] for each container, forwarding or account. "
    "Clients there list these keys and sign with them, and can do nothing else.",
    socket_keys.contradictions,
    MOST_SOCKETS,
)
TABLES = (TOKENS, KEYS, CAS, CERTIFICATES, SOCKETS)


def default_of(key: Key) -> str:
    """The default of a key as TOML; empty if there is none."""
    if key.sample:
        return ""
    if key.inherits is not None:
        return default_of(next(above for above in GLOBAL_KEYS if above.name == key.inherits))
    owner = next((table.entry for table in TABLES if key in table.keys), Config)
    return key.kind.write(getattr(owner, key.name))
