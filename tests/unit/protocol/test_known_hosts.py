"""Names for host keys: files as ssh writes them and people edit them, hashed names, markers, certificates."""

from __future__ import annotations

import base64
import gc
import subprocess
import time
from pathlib import Path

import pytest
from doubles.session_hosts import certificate
from doubles.stand_ins import Key
from hypothesis import given
from hypothesis import strategies as st

from replug.protocol.known_hosts import KnownAs, KnownHosts
from replug.protocol.wire import Writer

HOST, OTHER, CA = Key(), Key(kind="rsa"), Key()


def words(key: Key) -> bytes:
    blob = key.blob
    return blob[4 : 4 + blob[3]] + b" " + base64.b64encode(blob)


def line(hosts: bytes, key: Key = HOST) -> bytes:
    return hosts + b" " + words(key) + b"\n"


def known(*files: bytes, key: Key = HOST) -> KnownAs:
    return KnownHosts(files).known_as(key.blob)


@pytest.mark.parametrize(
    ("hosts", "names"),
    [
        (b"server", ("server",)),
        (b"server,10.0.0.5", ("server", "10.0.0.5")),
        (b"[server]:2222,[10.0.0.5]:2222", ("[server]:2222", "[10.0.0.5]:2222")),
        (b"*.example.com,!bad.example.com", ("*.example.com",)),
        (b" \t server", ("server",)),
        (b"a,,b,a", ("a", "b")),
        (b"x" * 254 + b",short", ("short",)),
        (b"\xff", ("\udcff",)),
    ],
)
def test_names_in_plain_text(hosts: bytes, names: tuple[str, ...]) -> None:
    assert known(line(hosts)) == KnownAs(names)


def test_several_lines_and_files_in_their_order() -> None:
    assert known(line(b"b") + line(b"x", OTHER) + line(b"a"), line(b"a,c")) == KnownAs(("b", "a", "c"))
    assert known(line(b"b"), line(b"x", OTHER), key=OTHER) == KnownAs(("x",))
    assert known(line(b"b"), key=OTHER) == KnownAs()


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n\n",
        b"#" + line(b"server"),
        b"# server " + words(HOST),
        b"server",
        b"server ssh-ed25519",
        b"server ssh-ed25519 ***\n",
        b"server ssh-rsa " + words(HOST).split()[1],
        b"server ssh-ed25519 AAAA\n",
        b"server 1024 35 1234567890\n",
        b"@unknown " + line(b"server"),
        b"@revoked",
        b"x" * 20_000 + b"," + line(b"server"),
        b"\0\xff\xfe",
    ],
    ids=range(14),
)
def test_what_is_no_entry_is_skipped(text: bytes) -> None:
    assert known(text) == KnownAs()
    assert known(text + b"\n" + line(b"next")) == KnownAs(("next",))


def test_what_follows_the_key_does_not_matter() -> None:
    assert known(b"server " + words(HOST) + b" a comment\r\n") == KnownAs(("server",))


@pytest.fixture
def hashed(tmp_path: Path) -> bytes:
    """Three names of one key, hashed by ssh-keygen."""
    path = tmp_path / "known_hosts"
    path.write_bytes(line(b"server") + line(b"[server]:2222") + line(b"10.0.0.5"))
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(path)], check=True, capture_output=True)
    assert b"server" not in path.read_bytes()
    return path.read_bytes()


def test_hashed_names_are_compared_with_candidates(hashed: bytes) -> None:
    hosts = KnownHosts([hashed])
    assert hosts.known_as(HOST.blob) == KnownAs((), hashed=True)
    assert hosts.known_as(HOST.blob, ["evil"]) == KnownAs((), hashed=True)
    found = hosts.known_as(HOST.blob, ["", "evil", "Server", "10.0.0.5", "[server]:2222", "server"])
    assert found == KnownAs(("server", "10.0.0.5", "[server]:2222"), hashed=True)
    assert hosts.known_as(OTHER.blob, ["server"]) == KnownAs()


def test_candidates_are_bounded(hashed: bytes) -> None:
    hosts = KnownHosts([hashed])
    assert hosts.known_as(HOST.blob, ["x"] * 8 + ["server"]).names == ()
    assert hosts.known_as(HOST.blob, ["server" * 50_000]).names == ()


@pytest.mark.parametrize(
    "hosts", [b"|1|", b"|1||", b"|1|AAAA|AAAA", b"|1|***|***", b"|1|a|b|c", b"|2|AAAA|AAAA"], ids=range(6)
)
def test_a_malformed_hash_is_none(hosts: bytes) -> None:
    assert not known(line(hosts)).hashed


def test_revoked_keys() -> None:
    assert known(b"@revoked " + line(b"*") + line(b"server")) == KnownAs(("server",), revoked=True)
    assert known(b"@revoked " + line(b"*")) == KnownAs((), revoked=True)


AUTHORITY = b"@cert-authority " + line(b"*.example.com,!bad.example.com", CA)


def certified(*names: str, text: bytes = AUTHORITY, ca: Key = CA, **changes: object) -> KnownAs:
    return KnownHosts([text]).known_as(certificate(HOST, ca, *names, **changes))


def test_host_certificates() -> None:
    assert certified("a.example.com") == KnownAs(("a.example.com",))
    assert certified("bad.example.com", "b.example.com", "other.org") == KnownAs(("b.example.com",))
    assert certified("a.example.com", ca=OTHER) == KnownAs()
    assert certified("a.example.com", valid_before=int(time.time()) - 1) == KnownAs()
    assert certified() == KnownAs()


def test_a_certified_key_may_have_names_of_its_own() -> None:
    text = AUTHORITY + line(b"plain")
    assert certified("a.example.com", text=text) == KnownAs(("a.example.com", "plain"))
    assert certified("a.example.com", text=text, ca=OTHER) == KnownAs(("plain",))


def test_a_revoked_ca() -> None:
    assert certified("a.example.com", text=AUTHORITY + b"@revoked " + line(b"*", CA)).revoked
    assert certified("a.example.com", text=AUTHORITY + b"@revoked " + line(b"*", HOST)).revoked


def test_a_cas_own_key_is_no_hosts() -> None:
    assert known(AUTHORITY, key=CA) == KnownAs()


def test_a_ca_with_many_patterns_costs_little() -> None:
    """Any program may write them, and bind sessions with certificates of that CA. CPU time, as below."""
    long = b"@cert-authority " + line(b",".join([b"*a*a*a*b"] * 1500), CA)
    names = [f"{'a' * 240}{number}" for number in range(64)]
    hosts, certified = KnownHosts([AUTHORITY + long * 64]), certificate(HOST, CA, *names, "a.example.com")
    began = time.process_time()
    assert hosts.known_as(certified) == KnownAs()
    assert time.process_time() - began < 1


def test_a_list_with_too_many_patterns_is_left_out_as_a_whole() -> None:
    """What were left of it could say less than it says."""
    hosts = b",".join(b"*%d.org" % number for number in range(300)) + b",!1.org"
    text = AUTHORITY + b"@cert-authority " + line(hosts, CA)
    assert certified("1.org", "a.example.com", text=text) == KnownAs(("a.example.com",))


@given(
    st.lists(st.sampled_from([b"server", b" ", b"\n", b"@revoked", b",", b"|1|", words(HOST)]) | st.binary())
)
def test_any_bytes_are_a_file(pieces: list[bytes]) -> None:
    KnownHosts([b"".join(pieces)]).known_as(HOST.blob, ["server"])


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        (b"a,b,c,d,e", KnownAs(("a", "b", "c"), 2)),
        (b"a,%b" % b",".join(b"h%d" % n for n in range(63)), KnownAs(("a", "h0", "h1"), 61)),
        (b"a" * 253 + b",b,c", KnownAs(("a" * 253,), 2)),
        (b"a" * 158 + b",b,c", KnownAs(("a" * 158, "b"), 1)),
    ],
)
def test_no_more_names_are_kept_than_are_shown(hosts: bytes, expected: KnownAs) -> None:
    assert known(line(hosts)) == expected
    assert known(line(hosts) * 2) == expected


def test_many_lines_are_read_in_linear_time() -> None:
    """CPU time, so that a busy machine decides nothing."""
    keys = line(b"server") + line(b"x", OTHER)
    began = time.process_time()
    hosts = KnownHosts([keys * 50_000])
    assert time.process_time() - began < 5
    assert hosts.known_as(HOST.blob) == KnownAs(("server",))


def test_many_keys_are_not_kept_as_many_objects() -> None:
    """To look through them for garbage, the collector would hold up all threads of the agent."""
    blobs = [bytes(Writer().string(b"ssh-ed25519").string(n.to_bytes(32, "big"))) for n in range(20_000)]
    text = b"".join(b"h%d ssh-ed25519 %b\n" % (n, base64.b64encode(blob)) for n, blob in enumerate(blobs))
    gc.collect()
    before = len(gc.get_objects())
    known = KnownHosts([text])
    assert len(gc.get_objects()) - before < 100
    assert known.known_as(blobs[-1]) == KnownAs(("h19999",))
