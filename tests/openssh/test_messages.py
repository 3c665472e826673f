"""Raw messages side by side with OpenSSH's agent: the longest ones, broken ones, and those few know."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from rigs.agent import FAILURE, LIST_REQUEST, Agent, frame, sign_request, string
from rigs.compared import Agents, compare_exactly
from rigs.home import Home
from rigs.key_files import blob_of, make_key, public_of
from rigs.softhsm import Token

from replug.protocol.decoding import decode_request, decode_response
from replug.protocol.keys import parse_any_public_key
from replug.protocol.messages import AddIdentity, SignResponse
from replug.protocol.signatures import Signature, verify_any

SUCCESS, IDENTITIES, SIGNATURE, EXTENSION_FAILURE = b"\x06", b"\x0c", b"\x0e", b"\x1c"
LONGEST = 262144
REQUESTS = Path(__file__).parent.parent / "messages" / "requests"
RECORDED = sorted(REQUESTS.glob("*.bin"))


@pytest.fixture
def key(home: Home, agents: Agents) -> bytes:
    """The blob of a key that both agents hold."""
    key = make_key(home, "key")
    for agent in agents:
        assert agent.ssh_add(key).status == 0, agent.log
    return blob_of(public_of(key))


@pytest.mark.parametrize(
    ("length", "kind"), [(LONGEST - 1, SIGNATURE), (LONGEST, SIGNATURE), (LONGEST + 1, b"")]
)
def test_the_longest_message(length: int, kind: bytes, agents: Agents, key: bytes) -> None:
    """A sign request of exactly so many bytes is signed, or closes the connection."""
    request = sign_request(key, bytes(length - len(sign_request(key, b"")) + 4))
    assert request[:4] == struct.pack(">I", length)

    def session(agent: Agent) -> bytes:
        with agent.connect() as connection:
            try:
                return connection.ask(request)[:1]
            except BrokenPipeError:  # closed before all was sent
                return b""

    assert compare_exactly(agents, session) == kind
    assert agents[0].alive()


def test_every_recorded_request_cut_short_is_refused(agents: Agents, key: bytes) -> None:
    """At every byte of short requests, at every seventh of long ones; the connection goes on all the while.

    A malformed request to lock ends OpenSSH 9.2's agent. It takes FIDO keys without a library, which can sign
    nothing and which ours refuses; and it answers a failed session-bind with 5 instead of RFC 9987's 28.
    """
    ours, theirs = agents

    def refuses(agent: Agent, request: bytes) -> set[int]:
        """The lengths at which it takes the request for a whole one."""
        lengths = range(1, len(request), 1 if len(request) < 200 else 7)
        with agent.connect() as connection:
            replies = {length: connection.ask(frame(request[:length])) for length in lengths}
        assert set(replies.values()) <= {FAILURE, SUCCESS, EXTENSION_FAILURE, b"\x0c\x00\x00\x00\x00"}
        return {length for length, reply in replies.items() if reply not in (FAILURE, EXTENSION_FAILURE)}

    for path in RECORDED:
        request = path.read_bytes()
        taken = refuses(ours, request)
        if path.stem in ("lock", "unlock") or "-sk-" in path.stem:
            assert taken == set(), path.stem
        else:
            assert taken == refuses(theirs, request), path.stem
    for agent in agents:
        with agent.connect() as connection:
            assert key in connection.ask(LIST_REQUEST)
            assert connection.ask(sign_request(key))[:1] == SIGNATURE


def test_every_recorded_request_with_more_behind_it_is_refused(agents: Agents, key: bytes) -> None:
    """OpenSSH's agent overlooks it in some of them."""
    agent, _ = agents
    with agent.connect() as connection:
        for path in RECORDED:
            reply = connection.ask(frame(path.read_bytes() + b"\0"))
            assert reply in (FAILURE, EXTENSION_FAILURE), path.stem
        assert connection.ask(LIST_REQUEST)[4] == 1


def test_types_that_are_no_request(agents: Agents) -> None:
    known = {9, 11, 13, 17, 18, 19, 20, 21, 22, 23, 25, 26, 27}

    def session(agent: Agent) -> list[bytes]:
        with agent.connect() as connection:
            return [connection.ask(frame(bytes([number]))) for number in range(256) if number not in known]

    assert set(compare_exactly(agents, session)) == {FAILURE}


def test_query(agent: Agent) -> None:
    """RFC 9987 section 5.8.1, as OpenSSH 10 answers it; 9.2 does not know it."""
    with agent.connect() as connection:
        reply = connection.ask(frame(b"\x1b" + string(b"query")))

    assert reply == b"\x1d" + string(b"query") + string(b"session-bind@openssh.com")


@pytest.mark.parametrize("number", [9, 19])
def test_the_messages_that_remove_everything(number: int, agents: Agents, key: bytes, token: Token) -> None:
    """19, and 9 of SSH 1, each by itself: software keys and a token's."""

    def session(agent: Agent) -> list[bytes]:
        assert agent.add_provider(token.module, token.pin).status == 0, agent.log
        with agent.connect() as connection:
            assert connection.ask(LIST_REQUEST)[4] > 1
            return [connection.ask(frame(bytes([number]))), connection.ask(LIST_REQUEST)]

    assert compare_exactly(agents, session) == [SUCCESS, IDENTITIES + bytes(4)]


@pytest.mark.parametrize(
    ("constraints", "reply"),
    [
        pytest.param(b"", SUCCESS, id="none"),
        pytest.param(b"\x01\0\0\0\x63", SUCCESS, id="lifetime"),
        pytest.param(b"\x02", SUCCESS, id="confirm"),
        pytest.param(b"\x02\x01\0\0\0\x63", SUCCESS, id="both"),
        pytest.param(b"\x01\0\0\0\x63\x01\0\0\0\x63", FAILURE, id="lifetime twice"),
        pytest.param(b"\x02\x02", FAILURE, id="confirm twice"),
        pytest.param(b"\x03\0\0\0\x01", FAILURE, id="a signature count, which nobody supports"),
        pytest.param(b"\xff" + string(b"unknown@nowhere"), FAILURE, id="an unknown extension"),
        pytest.param(b"\x02\xff" + string(b"unknown@nowhere"), FAILURE, id="one known and one not"),
        pytest.param(
            b"\xff" + string(b"restrict-destination-v00@openssh.com") + string(b""),
            SUCCESS,
            id="no destinations",
        ),
        pytest.param(
            b"\xff" + string(b"restrict-destination-v00@openssh.com") + string(string(b"")),
            FAILURE,
            id="a destination that is none",
        ),
        pytest.param(
            b"\xff" + string(b"associated-certs-v00@openssh.com") + b"\0" + string(b""),
            FAILURE,
            id="certificates for a key that is not on a token",
        ),
    ],
)
def test_constraints_of_a_key(constraints: bytes, reply: bytes, agents: Agents) -> None:
    """One that cannot be obeyed refuses the key; with RFC 9987's words: it must not be added."""
    add = (REQUESTS / "add-ed25519.bin").read_bytes()

    def session(agent: Agent) -> tuple[bytes, int]:
        with agent.connect() as connection:
            return connection.ask(frame(b"\x19" + add[1:] + constraints)), connection.ask(LIST_REQUEST)[4]

    assert compare_exactly(agents, session) == (reply, 1 if reply == SUCCESS else 0)


@pytest.mark.parametrize("kind", ["rsa", "p521", "ed25519"])
def test_the_flags_of_a_sign_request(kind: str, agents: Agents, home: Home) -> None:
    """They choose RSA's hash, 2 before 4. Other bits OpenSSH's agent overlooks; RFC 9987: they must fail."""
    private = make_key(home, "signing", kind)
    blob = blob_of(public_of(private))
    ours, theirs = agents

    def session(agent: Agent) -> list[str]:
        assert agent.ssh_add(private).status == 0, agent.log
        algorithms = []
        with agent.connect() as connection:
            for flags in (0, 2, 4, 6):
                reply = decode_response(connection.ask(sign_request(blob, b"data", flags)))
                assert isinstance(reply, SignResponse), flags
                verify_any(parse_any_public_key(blob), reply.signature, b"data")
                algorithms.append(Signature.decode(reply.signature).algorithm)
        return algorithms

    said = compare_exactly(agents, session)

    if kind == "rsa":
        assert said == ["ssh-rsa", "rsa-sha2-256", "rsa-sha2-512", "rsa-sha2-256"]
    for flags in (1, 8, 0x80000002):
        with ours.connect() as one, theirs.connect() as other:
            request = sign_request(blob, b"data", flags)
            assert one.ask(request) == FAILURE
            assert other.ask(request)[:1] == SIGNATURE


@pytest.mark.parametrize("name", ["ed25519", "ecdsa-nistp256", "ecdsa-nistp384", "ecdsa-nistp521", "rsa"])
def test_a_key_of_which_a_part_is_anothers_is_refused(name: str, agent: Agent) -> None:
    """It would sign what does not verify. Nothing is added, and the key that was there works on."""
    request = (REQUESTS / f"add-{name}.bin").read_bytes()
    whole = decode_request(request)
    assert isinstance(whole, AddIdentity)
    end = len(request) - len(whole.comment) - 4
    spoiled = []
    # ed25519's public part, which comes twice, or the private one; ed25519's seed; ECDSA's point or RSA's d.
    for place in (end - 1, end - 33, end // 2):
        spoiled.append(bytearray(request))
        spoiled[-1][place] ^= 1

    with agent.connect() as connection:
        assert [connection.ask(frame(bytes(one))) for one in spoiled] == [FAILURE] * 3
        assert connection.ask(LIST_REQUEST) == IDENTITIES + bytes(4)
        assert connection.ask(frame(request)) == SUCCESS
        assert [connection.ask(frame(bytes(one))) for one in spoiled] == [FAILURE] * 3
        assert connection.ask(sign_request(whole.key.blob))[:1] == SIGNATURE
