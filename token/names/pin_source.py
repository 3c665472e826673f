"""How a configuration names the source of a PIN."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum

_LONGEST_NAME = 255  # of a credential (systemd's credential_name_valid)
_PROMPT = "prompt"


class SourceKind(StrEnum):
    """The kind of a source."""

    FILE = "file"
    CREDENTIAL = "credential"


@dataclass(frozen=True)
class PinSource:
    """A source of a PIN; `name` is the file's absolute path or the credential's name."""

    kind: SourceKind
    name: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


def parse_pin_source(text: str) -> PinSource | None:
    """The source that `file:/path` or `credential:NAME` means, None for `prompt`; ValueError.

    The error does not repeat `text`: it may be a PIN, written there by mistake.
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
