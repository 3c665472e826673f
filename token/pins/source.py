"""Reads the PIN of a token from a file or a systemd credential, so that no user has to type it.

This is for network HSMs and unattended machines. Anyone who can read the file has the PIN, so it must belong
to the user and be closed to all others.
"""

from __future__ import annotations

import stat
import threading
from collections.abc import Mapping
from pathlib import Path

from replug.protocol.secrets import wipe
from replug.token.errors import TokenError
from replug.token.names.pin_source import PinSource, SourceKind
from replug.token.pins.owner import PinOwner
from replug.token.pins.pin import LONGEST_PIN, Pin, PinPast
from replug.token.trusted_file import UntrustedFileError, read_trusted

_LARGEST_FILE = LONGEST_PIN + len(b"\r\n")
_CREDENTIALS = "CREDENTIALS_DIRECTORY"
_BY_OTHERS = stat.S_IRWXG | stat.S_IRWXO
# For a service of another user systemd leaves the file root's and lets that user read it by an ACL, the mask
# of which shows as the group's bits.
_CREDENTIAL_BY_OTHERS = _BY_OTHERS & ~stat.S_IRGRP


def read_pin(source: PinSource, environment: Mapping[str, str]) -> Pin:
    """The PIN in `source`; TokenError if there is none.

    The file holds the PIN and at most one newline after it. `environment` says where credentials are. This
    reads files, so it may block.
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
    reason = _why_no_pin(value)
    if reason:
        wipe(value)
        raise TokenError(f"pin_source: {path} {reason}", "put the PIN there, alone on one line")
    return Pin(value)


def source_path(source: PinSource, environment: Mapping[str, str]) -> Path:
    """The file of `source`; TokenError if it is a credential and the agent was given none."""
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
    """The PIN of a source, for one token.

    As long as the source does not change, everything read from it counts as one PIN: once the token has
    refused it, or has not answered, it is not read again. Otherwise each signature would spend a try on the
    same wrong PIN. That a changed source still holds it (a backup, a `chmod` or a `touch` is no user who has
    entered another) is known by the mark of it (`refused.py`).
    """

    def __init__(self, source: PinSource, environment: Mapping[str, str]) -> None:
        self._source = source
        self._environment = environment
        self._owner: PinOwner | None = None
        self._read: tuple[int, ...] | None = None
        self._past: PinPast | None = None
        """The past of the PIN that was read when the source was in the state `_read`."""
        self._replaced = False
        """Whether that PIN replaced one that the token had refused."""
        self._one_reader = threading.Lock()

    def read(self, owner: PinOwner) -> Pin:
        """As `read_pin`, for the token `owner`; may be called from any thread.

        TokenError also if the token has refused this PIN, or if it was read for another token before.
        """
        with self._one_reader:
            if self._owner is not None and not _has_same_pin(self._owner, owner):
                raise TokenError(
                    f"pin_source: the PIN in {self._source} is that of {self._owner.token}"
                    f" behind {self._owner.module}",
                    "give each token a [[token]] of its own, with its serial, or its module-path, in the uri",
                )
            state = self._state()
            same = state is not None and state == self._read
            if same and self._past is not None and self._past.rejected:
                raise self.refusal
            if same and self._past is not None:
                past, replaced = self._past, self._replaced
            else:
                past, replaced = PinPast(), self._past is not None and self._past.rejected
            pin = read_pin(self._source, self._environment)
            if self._state() != state:
                pin.wipe()
                raise TokenError(f"pin_source: {self._source} is being changed", "try again")
            self._owner, self._read, self._past, self._replaced = owner, state, past, replaced
            return Pin(pin.value, past=past, configured=True, chosen_now=replaced)

    @property
    def refusal(self) -> TokenError:
        """Why a PIN that the token has refused is not sent again."""
        return TokenError(
            f"pin_source: the token refused the PIN in {self._source}, so it is not tried again",
            "put the right PIN there",
        )

    def _state(self) -> tuple[int, ...] | None:
        path = source_path(self._source, self._environment)
        try:
            status = path.lstat()
        except OSError:
            return None  # reading it will raise
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _has_same_pin(one: PinOwner, other: PinOwner) -> bool:
    """Whether a PIN of `one` is for `other`, too, which may be the same token after it was added again."""
    return one.is_same_token(other) or (one.module, one.token) == (other.module, other.token)


def _why_no_pin(value: bytearray) -> str:
    """Why `value` cannot be a PIN; empty if it can."""
    if not value:
        return "is empty"
    if len(value) > LONGEST_PIN:
        return f"has more than {LONGEST_PIN} bytes"
    if any(byte in b"\0\r\n" for byte in value):
        return "has more than one line"
    return ""


def _next_step(source: PinSource) -> str:
    if source.kind is SourceKind.CREDENTIAL:
        return f"give the service that credential: LoadCredential={source.name}:/path"
    return "put the PIN there, readable by you alone, or remove pin_source to be asked"
