"""Which keys a host is listed, in which order: by rules, by what git wants, by what it has accepted."""

from __future__ import annotations

import pytest
from doubles.stand_ins import Key

from replug.agent.config.key_rule import KeyRule
from replug.agent.key_rules.about_keys import about_key
from replug.agent.key_rules.fitting import fits_of
from replug.agent.key_rules.order import FEW, Order, order
from replug.protocol.keys import fingerprint
from replug.protocol.known_hosts import KnownAs
from replug.protocol.messages import ListedIdentity
from replug.protocol.purpose import Host

SERVER = Key()
KEYS = [ListedIdentity(Key().public.encode(), f"key{number}".encode()) for number in range(8)]
PRINTS = [fingerprint(key.key_blob) for key in KEYS]
HERE, ELSEWHERE = ("server*",), ("other.example.com",)


def listed(
    rules: list[KeyRule],
    *,
    keys: int = 4,
    names: tuple[str, ...] | None = ("server",),
    repository: str | None = "",
    accepted: tuple[int, ...] = (),
    may_be_empty: bool = False,
) -> tuple[str, Order]:
    """The numbers of the keys in order."""
    host = Host(SERVER.blob, None if names is None else KnownAs(names))
    fits = fits_of(rules, host, repository)
    about = [about_key(rules, key) for key in KEYS[:keys]]
    known = [PRINTS[one] for one in accepted]
    made = order(KEYS[:keys], about, rules, fits, known, may_be_empty=may_be_empty)
    return "".join(entry.comment.decode()[3:] for entry in made.entries), made


def rule(key: str, hosts: tuple[str, ...] = (), repositories: tuple[str, ...] = ()) -> KeyRule:
    return KeyRule((key,), hosts, repositories)


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([], "0123"),
        ([rule("key3", HERE)], "3012"),
        ([rule("key2", HERE), rule("key3", HERE)], "2301"),
        ([rule("key3", HERE), rule("key2", HERE)], "2301"),
        ([rule("key3", ELSEWHERE)], "012"),
        ([rule("key3", HERE), rule("key?", ELSEWHERE)], "3"),
        ([rule("*", ELSEWHERE), rule(PRINTS[1], (fingerprint(SERVER.blob),))], "1"),
        ([rule("key3", ("*", "!server"))], "012"),
        ([KeyRule(("*",), confirm_for=600)], "0123"),
        ([rule("key3", repositories=("work-org/*",))], "012"),
    ],
)
def test_keys_for_the_host_come_first_and_those_for_others_are_left_out(
    rules: list[KeyRule], expected: str
) -> None:
    assert listed(rules)[0] == expected


@pytest.mark.parametrize("names", [None, ()])
def test_at_a_host_without_a_name_nothing_is_left_out_for_its_name(names: tuple[str, ...] | None) -> None:
    rules = [
        rule("key1", ELSEWHERE),
        rule("key2", ELSEWHERE, ("a/*",)),
        rule("key3", (fingerprint(SERVER.blob),)),
    ]
    assert listed(rules, names=names, repository="a/b")[0] == "3012"
    assert listed(rules, names=names)[0] == "301"  # it is not for what is not git, whatever the host


@pytest.mark.parametrize(
    ("repository", "expected"),
    [
        ("/work-org/repo.git", "3201"),
        ("work-org/repo", "3201"),
        ("me/dots.git", "201"),
        ("", "201"),
        (None, "2013"),
    ],
)
def test_a_repository_says_more_than_a_host(repository: str | None, expected: str) -> None:
    rules = [rule("key2", HERE), rule("key3", HERE, ("work-org/*",))]
    assert listed(rules, repository=repository)[0] == expected


def test_rules_that_leave_nothing_leave_everything_unless_there_is_a_certificate() -> None:
    rules = [rule("*", ELSEWHERE)]
    said, made = listed(rules)
    assert (said, made.none_fits) == ("0123", True)
    said, made = listed(rules, may_be_empty=True)
    assert (said, made.none_fits) == ("", False)
    assert not listed([], keys=0)[1].none_fits


@pytest.mark.parametrize(
    ("keys", "accepted", "expected"),
    [
        (8, (7,), "70123456"),
        (8, (7, 5), "57012346"),
        (8, (7, 4), "01234567"),
        (8, (0,), "01234567"),
        (FEW, (4,), "01234"),
        (FEW + 1, (5,), "501234"),
    ],
)
def test_what_was_accepted_comes_first_where_no_server_would_hear_it(
    keys: int, accepted: tuple[int, ...], expected: str
) -> None:
    assert listed([], keys=keys, accepted=accepted)[0] == expected


def test_rules_count_for_more_than_what_was_accepted() -> None:
    left_out = [rule("key7", ELSEWHERE)]
    assert listed(left_out, keys=8, accepted=(7,))[0] == "0123456"
    assert listed([rule("key7", HERE)], keys=8, accepted=(7, 6))[0] == "70123456"
