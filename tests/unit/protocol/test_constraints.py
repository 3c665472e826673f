"""Key constraints: the bytes, and the rules of ssh-agent.c's parse_key_constraints."""

from __future__ import annotations

import pytest

from replug.protocol.constraints import (
    AssociatedCerts,
    Confirm,
    DestinationConstraint,
    Hop,
    HopKey,
    Lifetime,
    RestrictDestination,
    SkProvider,
    UnknownConstraintError,
    parse_constraints,
)
from replug.protocol.wire import ProtocolError, Reader, Writer

HERE = Hop("", "", ())
BASTION = Hop("", "bastion", (HopKey(b"key", is_ca=False),))
INNER = Hop("alice", "inner", (HopKey(b"ca", is_ca=True), HopKey(b"key", is_ca=False)))


def extension(name: str) -> Writer:
    return Writer().byte(255).text(name)


def hop(hop: Hop, reserved: bytes = b"") -> bytes:
    """The contents of a hop's string, whether the rules allow it or not."""
    writer = Writer().text(hop.user).text(hop.hostname).string(reserved)
    for key in hop.keys:
        writer.string(key.blob).boolean(key.is_ca)
    return bytes(writer)


def restrict(from_hop: bytes, to_hop: bytes, reserved: bytes = b"", more: bytes = b"") -> bytes:
    destination = bytes(Writer().string(from_hop).string(to_hop).string(reserved).raw(more))
    inner = bytes(Writer().string(destination))
    return bytes(extension("restrict-destination-v00@openssh.com").string(inner))


def test_the_bytes():
    assert Lifetime(600).encode().hex() == "0100000258"
    assert Confirm().encode().hex() == "02"
    provider = bytes(extension("sk-provider@openssh.com").string(b"internal"))
    assert SkProvider(b"internal").encode() == provider
    certs = bytes(extension("associated-certs-v00@openssh.com").byte(1).string(b"\0\0\0\1a\0\0\0\1b"))
    assert AssociatedCerts(certs_only=True, certs=(b"a", b"b")).encode() == certs
    destination = DestinationConstraint(BASTION, INNER)
    assert RestrictDestination((destination,)).encode() == restrict(hop(BASTION), hop(INNER))


def test_several_keep_their_order():
    values = (Confirm(), RestrictDestination(()), Lifetime(1))
    assert parse_constraints(Reader(b"".join(value.encode() for value in values))) == values
    assert parse_constraints(Reader(b"")) == ()


@pytest.mark.parametrize(
    "constraint",
    [
        Lifetime(1),
        Confirm(),
        RestrictDestination(()),
        AssociatedCerts(certs_only=False, certs=()),
        SkProvider(b"internal"),
    ],
)
def test_none_may_be_given_twice(constraint: Confirm):
    with pytest.raises(ProtocolError, match=f"{type(constraint).__name__} given twice"):
        parse_constraints(Reader(constraint.encode() * 2))


@pytest.mark.parametrize("encoded", [b"\0", b"\3\0\0\0\1", bytes(extension("fancy@example.org").string(b""))])
def test_what_is_not_known_cannot_be_enforced(encoded: bytes):
    with pytest.raises(UnknownConstraintError):
        parse_constraints(Reader(Lifetime(1).encode() + encoded))


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (restrict(hop(HERE, reserved=b"x"), hop(BASTION)), "reserved"),
        (restrict(hop(HERE), hop(BASTION, reserved=b"x")), "reserved"),
        (restrict(hop(HERE), hop(BASTION), reserved=b"x"), "reserved"),
        (restrict(hop(HERE), hop(BASTION), more=b"x"), "1 bytes too many"),
        (restrict(hop(HERE) + b"x", hop(BASTION)), "truncated"),
        (restrict(hop(INNER), hop(BASTION)), 'inconsistent "from"'),
        (restrict(hop(Hop("alice", "", ())), hop(BASTION)), 'inconsistent "from"'),
        (restrict(hop(Hop("", "bastion", ())), hop(BASTION)), 'inconsistent "from"'),
        (restrict(hop(Hop("", "", BASTION.keys)), hop(INNER)), 'inconsistent "from"'),
        (restrict(hop(HERE), hop(HERE)), 'incomplete "to"'),
        (restrict(hop(HERE), hop(Hop("alice", "inner", ()))), 'incomplete "to"'),
        (restrict(hop(HERE), hop(Hop("", "", BASTION.keys))), 'incomplete "to"'),
        (restrict(hop(HERE), b"\0\0\1\1" + b"u" * 257 + hop(BASTION)[4:]), "more than 256 bytes"),
    ],
)
def test_destinations_that_make_no_sense(encoded: bytes, reason: str):
    with pytest.raises(ProtocolError, match=reason):
        parse_constraints(Reader(encoded))


def test_no_nul_in_a_path():
    with pytest.raises(ProtocolError, match="NUL"):
        parse_constraints(Reader(SkProvider(b"internal\0").encode()))


def test_the_longest_user():
    longest = Hop("u" * 256, "host", BASTION.keys)
    (restriction,) = parse_constraints(Reader(restrict(hop(HERE), hop(longest))))
    assert restriction == RestrictDestination((DestinationConstraint(HERE, longest),))


def test_the_most_destinations():
    most = RestrictDestination((DestinationConstraint(HERE, BASTION),) * 1024)
    assert parse_constraints(Reader(most.encode())) == (most,)
    one = bytes(Writer().string(DestinationConstraint(HERE, BASTION).encode()))
    encoded = bytes(extension("restrict-destination-v00@openssh.com").string(one * 1025))
    with pytest.raises(ProtocolError, match="more than 1024"):
        parse_constraints(Reader(encoded))


def test_the_most_certificates():
    most = AssociatedCerts(certs_only=False, certs=(b"x",) * 1024)
    assert parse_constraints(Reader(most.encode())) == (most,)
    encoded = bytes(extension("associated-certs-v00@openssh.com").byte(0).string(b"\0\0\0\1x" * 1025))
    with pytest.raises(ProtocolError, match="more than 1024"):
        parse_constraints(Reader(encoded))
