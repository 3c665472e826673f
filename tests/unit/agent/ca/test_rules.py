"""What a `[[ca]]` allows, and the words in which it forbids."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from doubles.certificate_bodies import host_certificate, option, user_certificate
from doubles.protocol_strategies import bounded, certificates
from doubles.stand_ins import Key
from hypothesis import given
from hypothesis import strategies as st

from replug.agent.ca.rules import CLOCK_SKEW, needs_user_name, why_not
from replug.agent.config.ca_entry import ANY_NAME, CRITICAL_OPTIONS, SSH_KEYGEN_EXTENSIONS, CaEntry
from replug.protocol.certificates import Certificate, CertificateType
from replug.protocol.keys import fingerprint
from replug.protocol.purpose import FOREVER, CertificateToSign, purpose_of
from replug.protocol.sessions import Sessions
from replug.protocol.wire import Writer

CA = Key()
NOW = 1_800_000_000
RULE = CaEntry(fingerprint(CA.blob), 600, ("root", "{user}@web"))
HOSTS = replace(RULE, types=("host",), principals=("*",))
PTY = ("permit-pty", b"")


def said(rule: CaEntry, made: Certificate, user: str = "root") -> str:
    return why_not(rule, CertificateToSign(made, NOW), user)


def user(*principals: str, **changes: Any) -> Certificate:
    times = {"valid_after": NOW - 60, "valid_before": NOW + 600}
    return user_certificate(CA, *(principals or ("root",)), **times | changes)


def host(*names: str, **changes: Any) -> Certificate:
    times = {"valid_after": NOW - 60, "valid_before": NOW + 600}
    return host_certificate(CA, *(names or ("web",)), **times | changes)


@pytest.mark.parametrize(
    ("rule", "made"),
    [
        (RULE, user()),
        (RULE, user("root", "alice@web")),
        (RULE, user(valid_after=0)),  # -V always:+10m
        (RULE, user(valid_before=NOW + 600 + CLOCK_SKEW)),
        (RULE, user(extensions=())),
        (RULE, user(critical_options=(option("source-address", "10.0.0.1/32"),))),
        (RULE, user(critical_options=(("verify-required", b""),))),
        (replace(RULE, principals=("*",)), user("anybody", "*")),
        (replace(RULE, extensions=("a@example.com",)), user(extensions=(("a@example.com", b"data"),))),
        (
            replace(RULE, required_options=("force-command",)),
            user(critical_options=(option("force-command", "true"),)),
        ),
        (HOSTS, host("*.example.com")),
        (replace(HOSTS, types=("user", "host")), host()),
        (replace(HOSTS, types=("user", "host")), user()),
        (replace(HOSTS, principals=("web",)), host("web")),
    ],
)
def test_what_is_allowed(rule: CaEntry, made: Certificate) -> None:
    assert said(rule, made, "alice") == ""


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (user("alice"), "principal 'alice' is not allowed for user root"),
        (user("root", "alice@web"), "principal 'alice@web' is not allowed for user root"),
        (user("Root"), "principal 'Root' is not allowed for user root"),
        (user("{user}@web"), 'principal "{user}@web" is not allowed for user root'),
        (user("root,alice"), 'principal "root,alice" is not allowed for user root'),
        (user(""), "a principal is an empty name"),
        (user("*"), "principal '*' is not allowed for user root"),
        (user(principals=()), "a certificate without principals is good for every user"),
        (user(valid_before=FOREVER), "a certificate without an end is not allowed"),
        (user(valid_before=FOREVER - 1), f"valid until {FOREVER - 1 - NOW} s from now, more than 600 s"),
        (user(valid_before=2**63), f"valid until {2**63 - NOW} s from now, more than 600 s"),
        (user(valid_before=NOW + 604800), "valid until 604800 s from now, more than 600 s"),
        (user(valid_before=NOW + 901), "valid until 901 s from now, more than 600 s"),
        # Its length is right; its end is not.
        (
            user(valid_after=NOW + 3600, valid_before=NOW + 4200),
            "valid until 4200 s from now, more than 600 s",
        ),
        (user(valid_before=NOW), "the certificate is never valid: it ends before it begins, or has ended"),
        (user(valid_before=0), "the certificate is never valid: it ends before it begins, or has ended"),
        (
            user(valid_after=NOW + 600),
            "the certificate is never valid: it ends before it begins, or has ended",
        ),
        (
            user(valid_after=2**64 - 60),
            "the certificate is never valid: it ends before it begins, or has ended",
        ),
        (host(), "a host certificate is not allowed"),
        (user(extensions=(("foo@example.com", b""),)), "extension 'foo@example.com' is not allowed"),
        (user(extensions=(("no-touch-required", b""),)), "extension 'no-touch-required' is not allowed"),
        (user(extensions=(PTY, PTY)), "extension 'permit-pty' is there twice"),
        (user(extensions=(("permit-pty", b"x"),)), "extension 'permit-pty' is malformed"),
        (user(critical_options=(("foo", b""),)), "critical option 'foo' is unknown"),
        (user(critical_options=(PTY,)), "critical option 'permit-pty' is unknown"),
        (user(critical_options=(("force-command", b""),)), "critical option 'force-command' is malformed"),
        (
            user(critical_options=(option("force-command", ""),)),
            "critical option 'force-command' is malformed",
        ),
        (
            user(critical_options=(option("force-command", "a\0b"),)),
            "critical option 'force-command' is malformed",
        ),
        (
            user(critical_options=(("source-address", bytes(Writer().text("10.0.0.1")) + b"x"),)),
            "critical option 'source-address' is malformed",
        ),
        (
            user(critical_options=(("verify-required", b"x"),)),
            "critical option 'verify-required' is malformed",
        ),
        (
            user(critical_options=(option("force-command", "a"), option("force-command", "b"))),
            "critical option 'force-command' is there twice",
        ),
        (user(nonce=b""), "the nonce is not 16 or more random bytes"),
        (user(nonce=bytes(32)), "the nonce is not 16 or more random bytes"),
        (user(nonce=b"short"), "the nonce is not 16 or more random bytes"),
        (user(reserved=b"x"), "the reserved field is not empty"),
    ],
)
def test_what_is_forbidden(made: Certificate, reason: str) -> None:
    assert said(RULE, made) == reason


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (user(), "a user certificate is not allowed"),
        (host(principals=()), "a certificate without principals is good for every host"),
        (host(extensions=(PTY,)), "a host certificate has no options or extensions, and this one has"),
        (
            host(critical_options=(option("source-address", "10.0.0.1"),)),
            "a host certificate has no options or extensions, and this one has",
        ),
    ],
)
def test_what_a_host_ca_forbids(made: Certificate, reason: str) -> None:
    assert said(HOSTS, made) == reason


def test_an_option_that_is_required() -> None:
    rule = replace(RULE, required_options=("source-address", "force-command"))
    only_one = user(critical_options=(option("source-address", "10.0.0.1"),))
    assert said(rule, user()) == "critical option 'source-address' is missing, and required"
    assert said(rule, only_one) == "critical option 'force-command' is missing, and required"


def test_the_user_is_only_named_if_the_rule_does() -> None:
    assert needs_user_name(RULE)
    plain = replace(RULE, principals=("root",))
    assert not needs_user_name(plain)
    assert said(plain, user("alice"), "") == "principal 'alice' is not allowed"


rules = st.builds(
    CaEntry,
    key=st.just(fingerprint(CA.blob)),
    max_validity=st.integers(1, 2**31),
    principals=st.sampled_from([(ANY_NAME,), ("root",)]),
    types=st.sampled_from([("user",), ("host",), ("user", "host")]),
    extensions=st.sampled_from([(), SSH_KEYGEN_EXTENSIONS]),
    required_options=st.sampled_from([(), ("source-address",)]),
)
near_ones = st.builds(
    replace,
    st.sampled_from([user(), host("root"), user(critical_options=(option("source-address", "::1"),))]),
    serial=st.integers(0, 2**64 - 1),
    valid_after=st.sampled_from([0, NOW - 1, NOW + 1, NOW + 600, FOREVER]),
    valid_before=st.one_of(st.integers(0, FOREVER), st.integers(NOW - 3, NOW + 2**31)),
    nonce=st.sampled_from([b"", bytes(16), b"x" * 16]),
    reserved=st.sampled_from([b"", b"", b"x"]),
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A body that may be sound, or has a few bytes changed, taken out or put in."""
    data = bytearray(replace(draw(near_ones | certificates), ca_key=CA.blob).body())
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(data)))
        data[place : place + draw(st.integers(0, 5))] = draw(st.binary(max_size=5))
    return bytes(data)


@bounded
@given(mutated(), rules)
def test_no_accepted_body_differs_from_what_was_parsed(data: bytes, rule: CaEntry) -> None:
    signed = purpose_of(data, CA.blob, Sessions(), (), NOW).signed
    if isinstance(signed, CertificateToSign):
        certificate = signed.certificate
        assert certificate.body() == data
        if not why_not(rule, signed, ""):
            within_the_rule(certificate, rule)


def within_the_rule(certificate: Certificate, rule: CaEntry) -> None:
    """The rule once more, written the other way round."""
    assert certificate.ca_key == CA.blob
    assert {CertificateType.USER: "user", CertificateType.HOST: "host"}[certificate.type] in rule.types
    assert certificate.principals
    assert rule.principals == (ANY_NAME,) or set(certificate.principals) == {b"root"}
    assert NOW < certificate.valid_before <= NOW + rule.max_validity + CLOCK_SKEW
    assert certificate.valid_after < certificate.valid_before
    options, extensions = dict(certificate.critical_options), dict(certificate.extensions)
    assert set(options) <= set(CRITICAL_OPTIONS)
    assert set(extensions) <= set(rule.extensions)
    assert certificate.type is CertificateType.HOST or set(rule.required_options) <= set(options)
    assert len(certificate.nonce) >= 16
    assert any(certificate.nonce)
