"""Purposes in words: complete, the agent's own knowledge first, and nothing that a client can push away."""

from __future__ import annotations

from dataclasses import replace

import pytest
from doubles.session_hosts import certificate, sessions
from doubles.stand_ins import Key
from hypothesis import given
from hypothesis import strategies as st

from replug.protocol.certificates import Certificate, CertificateType
from replug.protocol.keys import fingerprint
from replug.protocol.known_hosts import KnownAs
from replug.protocol.purpose import CertificateToSign, Host, Purpose, purpose_of
from replug.protocol.purpose_text import in_lines, in_one_line
from replug.protocol.sessions import Sessions
from replug.protocol.signed_data import HostKeyProof, SshSignature
from replug.protocol.userauth import UserauthRequest
from replug.protocol.wire import Writer

KEY, SERVER, BASTION, CA = Key(), Key(), Key(), Key()
HERE = Sessions()
AT_SERVER = sessions((SERVER, False))
OVER_BASTION = sessions((BASTION, True), (SERVER, False))
FORWARDED = sessions((BASTION, True))
AT, BY = f"server ({fingerprint(SERVER.blob)})", f"bastion ({fingerprint(BASTION.blob)})"
OVER = f"for a program on {BY}, over the forwarded agent"
NAMES: dict[bytes, KnownAs | None] = {
    SERVER.blob: KnownAs(("server",)),
    BASTION.blob: KnownAs(("bastion",)),
}
NOW = 1_800_000_000  # 2027-01-15 08:00:00 UTC
GIT = SshSignature(b"git", "sha512", bytes(64)).encode()


def purpose(data: bytes, connection: Sessions = HERE, key: Key = KEY) -> Purpose:
    hosts = tuple(Host(bound.host_key, NAMES.get(bound.host_key)) for bound in connection.bindings)
    return purpose_of(data, key.blob, connection, hosts, NOW)


def text(data: bytes, connection: Sessions = HERE, key: Key = KEY) -> str:
    return in_one_line(purpose(data, connection, key))


def login(user: str = "root", session: int = 0) -> bytes:
    number = b"session %d" % session
    return UserauthRequest(number, user, "ssh-ed25519", KEY.blob, SERVER.blob).encode()


def body(*principals: str, **changes: object) -> bytes:
    given = {"valid_after": 0, "valid_before": NOW + 600, "type": CertificateType.USER, **changes}
    return Certificate.decode(certificate(KEY, CA, *principals, **given)).body()


def test_a_certificate_that_the_agent_wants() -> None:
    """It is said for which host; a client that asks for one cannot say that."""
    asked = purpose(body("root"), key=CA)
    assert isinstance(asked.signed, CertificateToSign)
    host = Host(SERVER.blob, NAMES[SERVER.blob])
    wanted = replace(asked, signed=replace(asked.signed, login_at=host))
    head, first, *_ = in_lines(wanted)
    assert head.startswith(f"user certificate for a login at {AT}, valid until ")
    assert first == "for root"
    assert in_lines(asked)[0].startswith("user certificate, valid until ")


def test_logins() -> None:
    assert text(login(), AT_SERVER) == f"login at {AT}, as root"
    assert in_lines(purpose(login(session=1), OVER_BASTION)) == [f"login at {AT}", OVER, "as root"]


def test_a_login_at_an_unknown_host() -> None:
    claim = f"as root, claims to be at the host with key {fingerprint(SERVER.blob)}"
    assert text(login()) == (f"login at an UNKNOWN host: the connection is bound to no session, {claim}")
    assert text(login(), OVER_BASTION) == (
        "login at an UNKNOWN host: it is in another session than the one the connection is bound to, "
        f"{OVER}, {claim}"
    )
    failed = text(login(), Sessions((), bind_attempted=True))
    assert ", through a connection whose sessions could not be verified, as root" in failed


def test_a_login_and_a_git_signature_over_a_forwarded_agent_differ() -> None:
    """The attack: a host's root has `ssh-keygen -Y sign` use the agent forwarded to it."""
    assert text(GIT, FORWARDED) == f"SSHSIG signature, not a login, {OVER}, namespace git"


def test_a_host_cannot_name_another_as_the_one_that_asks() -> None:
    """The attack: it binds a hop of its own and then a third host's session."""
    hop = Key()
    connection = sessions((BASTION, True), (hop, True), (SERVER, False))
    hops = f"the host with key {fingerprint(hop.blob)}"
    assert text(GIT, connection) == (
        f"SSHSIG signature, not a login, {OVER}, which reports further hops: {hops}, namespace git"
    )


def test_blanks_in_a_user_name_push_nothing_away() -> None:
    """The attack: 105 blanks that look like nothing, in a user name."""
    for blank in "\u2800\u3164\u115f \u00a0":
        shown = text(login(blank * 105), AT_SERVER)
        assert shown.startswith(f"login at {AT}, as ")
        assert shown.endswith('..." (105 characters)')
        assert len(shown) < 220
        assert shown.isascii()


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_no_user_name_reads_like_our_words(user: str) -> None:
    shown = text(login(user), AT_SERVER)
    start = f"login at {AT}, as "
    assert shown.startswith(start)
    rest = shown.removeprefix(start)
    assert " " not in rest or rest.startswith('"')


@pytest.mark.parametrize(
    ("known", "shown"),
    [
        (None, "the host with key {}"),
        (KnownAs(), "the host with key {} (not in known_hosts)"),
        (KnownAs(hashed=True), "the host with key {} (in known_hosts under a hashed name)"),
        (KnownAs(("a", "[b]:22"), hashed=True), "a,[b]:22 ({})"),
        (KnownAs(("a", "b", "c", "d", "e")), "a,b,c and 2 more ({})"),
        (KnownAs(("a", "b", "c"), 61), "a,b,c and 61 more ({})"),
        (KnownAs(("a" * 150, "b" * 20, "c"), 4), "a" * 150 + " and 6 more ({})"),
        (KnownAs(("a" * 150, "b" * 20, "c")), "a" * 150 + " and 2 more ({})"),
        (KnownAs(("a" * 253, "b")), "a" * 253 + " and 1 more ({})"),
        (KnownAs(("a",), revoked=True), "a (REVOKED {})"),
        (KnownAs(revoked=True), "the host with REVOKED key {} (not in known_hosts)"),
        (KnownAs(("a b",)), '"a b" ({})'),
    ],
)
def test_hosts(known: KnownAs | None, shown: str) -> None:
    found = purpose_of(login(), KEY.blob, AT_SERVER, (Host(SERVER.blob, known),), NOW)
    assert in_lines(found)[0] == "login at " + shown.format(fingerprint(SERVER.blob))


def test_a_certificate() -> None:
    options = (("force-command", bytes(Writer().string(b"/bin/ls -l"))), ("verify-required", b""))
    data = body("root", "www", key_id=b"alice@bastion", serial=7, critical_options=options)
    assert in_lines(purpose(data, FORWARDED, CA)) == [
        "user certificate, valid until 2027-01-15 08:10:00 UTC (10 minutes from now)",
        OVER,
        "for root,www",
        "key id alice@bastion",
        "serial 7",
        'only with force-command "/bin/ls -l",verify-required',
        f"certifies ssh-ed25519 key {fingerprint(KEY.blob)}",
    ]


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"valid_before": 2**64 - 1}, "user certificate for ANY USER, valid FOREVER"),
        (
            {"valid_before": NOW + 3650 * 86_400},
            "user certificate for ANY USER, valid until 2037-01-12 08:00:00 UTC (3650 days from now)",
        ),
        (
            {"valid_after": NOW + 60},
            "user certificate for ANY USER, valid from 2027-01-15 08:01:00 UTC until 2027-01-15 08:10:00 UTC "
            "(10 minutes from now)",
        ),
        (
            {"valid_before": NOW - 5},
            "user certificate for ANY USER, valid until 2027-01-15 07:59:55 UTC (0 seconds from now)",
        ),
        (
            {"type": CertificateType.HOST, "valid_before": 2**64 - 2, "valid_after": 2**63},
            f"host certificate for ANY HOST, valid from after the year 9999 until after the year 9999 "
            f"({(2**64 - 2 - NOW) // 86_400} days from now)",
        ),
    ],
)
def test_certificates_for_anybody_and_for_how_long(changes: dict[str, object], shown: str) -> None:
    assert in_lines(purpose(body(**changes), HERE, CA))[0] == shown


def test_principals_are_bounded() -> None:
    shown = text(body(*[f"user{number}" for number in range(200)], key_id=b"\xe2\xa0\x80" * 200), HERE, CA)
    assert "for user0,user1,user2 and 197 more, " in shown
    assert '..." (200 characters), serial ' in shown


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (HostKeyProof(b"session", KEY.blob).encode(), "proof that a server holds this key as a host key"),
        (bytes(32), "something that is not a login: 32 bytes of no known form"),
        (bytes(65), "data of 65 bytes that is no login, certificate or signature of a known form"),
        (login() + b"\0", 'data of 236 bytes of no known form, starts like "a login (1 bytes too many)"'),
    ],
    ids=["proof", "small", "large", "login"],
)
def test_the_rest(data: bytes, shown: str) -> None:
    assert text(data) == shown.replace("236", str(len(data)))


@given(st.binary(max_size=200))
def test_everything_has_words(data: bytes) -> None:
    for candidate in (data, b"SSHSIG" + data, login() + data, body("x") + data):
        shown = text(candidate, OVER_BASTION)
        assert shown.isascii()
        assert shown.isprintable()
        assert len(shown) < 1000


def test_options_of_a_form_of_their_own() -> None:
    made = Certificate.decode_body(body("root"))
    shown = text(replace(made, critical_options=(("x@y", b"\xff\n"),)).body(), HERE, CA)
    assert r'only with x@y "\xff\x0a"' in shown
