"""Which `[[certificate]]` is for a host, and what an unsigned certificate of it says."""

from __future__ import annotations

import time

import pytest
from doubles.stand_ins import Key

from replug.agent.ca.certificate_rules import ca_keys, rule_for
from replug.agent.ca.unsigned import Serials, unsigned_certificate
from replug.agent.config.certificate_rule import CertificateRule
from replug.agent.config.host_match import exact_names
from replug.protocol.certificates import CertificateType
from replug.protocol.keys import fingerprint
from replug.protocol.known_hosts import KnownAs
from replug.protocol.purpose import Host

CA, KEY, SERVER = Key(), Key(), Key()
CA_PRINT, SERVER_PRINT = fingerprint(CA.blob), fingerprint(SERVER.blob)


def rule(*hosts: str, **settings: object) -> CertificateRule:
    return CertificateRule((CA_PRINT,), hosts, ("root", "{user}"), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("hosts", "names", "fits"),
    [
        (("server",), ("server",), True),
        (("server",), ("server2",), False),
        (("server",), ("other", "server"), True),
        (("*.example.com",), ("Server.Example.COM",), True),
        (("*.example.com",), ("example.com",), False),
        (("10.10.2.*",), ("10.10.2.7",), True),
        (("server",), ("[server]:2222",), True),
        (("[server]:2222",), ("[server]:2222",), True),
        (("[server]:22",), ("[server]:2222",), False),
        (("*", "!server"), ("server",), False),
        (("!server", "*"), ("other", "server"), False),
        (("*", "!server"), ("other",), True),
        (("*",), (), False),
        ((SERVER_PRINT,), (), True),
        ((SERVER_PRINT, "!server"), ("server",), False),
        (("*", f"!{SERVER_PRINT}"), ("server",), False),
        (("*", f"!{fingerprint(KEY.blob)}"), ("server",), True),
        ((fingerprint(KEY.blob),), ("server",), False),
    ],
)
def test_hosts(hosts: tuple[str, ...], names: tuple[str, ...], fits: bool) -> None:
    host = Host(SERVER.blob, KnownAs(names))
    assert (rule_for([rule(*hosts)], host) is not None) == fits


def test_the_first_rule_applies_and_none_to_a_revoked_or_unknown_host() -> None:
    one, other = rule("a*"), rule("*", lifetime=60)
    assert rule_for([one, other], Host(SERVER.blob, KnownAs(("abc",)))) is one
    assert rule_for([one, other], Host(SERVER.blob, KnownAs(("b",)))) is other
    assert rule_for([other, rule(SERVER_PRINT)], Host(SERVER.blob, KnownAs(("b",), revoked=True))) is None
    assert rule_for([one, other], Host(SERVER.blob, None)) is None
    by_key = rule(SERVER_PRINT)
    assert rule_for([other, by_key], Host(SERVER.blob, None)) is by_key


def test_names_and_ca_keys() -> None:
    rules = [rule("server", "*.example.com", "!other", SERVER_PRINT), rule("server", "a?", "10.0.0.1")]
    assert exact_names([*rules[0].hosts, *rules[1].hosts]) == ["server", "other", "10.0.0.1"]
    assert CA_PRINT in ca_keys(rules)
    assert SERVER_PRINT not in ca_keys(rules)
    assert CA_PRINT not in ca_keys([])


def test_an_unsigned_certificate() -> None:
    settings = {"force_command": "id", "source_address": "10.0.0.0/8", "extensions": ("permit-pty",)}
    names = {"user": "alice", "machine": "desk"}
    made = unsigned_certificate(rule("*", **settings), KEY.blob, CA.blob, 7, names)
    assert (made.type, made.serial, made.key_id) == (CertificateType.USER, 7, b"alice@desk")
    assert made.principals == (b"root", b"alice")
    assert made.valid_before - made.valid_after == 660
    assert 0 <= time.time() + 600 - made.valid_before < 20
    assert made.critical_options == (
        ("force-command", b"\0\0\0\2id"),
        ("source-address", b"\0\0\0\x0a10.0.0.0/8"),
    )
    assert made.extensions == (("permit-pty", b""),)
    assert (made.key, made.ca_key, len(made.nonce)) == (KEY.public, CA.blob, 32)
    assert made.nonce != unsigned_certificate(rule("*"), KEY.blob, CA.blob, 7, names).nonce


def test_serials_grow_and_can_be_read() -> None:
    serials = Serials()
    moment = 1_795_965_547.25  # 2026-11-29 15:19:07 UTC
    assert [serials.next(moment) for _ in range(2)] == [261129151907250, 261129151907251]
    assert serials.next(moment - 60) == 261129151907252
    assert serials.next(moment + 1) == 261129151908250
