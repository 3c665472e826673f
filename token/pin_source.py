"""Where the PIN of a token comes from when no person is to type it: a file or a systemd credential.

For network HSMs and machines without a person. Whoever can read the file has the PIN, so it must be the
user's own and closed to everybody else.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from replug.token.errors import TokenError
from replug.token.pin import Pin
from replug.token.trusted_file import UntrustedFileError, read_trusted

_LONGEST_PIN = 255  # bytes
_LARGEST_FILE = _LONGEST_PIN + len(b"\r\n")
_LONGEST_NAME = 255  # of a credential (systemd's credential_name_valid)
_PROMPT = "prompt"
_CREDENTIALS = "CREDENTIALS_DIRECTORY"
_BY_OTHERS = stat.S_IRWXG | stat.S_IRWXO
# For a service of another user systemd leaves the file root's and lets that user read it by an ACL, the mask
# of which shows as the group's bits.
_CREDENTIAL_BY_OTHERS = _BY_OTHERS & ~stat.S_IRGRP


class SourceKind(StrEnum):
    """What kind of thing holds the PIN."""

    FILE = "file"
    CREDENTIAL = "credential"


@dataclass(frozen=True)
class PinSource:
    """Where to take a PIN from; `name` is the file's absolute path or the credential's name."""

    kind: SourceKind
    name: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


def parse_pin_source(text: str) -> PinSource | None:
    """The source that `file:/path` or `credential:NAME` means, None for `prompt`; ValueError.

    The error does not repeat `text`: somebody may have written the PIN there.
    """
    kind, _, name = text.partition(":")
    if text == _PROMPT:
        return None
    if kind == SourceKind.FILE:
        path = os.path.expanduser(name)
        if not os.path.isabs(path) or "\0" in path:
            raise ValueError('the path after "file:" must be absolute or begin with ~/')
        return PinSource(SourceKind.FILE, path)
    if kind == SourceKind.CREDENTIAL:
        if not name or name in (".", "..") or "/" in name or "\0" in name or len(name) > _LONGEST_NAME:
            raise ValueError('the name after "credential:" must be that of a credential of the service')
        return PinSource(SourceKind.CREDENTIAL, name)
    raise ValueError('must be "prompt", "file:/path" or "credential:NAME"; a PIN itself is not written here')


def read_pin(source: PinSource, environment: Mapping[str, str] = os.environ) -> Pin:
    """The PIN that is in `source`; TokenError says why there is none.

    The file holds the PIN and at most one newline after it. Reads files: call it where waiting is allowed.
    """
    path = source_path(source, environment)
    credential = source.kind is SourceKind.CREDENTIAL
    try:
        value = read_trusted(
            path,
            largest=_LARGEST_FILE,
            forbidden_mode=_CREDENTIAL_BY_OTHERS if credential else _BY_OTHERS,
            symlink=False,
        )
    except UntrustedFileError as error:
        raise TokenError(f"pin_source: {path}: {error}") from error
    except OSError as error:
        raise TokenError(f"pin_source: {path}: {error.strerror}", _next_step(source)) from error
    for ending in (b"\n", b"\r"):
        if value.endswith(ending):
            value[-1:] = b""
    what = _why_no_pin(value)
    if what:
        value[:] = bytes(len(value))
        raise TokenError(f"pin_source: {path} {what}", "put the PIN there, alone on one line")
    return Pin(value)


def source_path(source: PinSource, environment: Mapping[str, str] = os.environ) -> Path:
    """The file that `source` means; TokenError if we were given no credentials."""
    if source.kind is SourceKind.FILE:
        return Path(source.name)
    folder = environment.get(_CREDENTIALS, "")
    if not folder:
        raise TokenError(
            f"pin_source: the agent has no credential {source.name}: {_CREDENTIALS} is not set",
            "start it as a systemd service with LoadCredential= or SetCredentialEncrypted=",
        )
    return Path(folder) / source.name


class ConfiguredPin:
    """The PIN of a source, which is not read again once the token refused it, until the source changes.

    Otherwise each signature would spend a try on the same wrong PIN.
    """

    def __init__(self, source: PinSource, environment: Mapping[str, str] = os.environ) -> None:
        self._source = source
        self._environment = environment
        self._read: tuple[int, ...] | None = None
        self._rejected: tuple[int, ...] | None = None

    def read(self) -> Pin:
        """As `read_pin`; TokenError also if what is in the source was refused before."""
        state = self._state()
        if self._rejected is not None and state == self._rejected:
            raise TokenError(
                f"pin_source: the token refused the PIN in {self._source}, so it is not tried again",
                "put the right PIN there",
            )
        pin = read_pin(self._source, self._environment)
        if self._state() != state:
            pin.wipe()
            raise TokenError(f"pin_source: {self._source} is being changed", "try again")
        self._read = state
        return pin

    def rejected(self) -> None:
        """The token refused the PIN that was read last."""
        self._rejected = self._read

    def _state(self) -> tuple[int, ...] | None:
        path = source_path(self._source, self._environment)
        try:
            status = path.lstat()
        except OSError:
            return None  # reading will say why
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _why_no_pin(value: bytearray) -> str:
    if not value:
        return "is empty"
    if len(value) > _LONGEST_PIN:
        return f"has more than {_LONGEST_PIN} bytes"
    if any(byte in b"\0\r\n" for byte in value):
        return "has more than one line"
    return ""


def _next_step(source: PinSource) -> str:
    if source.kind is SourceKind.CREDENTIAL:
        return f"give the service that credential: LoadCredential={source.name}:/path"
    return "put the PIN there, readable by you alone, or remove pin_source to be asked"
