"""The certificates that the configuration names: found, renewed, gone, and everything that is none."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import subprocess
import threading
from pathlib import Path

import pytest
from doubles.stand_ins import run

from replug.agent.config.model import Config
from replug.agent.config.options import Options
from replug.agent.config.settings import Settings
from replug.agent.keys import certificate_files, regular_file
from replug.agent.keys.certificate_files import CertificateFiles
from replug.protocol.certificates import Certificate


class Authority:
    """Makes certificates for one key, as ssh-keygen does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("ca", "user"):
            self._keygen("-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))

    def certify(self, identity: str = "first") -> Path:
        self._keygen("-q", "-s", str(self.folder / "ca"), "-I", identity, "-n", "me", str(self.public))
        return self.folder / "user-cert.pub"

    @property
    def public(self) -> Path:
        return self.folder / "user.pub"

    def _keygen(self, *arguments: str) -> None:
        subprocess.run(["ssh-keygen", *arguments], check=True, capture_output=True)


def certificates(patterns: list[str]) -> Settings:
    return Settings(Options(config=Config(certificates=tuple(patterns))))


def blob(path: Path) -> bytes:
    return base64.b64decode(path.read_text().split()[1])


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_found_renewed_and_gone(authority: Authority) -> None:
    async def main() -> None:
        key = blob(authority.public)
        files = CertificateFiles(certificates([f"{authority.folder}/*-cert.pub"]), lambda: None)
        await files.look()
        assert files.known.of_key(key) == ()
        for identity in ("first", "second"):
            path = authority.certify(identity)
            await files.look()
            assert files.known.of_key(key) == (blob(path),)
        path.unlink()
        await files.look()
        assert files.known.of_key(key) == ()

    run(main())


def test_it_belongs_to_the_key_it_is_for(authority: Authority) -> None:
    async def main() -> None:
        path = authority.certify()
        files = CertificateFiles(certificates([str(path)]), lambda: None)
        await files.look()
        assert files.known.of_key(b"another") == ()
        assert files.known.of_key(Certificate.decode(blob(path)).key.encode()) == (blob(path),)

    run(main())


def test_patterns_may_change(authority: Authority) -> None:
    async def main() -> None:
        path, settings = authority.certify(), certificates([])
        files = CertificateFiles(settings, lambda: None)
        await files.look()
        settings.options = certificates([str(path)]).options
        await files.look()
        assert files.known.of_key(blob(authority.public)) == (blob(path),)
        settings.options = certificates([]).options
        await files.look()
        assert files.known.of_key(blob(authority.public)) == ()

    run(main())


def test_what_is_none_is_said_once_and_in_nobodys_way(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """Garbage, a public key, half a certificate, nothing, a huge file, a FIFO somebody holds, a folder."""

    async def main() -> None:
        folder, good = authority.folder / "named", authority.certify()
        folder.mkdir()
        half = good.read_text().split()
        contents = {
            "garbage": b"\xff\x00\xfe",
            "public": authority.public.read_bytes(),
            "half": f"{half[0]} {half[1][:200]}".encode(),
            "no-base64": b"ssh-ed25519-cert-v01@openssh.com ***",
            "empty": b"",
            "huge": good.read_bytes() + b" " * 10_000_000,
        }
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        os.mkfifo(folder / "fifo")
        writer = os.open(folder / "fifo", os.O_RDWR)
        (folder / "folder").mkdir()
        (folder / "good").write_bytes(good.read_bytes())
        (folder / "dangling").symlink_to(folder / "nowhere")
        files = CertificateFiles(certificates([f"{folder}/*", "/dev/null", "/dev/nul\0"]), lambda: None)
        with caplog.at_level(logging.WARNING):
            await files.look()
            await files.look()
        os.close(writer)
        assert files.known.of_key(blob(authority.public)) == (blob(good),)
        said = [Path(record.__dict__["path"]).name for record in caplog.records]
        assert sorted(said) == sorted([*contents, "fifo", "folder", "null"])

    run(main())


def test_a_file_that_may_not_be_read_is_read_when_it_may(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        path = authority.certify()
        real_open = os.open

        def refuse(name: str, *arguments: int) -> int:
            if name == str(path):
                raise PermissionError(13, "Permission denied")
            return real_open(name, *arguments)

        files = CertificateFiles(certificates([str(path)]), lambda: None)
        monkeypatch.setattr(regular_file.os, "open", refuse)
        await files.look()
        assert files.known.of_key(blob(authority.public)) == ()
        monkeypatch.undo()
        path.chmod(0o644)
        os.utime(path)
        await files.look()
        assert files.known.of_key(blob(authority.public)) == (blob(path),)

    run(main())


def test_a_file_system_that_does_not_answer_keeps_nobody_waiting(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one thread only: others need theirs."""

    async def main() -> None:
        path, answered = authority.certify(), threading.Event()
        globs = []

        def hang(pattern: str) -> list[str]:
            globs.append(pattern)
            answered.wait(20)
            return [pattern]

        monkeypatch.setattr(certificate_files.glob, "glob", hang)
        monkeypatch.setattr(certificate_files, "_PATIENCE", 0.01)
        files = CertificateFiles(certificates([str(path)]), lambda: None)
        for _ in range(5):
            await files.look()
        assert globs == [str(path)]
        assert files.known.of_key(blob(authority.public)) == ()
        answered.set()
        async with asyncio.timeout(10):
            while not files.known.of_key(blob(authority.public)):
                await files.look()

    run(main())
