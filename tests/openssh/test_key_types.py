"""Every type of key that the OpenSSH at hand has is one that the agent reads."""

from __future__ import annotations

import subprocess

import pytest

from replug.protocol.keys import certificate_algorithm, is_certificate, plain_algorithm, read_fields
from replug.protocol.wire import ProtocolError, Reader, Writer

FIELDS = {
    "ssh-rsa": Writer().mpint(65537).mpint((1 << 2047) + 1),
    **{
        f"ecdsa-sha2-nistp{bits}": Writer().text(f"nistp{bits}").string(b"\4" + bytes(2 * ((bits + 7) // 8)))
        for bits in (256, 384, 521)
    },
    "ssh-ed25519": Writer().string(bytes(32)),
    "ssh-mldsa44-ed25519": Writer().string(bytes(1344)),
    "ssh-mldsa44-ed25519@openssh.com": Writer().string(bytes(1344)),
    "sk-ssh-ed25519@openssh.com": Writer().string(bytes(32)).text("ssh:"),
    "sk-ecdsa-sha2-nistp256@openssh.com": Writer().text("nistp256").string(b"\4" + bytes(64)).text("ssh:"),
}
NOT_READ = {
    "ssh-dss",  # no longer in OpenSSH since 10.0
    "webauthn-sk-ecdsa-sha2-nistp256@openssh.com",  # a form of signatures: no key has this name
}


def asked(what: str) -> list[str]:
    return subprocess.run(["ssh", "-Q", what], capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize("name", sorted({plain_algorithm(name) for name in asked("key")} - NOT_READ))
def test_keys(name: str) -> None:
    assert name in FIELDS, f"ssh has keys of type {name}, which the agent does not read"
    reader = Reader(bytes(FIELDS[name]))
    key = read_fields(name, reader)
    reader.check_end()
    assert key.algorithm == name


@pytest.mark.parametrize("name", asked("key-cert"))
def test_certificates(name: str) -> None:
    plain = plain_algorithm(name)
    if plain not in NOT_READ:
        assert is_certificate(name)
        assert certificate_algorithm(read_fields(plain, Reader(bytes(FIELDS[plain])))) == name


@pytest.mark.parametrize("name", FIELDS)
def test_each_has_a_certificate_of_its_own(name: str) -> None:
    key = read_fields(name, Reader(bytes(FIELDS[name])))
    certified = certificate_algorithm(key)
    assert is_certificate(certified)
    assert not is_certificate(name)
    assert plain_algorithm(certified) == name


def test_what_is_no_key() -> None:
    with pytest.raises(ProtocolError, match="not supported"):
        read_fields("ssh-unheard-of", Reader(b""))
    with pytest.raises(ProtocolError, match="1343 bytes"):
        read_fields("ssh-mldsa44-ed25519", Reader(bytes(Writer().string(bytes(1343)))))
