"""session-bind and destinations: which host keys are believed, where a restricted key is shown and used."""

from __future__ import annotations

import base64
import subprocess
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from doubles.session_hosts import (
    HERE,
    bind_of,
    certificate,
    hop,
    leave,
    sessions,
    signature,
    sk_bind,
    sk_certificate,
)
from doubles.stand_ins import Key

from replug.protocol.certificates import Certificate, CertificateType
from replug.protocol.constraints import DestinationConstraint, Hop, HopKey
from replug.protocol.decoding import decode_request
from replug.protocol.extensions import SessionBind
from replug.protocol.keys import fingerprint
from replug.protocol.messages import Extension
from replug.protocol.sessions import (
    BindError,
    Binding,
    DestinationError,
    Sessions,
    SignDestination,
    add_binding,
    check_sign,
    describe_destination,
    permitted,
    verify_bind,
)
from replug.protocol.userauth import UserauthRequest

RECORDED = Path(__file__).parents[2] / "messages" / "requests"
BINDS = sorted(RECORDED.glob("extension-session-bind-*.bin"))
CA, OTHER_CA = Key(), Key()
BASTION, SERVER, THIRD, STRANGER, USER_KEY = (Key() for _ in range(5))
SESSION = b"session identifier"


# Believing a host key.


KINDS = ("ed25519", "p256", "p384", "p521", "rsa")


@pytest.mark.parametrize("kind", KINDS)
def test_a_host_key_vouches_for_its_session(kind: str) -> None:
    key = Key(kind=kind)
    good = bind_of(key, SESSION, forwarding=True)
    assert verify_bind(good) == Binding(key.blob, SESSION, True)
    for bad in (
        replace(good, session_id=b"other"),
        replace(good, host_key=Key(kind=kind).blob),
        replace(good, signature=good.signature[:-1]),
        replace(good, signature=good.signature[:-1] + bytes((good.signature[-1] ^ 1,))),
    ):
        with pytest.raises(BindError):
            verify_bind(bad)


@pytest.mark.parametrize("ca_kind", KINDS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_host_certificate_of_any_kind_vouches_by_a_ca_of_any_kind(kind: str, ca_kind: str) -> None:
    key, ca = Key(kind=kind), Key(kind=ca_kind)
    good = bind_of(key, SESSION, blob=certificate(key, ca, "server"))
    assert permitted([leave(HERE, hop("server", ca=ca))], Sessions((verify_bind(good),), True))
    forged = replace(Certificate.decode(good.host_key), ca_key=Key(kind=ca_kind).blob).encode()
    with pytest.raises(BindError):
        verify_bind(replace(good, host_key=forged))


@pytest.mark.parametrize("name", ["ssh-rsa", "rsa-sha2-256", "rsa-sha2-512"])
def test_a_host_may_sign_with_any_of_rsas_hashes(name: str) -> None:
    """With SHA-1 too: old hosts have nothing else."""
    verify_bind(bind_of(Key(kind="rsa"), SESSION, rsa_name=name))


def test_a_signature_by_another_curve_is_none() -> None:
    good = bind_of(Key(kind="p384"), SESSION)
    renamed = good.signature.replace(b"nistp384", b"nistp256")
    with pytest.raises(BindError):
        verify_bind(replace(good, signature=renamed))


@pytest.mark.parametrize("kind", ["ed25519", "p256"])
def test_a_host_key_in_an_authenticator(kind: str) -> None:
    key = Key(kind=kind)
    good = sk_bind(key, SESSION)
    assert verify_bind(good).host_key == good.host_key
    for bad in (
        SessionBind(good.host_key, b"other", good.signature, False),
        SessionBind(good.host_key, SESSION, good.signature[:-1], False),
        SessionBind(good.host_key, SESSION, good.signature[:-1] + b"\0", False),
        SessionBind(sk_bind(key, SESSION, "ssh:other").host_key, SESSION, good.signature, False),
        SessionBind(good.host_key, SESSION, signature(key, SESSION), False),
    ):
        with pytest.raises(BindError):
            verify_bind(bad)


@pytest.mark.parametrize("path", BINDS, ids=[path.stem for path in BINDS])
def test_recorded_binds_of_the_real_ssh_hold(path: Path) -> None:
    request = decode_request(path.read_bytes())
    assert isinstance(request, Extension)
    bind = SessionBind.decode(request.contents)
    assert verify_bind(bind) == Binding(bind.host_key, bind.session_id, bind.is_forwarding)


@pytest.mark.parametrize(
    "bind",
    [
        SessionBind(SERVER.blob, SESSION, signature(STRANGER, SESSION), False),
        SessionBind(SERVER.blob, SESSION, signature(SERVER, b"another session"), False),
        SessionBind(SERVER.blob, SESSION, b"", False),
        SessionBind(b"no key", SESSION, signature(SERVER, SESSION), False),
        SessionBind(b"", SESSION, signature(SERVER, SESSION), False),
    ],
    ids=["another key's", "another session's", "no signature", "no key", "nothing"],
)
def test_what_does_not_vouch(bind: SessionBind) -> None:
    with pytest.raises(BindError, match="does not prove"):
        verify_bind(bind)


def test_a_host_certificate_vouches_if_its_ca_signed_it() -> None:
    blob = certificate(SERVER, CA, "server")
    assert verify_bind(bind_of(SERVER, SESSION, blob=blob)).host_key == blob
    with pytest.raises(BindError):
        verify_bind(bind_of(STRANGER, SESSION, blob=blob))
    forged = Certificate.decode(blob).encode()[:-1] + bytes([blob[-1] ^ 1])
    with pytest.raises(BindError):
        verify_bind(bind_of(SERVER, SESSION, blob=forged))


# Recording binds.


def binding(key: Key, session: bytes, forwarding: bool) -> Binding:
    return Binding(key.blob, session, forwarding)


def test_binds_are_recorded_in_their_order_and_once() -> None:
    first, second = binding(BASTION, b"1", True), binding(SERVER, b"2", True)
    bindings = add_binding((first,), second)
    assert bindings == (first, second)
    assert add_binding(bindings, first) == bindings
    # The same host again, in another session.
    assert add_binding(bindings, binding(BASTION, b"3", False))[2].session_id == b"3"


def test_a_session_belongs_to_one_host_key() -> None:
    with pytest.raises(BindError, match="another host key"):
        add_binding((binding(BASTION, b"1", True),), binding(SERVER, b"1", True))


def test_nothing_follows_a_login() -> None:
    """Not even the same bind again [process_ext_session_bind]."""
    login = binding(SERVER, b"1", False)
    for new in (login, binding(SERVER, b"2", True)):
        with pytest.raises(BindError, match="already bound to a login"):
            add_binding((login,), new)


def test_sixteen_binds_are_the_most() -> None:
    bindings: tuple[Binding, ...] = ()
    for number in range(16):
        bindings = add_binding(bindings, binding(SERVER, b"%d" % number, True))
    assert add_binding(bindings, bindings[15]) == bindings
    with pytest.raises(BindError, match="16"):
        add_binding(bindings, binding(SERVER, b"16", True))


# Where a key is shown and may be used: constraints as `ssh-add -h` makes them.

TO_SERVER = leave(HERE, hop("server", SERVER))
TO_BASTION = leave(HERE, hop("bastion", BASTION))
BASTION_TO_SERVER = leave(hop("bastion", BASTION), hop("server", SERVER, user="al*"))
SERVER_TO_THIRD = leave(hop("server", SERVER), hop("third", THIRD))

CASES: dict[str, tuple[list[DestinationConstraint], Sessions, bool, bool]] = {
    # name: constraints, sessions, shown, may sign as "alice"
    "unrestricted, unbound": ([], Sessions(), True, True),
    "unrestricted, bind failed": ([], Sessions((), True), True, True),
    "restricted, unbound": ([TO_SERVER], Sessions(), True, True),  # check_sign refuses before it asks
    "restricted, bind failed": ([TO_SERVER], Sessions((), True), False, False),
    "at the right host": ([TO_SERVER], sessions((SERVER, False)), True, True),
    "at another host": ([TO_SERVER], sessions((STRANGER, False)), False, False),
    "forwarded to the right host": ([TO_SERVER], sessions((SERVER, True)), False, False),
    "forwarded to a hop": (
        [TO_BASTION, BASTION_TO_SERVER],
        sessions((BASTION, True)),
        True,
        False,
    ),
    "beyond it": ([TO_BASTION, BASTION_TO_SERVER], sessions((BASTION, True), (SERVER, False)), True, True),
    "beyond it, not over it": ([TO_BASTION, BASTION_TO_SERVER], sessions((SERVER, False)), False, False),
    "over another host": (
        [TO_BASTION, BASTION_TO_SERVER],
        sessions((STRANGER, True), (SERVER, False)),
        False,
        False,
    ),
    "over a host that a login was bound to": (
        [TO_BASTION, BASTION_TO_SERVER],
        sessions((BASTION, False), (SERVER, False)),
        False,
        False,
    ),
    "three hops": (
        [TO_BASTION, BASTION_TO_SERVER, SERVER_TO_THIRD],
        sessions((BASTION, True), (SERVER, True), (THIRD, False)),
        True,
        True,
    ),
    "three hops, the middle one not permitted": (
        [TO_BASTION, SERVER_TO_THIRD],
        sessions((BASTION, True), (SERVER, True), (THIRD, False)),
        False,
        False,
    ),
    "forwarded to the last hop": (
        [TO_BASTION, BASTION_TO_SERVER],
        sessions((BASTION, True), (SERVER, True)),
        False,
        False,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_where_a_key_is_shown_and_used(case: str) -> None:
    constraints, bound, shown, signs = CASES[case]
    assert permitted(constraints, bound) is shown
    assert permitted(constraints, bound, "alice") is signs


def test_the_user_counts_at_the_last_hop_and_for_signing_only() -> None:
    constraints = [TO_BASTION, BASTION_TO_SERVER]
    bound = sessions((BASTION, True), (SERVER, False))
    assert permitted(constraints, bound)
    assert permitted(constraints, bound, "albert")
    assert not permitted(constraints, bound, "root")
    assert not permitted(
        [leave(HERE, hop("server", SERVER, user="alice"))], sessions((SERVER, False)), "ALICE"
    )


CERTIFICATES: dict[str, tuple[dict[str, Any], bool]] = {
    "as it should be": ({}, True),
    "one of its names": ({"names": ["other", "server.example.org"]}, True),
    "a pattern among its names": ({"names": ["other", "*.example.org"]}, True),
    "a pattern of another kind": ({"names": ["other", "ser?er.*.org"]}, True),
    "every name": ({"names": ["*"]}, True),
    "patterns for others": ({"names": ["*.org.", "*z*", "server", "server.?"]}, False),
    "more patterns than count": ({"names": ["a?"] * 4 + ["s*g"]}, False),
    "many patterns for endings": ({"names": [f"*.{n}" for n in range(200)] + ["*.org"]}, True),
    "another name": ({"names": ["other"]}, False),
    "a name in other case": ({"names": ["SERVER.example.org"]}, False),
    "no names": ({"names": []}, False),
    "a user's": ({"type": CertificateType.USER}, False),
    "expired": ({"valid_before": 1}, False),
    "not yet valid": ({"valid_after": 2**40, "valid_before": 2**41}, False),
    "a critical option": ({"critical_options": (("force-command", b""),)}, False),
    "an extension": ({"extensions": (("permit-pty", b""),)}, True),
    "another CA's": ({"ca": OTHER_CA}, False),
}


@pytest.mark.parametrize("case", CERTIFICATES)
def test_host_certificates(case: str) -> None:
    changes, fits = CERTIFICATES[case]
    changes = {"names": ["server.example.org"], "ca": CA} | changes
    blob = certificate(SERVER, changes.pop("ca"), *changes.pop("names"), **changes)
    constraint = leave(HERE, hop("server.example.org", ca=CA))
    assert permitted([constraint], sessions((blob, False)), "alice") is fits


def test_a_host_certificate_is_read_once_however_many_constraints(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message holds a thousand constraints, and a certificate that takes half a millisecond to read."""
    read = []
    decode = Certificate.decode
    monkeypatch.setattr(Certificate, "decode", lambda blob: read.append(blob) or decode(blob))
    bound = sessions((certificate(SERVER, CA, "a.example.org", "server"), False))
    constraints = [leave(HERE, hop(f"host{number}", ca=CA)) for number in range(1000)]
    assert not permitted(constraints, bound)
    assert permitted([*constraints, leave(HERE, hop("a.example.org", ca=CA))], bound)
    assert permitted([*constraints, leave(HERE, hop("server", ca=CA))], bound)
    assert len(read) == 1


def test_a_user_name_longer_than_any_pattern_is_for_nobody() -> None:
    to = leave(HERE, hop("server", SERVER, user="*a"))
    for length, allowed in ((256, True), (257, False)):
        bound = sessions((SERVER, False))
        data = UserauthRequest(
            bound.bindings[-1].session_id, "a" * length, "ssh-ed25519", USER_KEY.blob
        ).encode()
        with nullcontext() if allowed else pytest.raises(DestinationError, match="of more than 256 bytes"):
            check_sign([to], bound, USER_KEY.blob, data)


def test_a_ca_that_signs_with_sha1_certifies_nothing() -> None:
    ca = Key(kind="rsa")
    for name, fits in (("rsa-sha2-512", True), ("ssh-rsa", False)):
        blob = certificate(SERVER, ca, "server", rsa_name=name)
        assert permitted([leave(HERE, hop("server", ca=ca))], sessions((blob, False)), "alice") is fits


@pytest.mark.parametrize("kind", ["ed25519", "p256"])
def test_a_ca_in_an_authenticator(kind: str) -> None:
    ca = Key(kind=kind)
    blob = sk_certificate(SERVER, ca, "server")
    to_server = leave(HERE, Hop("", "server", (HopKey(Certificate.decode(blob).ca_key, True),)))
    assert verify_bind(bind_of(SERVER, SESSION, blob=blob)).host_key == blob
    assert permitted([to_server], sessions((blob, False)), "alice")


def test_keys_and_certificates_do_not_stand_for_each_other() -> None:
    blob = certificate(SERVER, CA, "server")
    assert not permitted([leave(HERE, hop("server", SERVER))], sessions((blob, False)))
    assert not permitted([leave(HERE, hop("server", blob))], sessions((blob, False)))
    assert not permitted([leave(HERE, hop("server", ca=CA))], sessions((CA, False)))


def test_a_certificate_of_the_real_ssh_keygen(tmp_path: Path) -> None:
    def keygen(*arguments: str) -> None:
        subprocess.run(["ssh-keygen", "-q", *arguments], cwd=tmp_path, check=True)

    keygen("-t", "ed25519", "-N", "", "-f", "ca")
    keygen("-t", "ecdsa", "-N", "", "-f", "host")
    keygen("-s", "ca", "-h", "-I", "id", "-n", "server", "-V", "+10m", "host.pub")
    ca, blob = (
        base64.b64decode((tmp_path / name).read_text().split()[1]) for name in ("ca.pub", "host-cert.pub")
    )
    Certificate.decode(blob).verify_signature()
    constraint = leave(HERE, Hop("", "server", (HopKey(ca, True),)))
    assert permitted([constraint], sessions((blob, False)))


# What may be signed.


def login(
    user: str = "alice", session: bytes = b"session 0", key: Key = USER_KEY, host: bytes | None = None
) -> bytes:
    return UserauthRequest(session, user, key.public.algorithm, key.blob, host).encode()


def test_a_login_at_the_destination() -> None:
    constraints, bound = [leave(HERE, hop("server", SERVER, user="alice"))], sessions((SERVER, False))
    for host in (None, SERVER.blob):
        signed = check_sign(constraints, bound, USER_KEY.blob, login(host=host))
        assert signed == SignDestination("alice", "server")


def test_a_login_beyond_a_hop_names_the_constraint_of_the_last() -> None:
    bound = sessions((BASTION, True), (SERVER, False))
    data = login(session=b"session 1", host=SERVER.blob)
    signed = check_sign([TO_BASTION, BASTION_TO_SERVER], bound, USER_KEY.blob, data)
    assert signed == SignDestination("alice", "server")


HOPS = sessions((BASTION, True), (SERVER, False))
AT_SERVER = sessions((SERVER, False))
WRONG: dict[str, tuple[Sessions, bytes, str]] = {
    "unbound": (Sessions(), login(), "bound to no session"),
    "no login": (AT_SERVER, b"data", "is not a login"),
    "something after it": (AT_SERVER, login() + b"\0", "is not a login"),
    "another session's": (AT_SERVER, login(session=b"other"), "another session"),
    "another key's": (AT_SERVER, login(key=STRANGER), "another key"),
    "another host's": (AT_SERVER, login(host=BASTION.blob), "another host"),
    "another user's": (AT_SERVER, login(user="root"), "which exclude user root at host key SHA256:"),
    "forwarded, no host key": (HOPS, login(session=b"session 1"), "names no host key"),
    "forwarded to a place to log in": (sessions((SERVER, True)), login(), "which exclude user"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_not_signed_says_why(case: str) -> None:
    bound, data, reason = WRONG[case]
    constraints = [leave(HERE, hop("server", SERVER, user="alice")), TO_BASTION, BASTION_TO_SERVER]
    with pytest.raises(DestinationError, match=reason) as caught:
        check_sign(constraints, bound, USER_KEY.blob, data)
    assert fingerprint(USER_KEY.blob) in str(caught.value)


def test_where_a_connection_leads_in_words() -> None:
    assert describe_destination(Sessions()) == ""
    assert describe_destination(Sessions((), True)) == ""
    server, bastion = fingerprint(SERVER.blob), fingerprint(BASTION.blob)
    assert describe_destination(AT_SERVER) == f"host key {server}"
    assert describe_destination(HOPS) == f"host key {server}, forwarded over host key {bastion}"
