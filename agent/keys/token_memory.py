"""The tokens seen before this agent started, and their public keys: `tokens.json` in the state folder.

With `wait_for_token` their keys are listed while they are out, from the first minute on. Nothing in the file
is secret; what it says holds until the token itself is read.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from replug.agent.config.settings import Settings
from replug.protocol.keys import parse_public_key
from replug.protocol.wire import ProtocolError
from replug.token.identity import LONGEST_LABEL, TokenId
from replug.token.keys import LONGEST_ID, LONGEST_REFERENCE, TokenKey
from replug.token.names.p11kit import ModuleSource
from replug.token.offload import Share, TooManyThreadsError, in_daemon_thread
from replug.token.serving.served import ServedToken
from replug.token.trusted_file import UntrustedFileError, make_folder, read_trusted, write_whole
from replug.token.written_later import WrittenLater

log = logging.getLogger(__name__)

_VERSION = 1
_LARGEST = 4 * 1024 * 1024  # bytes of the file
_MOST = 32  # tokens
_MOST_KEYS = 1024  # of all of them: each costs at every change of what is listed
_LONGEST = 64  # characters of a field of a token
_PATH_MAX = 4096
_FORGOTTEN_AFTER = 90 * 24 * 3600  # seconds without a token
_NEWS = 24 * 3600  # seconds: to have been seen this much later is worth writing down
_PATIENCE = 8.0  # seconds for the file

_Place = tuple[str, str, TokenId]
"""The path of the module, the address of its server, and the token."""


@dataclass(frozen=True)
class RememberedToken:
    """A token as it was when it was last in."""

    identity: TokenId
    keys: tuple[TokenKey, ...]
    hidden: frozenset[bytes]
    """The blobs of those that it shows only after login."""
    seen: float
    """When, in seconds since the epoch."""


class TokenMemory:
    """Nothing is read, written or remembered unless the settings have the agent wait for tokens."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known: dict[_Place, RememberedToken] = {}
        self._loaded = False
        self._file = WrittenLater(Share.SEEN_BEFORE, self._contents, "the tokens are not remembered")

    async def load(self) -> None:
        """Read the file, once. What is wrong with it is logged."""
        if self._loaded or not self._settings.config.wait_for_token:
            return
        try:
            async with asyncio.timeout(_PATIENCE):
                self._known = await in_daemon_thread(Share.SEEN_BEFORE, _read)
        except (TimeoutError, TooManyThreadsError):
            log.info("the tokens seen before are unknown", extra={"why": "the file system does not answer"})
        self._loaded = True

    def of(self, source: ModuleSource) -> list[RememberedToken]:
        """The tokens of a module."""
        if not self._settings.config.wait_for_token:
            return []
        return [one for place, one in self._known.items() if place[:2] == _place(source)]

    def note(self, tokens: Iterable[tuple[ModuleSource, ServedToken]]) -> None:
        """Remember the tokens that are in. To be called after every change of tokens or keys."""
        if not self._loaded or not self._settings.config.wait_for_token:
            return
        before = dict(self._known)
        for source, token in tokens:
            if token.present and token.was_read:
                self._remember((*_place(source), token.identity), token)
        if self._known != before:
            self._file.plan()

    def _remember(self, place: _Place, token: ServedToken) -> None:
        if not token.keys:
            self._known.pop(place, None)
            return
        now = RememberedToken(token.identity, (*token.keys.values(),), token.hidden_keys, time.time())
        before = self._known.get(place)
        if before is None or replace(now, seen=before.seen) != before or now.seen - before.seen > _NEWS:
            self._known[place] = now

    def _contents(self) -> Callable[[], None]:
        latest = sorted(self._known.items(), key=lambda item: item[1].seen, reverse=True)
        known = [*_bounded(latest)]
        return lambda: _write_file(_encoded(known))


def _place(source: ModuleSource) -> tuple[str, str]:
    return source.path, source.arguments.server_address


def _bounded(
    known: Iterable[tuple[_Place, RememberedToken]],
) -> Iterator[tuple[_Place, RememberedToken]]:
    """The first of them, as many as are remembered."""
    keys = 0
    for place, remembered in islice(known, _MOST):
        keys += len(remembered.keys)
        if keys <= _MOST_KEYS:
            yield place, remembered


def _path() -> Path:
    import platformdirs  # slow

    return platformdirs.user_state_path("replug") / "tokens.json"


def _write_file(text: bytes) -> None:
    path = _path()
    make_folder(path.parent)
    write_whole(path, text, 0o600)


def _read() -> dict[_Place, RememberedToken]:
    path = _path()
    try:
        return dict(_bounded(_decoded(json.loads(read_trusted(path, largest=_LARGEST)))))
    except FileNotFoundError:
        return {}
    except (OSError, UntrustedFileError) as error:
        why = str(error)
    except (ArithmeticError, ValueError, TypeError, LookupError, AttributeError, ProtocolError) as error:
        why = f"it is not what this version writes: {error!r}"
    except RecursionError:
        why = "it is not what this version writes: it is nested too deep"
    log.warning("the tokens seen before are unknown", extra={"path": str(path), "why": why})
    return {}


def _encoded(known: Iterable[tuple[_Place, RememberedToken]]) -> bytes:
    tokens = [
        {
            "module": path,
            "server": server,
            "token": identity.fields,
            "seen": round(remembered.seen),
            "keys": [
                {
                    "blob": base64.b64encode(key.blob).decode(),
                    "label": key.label,
                    "id": key.key_id.hex(),
                    "reference": key.reference,
                    "signs": key.signs,
                    "always_authenticate": key.always_authenticate,
                    "hidden": key.blob in remembered.hidden,
                }
                for key in remembered.keys
            ],
        }
        for (path, server, identity), remembered in known
    ]
    return json.dumps({"version": _VERSION, "tokens": tokens}, indent=1).encode() + b"\n"


def _decoded(values: dict[str, Any]) -> Iterable[tuple[_Place, RememberedToken]]:
    if values["version"] != _VERSION:
        raise ValueError(f"version {values['version']}")
    for token in values["tokens"]:
        identity = _decoded_identity(**token["token"])
        keys = tuple(_decoded_key(key) for key in token["keys"])
        hidden = frozenset(one.blob for one, key in zip(keys, token["keys"], strict=True) if key["hidden"])
        seen = min(float(token["seen"]), time.time())
        if time.time() - seen < _FORGOTTEN_AFTER:
            place = (_text(token["module"], _PATH_MAX), _text(token["server"], _PATH_MAX), identity)
            yield place, RememberedToken(identity, keys, hidden, seen)


def _decoded_identity(manufacturer: str, model: str, serial: str, label: str, copy: int) -> TokenId:
    manufacturer, model, serial, label = (_text(field) for field in (manufacturer, model, serial, label))
    if not 0 <= int(copy) < _MOST_KEYS:
        raise ValueError(f"copy {copy}")
    return TokenId(manufacturer, model, serial, label, int(copy))


def _decoded_key(key: dict[str, Any]) -> TokenKey:
    public = parse_public_key(base64.b64decode(key["blob"], validate=True))
    return TokenKey(
        public=public,
        blob=public.encode(),
        label=_text(key["label"], LONGEST_LABEL),
        key_id=bytes.fromhex(_text(key["id"], 2 * LONGEST_ID)),
        reference=_text(key["reference"], LONGEST_REFERENCE),
        signs=bool(key["signs"]),
        always_authenticate=bool(key["always_authenticate"]),
    )


def _text(value: object, longest: int = _LONGEST) -> str:
    """A text that UTF-8 has bytes for; ValueError."""
    if not isinstance(value, str) or len(value) > longest:
        raise ValueError("a text is none, or too long")
    value.encode()
    return value
