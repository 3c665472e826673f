"""The keys of a `[[key]]`, and what cannot be meant by them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from replug.agent.config.host_match import are_left_out, check_host
from replug.agent.config.key_match import check_match
from replug.agent.config.key_rule import KeyRule
from replug.agent.config.keys import Key
from replug.agent.config.kinds import Confirmation, ListOf, Text, Time, YesOrNo

_LONGEST = 255  # characters of a repository's path
_ADDRESS = re.compile(r"\w[\w+.-]*://|[^/@]+@[^/:]+:")
"""`ssh://host/path`, `git@host:path`."""


def _repository(text: str) -> str:
    path = text.removeprefix("!").strip("/")
    if not path or not path.isprintable() or len(path) > _LONGEST:
        raise ValueError('must be the path of a repository, or a pattern such as "work-org/*"')
    if _ADDRESS.match(path):
        raise ValueError('is an address: name the path alone, such as "work-org/*", and the host in hosts')
    return text


KEY_RULE_KEYS = (
    Key(
        "match",
        ListOf(Text(check_match, what="a pattern"), alone=True, filled=True),
        "The keys, wherever they are: patterns for their comments and fingerprints (SHA256:...), as "
        "ssh-add -l shows both. Required.",
        sample='["work*"]',
    ),
    Key(
        "hosts",
        ListOf(Text(check_host, what="a host"), alone=True),
        "The hosts where the keys are offered first, and not at others: patterns for names in known_hosts or "
        "in the hosts' certificates, !patterns for those that do not, and fingerprints of host keys.",
    ),
    Key(
        "repositories",
        ListOf(Text(_repository, what="a repository"), alone=True),
        'The git repositories that the keys are for, such as "work-org/*": they are offered first where git '
        "asks for one of these, and otherwise not.",
    ),
    Key(
        "restrict",
        YesOrNo(),
        "Whether the keys sign logins at hosts and nothing else, as with ssh-add -h; clients that do not "
        "prove which host they log in at cannot use them.",
    ),
    Key(
        "confirm",
        Confirmation(),
        "When each use of the keys has to be confirmed, besides what other settings say.",
    ),
    Key(
        "confirm_for",
        Time(zero=True),
        "How long a yes is remembered for these keys.",
        inherits="confirm_for",
    ),
)


def contradictions(rule: KeyRule) -> Iterator[tuple[str, str]]:
    """What in `rule` can never apply: the name of a key, and why."""
    if rule.hosts and are_left_out(rule.hosts):
        yield "hosts", "only says which hosts are left out"
    if rule.repositories and are_left_out(rule.repositories):
        yield "repositories", "only says which repositories are left out"
    if rule.restrict and not rule.hosts:
        yield "restrict", "needs hosts: the keys would sign nothing"
