"""`issued.jsonl` in the state folder: every certificate that was signed, a line each, in the order they were.

A line is on the disk before the signature leaves the agent, so there is no certificate without a trace.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from replug.agent.keys.refusal import RequestRefusedError
from replug.agent.keys.regular_file import contents_of
from replug.protocol.certificates import Certificate, CertificateType
from replug.protocol.keys import fingerprint
from replug.token.offload import Share, TooManyThreadsError, in_daemon_thread
from replug.token.trusted_file import make_folder

MOST_LINES = 10_000
"""Of a file; then it becomes the older one, and the one that was older before is gone."""
_LARGEST = 64 * 1024 * 1024  # bytes of a file; what has more is taken for full, as it was not written here
_LONGEST_LINE = 4 * 1024 * 1024  # bytes: of a certificate as large as a message, with an escape for each byte
_PIECE = 1024 * 1024
_PATIENCE = 8.0  # seconds for the disk
_NO_NUMBER = 2**64  # no certificate has one as large, no clock shows it


@dataclass(frozen=True)
class Issued:
    """A line: a certificate, who asked for it and what for."""

    time: float
    """When it was signed, in seconds since 1970."""
    ca: str
    """The fingerprint of the CA key."""
    ca_key: str
    """Its blob, in base64: `replug ca revoke` needs it when the token is out."""
    ca_place: str
    """The token that it is on."""
    serial: int
    type: str
    key_id: str
    principals: tuple[str, ...]
    valid_after: int
    valid_before: int
    key: str
    """The fingerprint of what was certified."""
    user: str
    """Who asked, by name; by number if there is no name."""
    uid: int
    program: str
    destination: str
    """The host that it was made to log in at; empty if that is not known."""


def issued(
    certificate: Certificate, ca_place: str, *, user: str, uid: int, program: str, destination: str = ""
) -> Issued:
    """The line for a certificate that is signed now."""
    return Issued(
        time=time.time(),
        ca=fingerprint(certificate.ca_key),
        ca_key=base64.b64encode(certificate.ca_key).decode(),
        ca_place=ca_place,
        serial=certificate.serial,
        type="host" if certificate.type is CertificateType.HOST else "user",
        # As they are: with escapes in place of bytes that are no text, two key ids would read the same.
        key_id=certificate.key_id.decode(errors="surrogateescape"),
        principals=tuple(one.decode(errors="surrogateescape") for one in certificate.principals),
        valid_after=certificate.valid_after,
        valid_before=certificate.valid_before,
        key=fingerprint(certificate.key.encode()),
        user=user,
        uid=uid,
        program=program,
        destination=destination,
    )


class Journal:
    """Appends lines, one after the other, to the file whose path `path` returns; it may block."""

    def __init__(self, path: Callable[[], Path]) -> None:
        self._path = path
        self._turn = asyncio.Lock()
        self._writing = threading.Lock()
        """A write that hangs is still under way when the next one is asked for."""
        self._left: tuple[int, int, int] = (0, 0, 0)
        """The file as it was left: inode, size, lines. Another agent of this user may write to it, too."""

    async def append(self, entry: Issued) -> None:
        """Put the line on the disk. RequestRefusedError if that fails: then nothing may be issued."""
        line = json.dumps(asdict(entry), ensure_ascii=True).encode() + b"\n"
        async with self._turn:
            try:
                async with asyncio.timeout(_PATIENCE):
                    await in_daemon_thread(Share.ISSUED, lambda: self._append(line))
            except (OSError, TooManyThreadsError, TimeoutError) as error:
                why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
                raise RequestRefusedError(
                    f"the certificate cannot be recorded (issued.jsonl): {why or 'the disk does not answer'}",
                    "see replug(1) for the path: free some space, or correct the folder's permissions",
                ) from error

    def _append(self, line: bytes) -> None:
        with self._writing:
            path = self._path()
            make_folder(path.parent)
            descriptor, lines = self._open(path)
            if lines >= MOST_LINES:
                os.close(descriptor)
                path.replace(older(path))
                descriptor, lines = self._open(path)
            try:
                before = os.fstat(descriptor)
                if _ends_in_half_a_line(descriptor, before.st_size):
                    line = b"\n" + line
                _write(descriptor, line, before.st_size)
            finally:
                os.close(descriptor)
            if not before.st_size:
                _sync_folder(path.parent)
            self._left = before.st_ino, before.st_size + len(line), lines + line.count(b"\n")

    def _open(self, path: Path) -> tuple[int, int]:
        """The file, and how many lines it has."""
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
            status = os.fstat(descriptor)
            if self._left[:2] == (status.st_ino, status.st_size):
                return descriptor, self._left[2]
            return descriptor, _lines(descriptor, status.st_size)
        except BaseException:
            os.close(descriptor)
            raise


def older(path: Path) -> Path:
    """Where the lines are that were before those in `path`."""
    return path.with_name(f"{path.name}.1")


def journal_path() -> Path:
    """The path of the file: `~/.local/state/replug/issued.jsonl`, or under $XDG_STATE_HOME."""
    import platformdirs  # slow

    return platformdirs.user_state_path("replug") / "issued.jsonl"


def read_journal(path: Path) -> Iterator[Issued]:
    """All lines that can be read, the oldest first; OSError. What is no line of ours is left out."""
    for file in (older(path), path):
        try:
            text = contents_of(file, _LARGEST + _LONGEST_LINE)
        except FileNotFoundError:
            continue
        for line in text.splitlines():
            entry = _read(line)
            if entry is not None:
                yield entry


def _read(line: bytes) -> Issued | None:
    try:
        values: dict[str, Any] = json.loads(line)
        known = {field.name: values[field.name] for field in fields(Issued)}
        entry = Issued(**known | {"principals": tuple(map(str, values["principals"]))})
    except (ValueError, TypeError, LookupError, RecursionError):
        return None
    typed = all(_is_of_its_type(one.type, getattr(entry, one.name)) for one in fields(entry))
    return entry if typed else None


def _is_of_its_type(name: object, value: object) -> bool:
    """Whether the value is one that is written for a field of this type, as the class has it."""
    match value:
        case bool():
            return False
        case int() | float():
            return name in ("int", "float") and 0 <= value < _NO_NUMBER
        case str():
            return name == "str"
    return isinstance(value, tuple)


def _lines(descriptor: int, size: int) -> int:
    """How many lines a file of this size has; it may be anybody's, and need not fit into memory."""
    if size > _LARGEST:
        return MOST_LINES
    return sum(os.pread(descriptor, _PIECE, begin).count(b"\n") for begin in range(0, size, _PIECE))


def _ends_in_half_a_line(descriptor: int, size: int) -> bool:
    """Whether a loss of power, or another program, has left a file of this size so."""
    return size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"


def _write(descriptor: int, line: bytes, size: int) -> None:
    """Append to a file of this size, or leave it as it is: half a line would spoil the next one."""
    try:
        if os.write(descriptor, line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, size)
        raise


def _sync_folder(folder: Path) -> None:
    """A new file's name is on the disk only when its folder is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
