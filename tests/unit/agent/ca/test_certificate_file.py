"""The file with a certificate: it is written where it is wanted, and over nothing else."""

from __future__ import annotations

import base64
import os
import time
from pathlib import Path

import pytest
from doubles.stand_ins import Key, run

from replug.agent.ca.certificate_file import write_certificate
from replug.agent.ca.unsigned import unsigned_certificate
from replug.agent.config.certificate_rule import CertificateRule
from replug.agent.keys.constraints import KeyConstraints
from replug.agent.keys.identity import Identity
from replug.agent.keys.issued import IssuedIdentity

CA, KEY, OTHER = Key(), Key(), Key()


def issued() -> IssuedIdentity:
    rule = CertificateRule(("SHA256:",), ("*",), ("root",), key_id="id")
    certificate = unsigned_certificate(rule, KEY.blob, CA.blob, int(time.time()), {})
    constraints = KeyConstraints()
    key = Identity(KEY.blob, b"key", constraints)
    return IssuedIdentity(certificate.encode(), b"id", constraints, key, certificate, "token")


def line(key: Key) -> str:
    return f"ssh-ed25519 {base64.b64encode(key.blob).decode()} key\n"


def test_links_that_others_have_put_there_are_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "authorized_keys"
    victim.write_text("precious")
    for name in ("x.pub", "x-cert.pub"):
        (tmp_path / f".{name}.{os.getpid()}.new").symlink_to(victim)
    run(write_certificate(str(tmp_path / "x-cert.pub"), issued()))
    assert victim.read_text() == "precious"
    assert (tmp_path / "x.pub").read_text() == line(KEY)
    assert not (tmp_path / "x.pub").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["authorized_keys", "x-cert.pub", "x.pub"]


@pytest.mark.parametrize(("public", "written"), [(OTHER, False), (KEY, True), (None, False)])
def test_the_public_key_of_a_private_one_is_not_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, public: Key | None, written: bool
) -> None:
    (tmp_path / "id_ed25519").write_text("private")
    if public is not None:
        (tmp_path / "id_ed25519.pub").write_text(line(public))
    run(write_certificate(str(tmp_path / "id_ed25519-cert.pub"), issued()))
    assert (tmp_path / "id_ed25519-cert.pub").exists() == written
    assert (tmp_path / "id_ed25519.pub").exists() == (public is not None)
    if public is not None:
        assert (tmp_path / "id_ed25519.pub").read_text() == line(public)
    whys = [record.__dict__["why"] for record in caplog.records]
    assert whys == ([] if written else [f"{tmp_path}/id_ed25519 is a key of its own: name another file"])
