"""PKCS#11 URIs (RFC 7512): parse, format, and match against tokens and keys.

Path attributes choose a token and a key on it; query attributes name the module. Attributes that give a PIN
are refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote_from_bytes, unquote_to_bytes

from replug.protocol.visible_text import visible
from replug.token.identity import TokenId
from replug.token.keys import TokenKey

_SCHEME = "pkcs11:"
# RFC 7512 section 2.3: what may stand for itself, besides percent-encoded octets.
_UNRESERVED = r"A-Za-z0-9\-._~:\[\]@!$'()*+,="
_PATH_VALUE = re.compile(rf"(?:[{_UNRESERVED}&]|%[0-9A-Fa-f]{{2}})*", re.ASCII)
_QUERY_VALUE = re.compile(rf"(?:[{_UNRESERVED}/?|]|%[0-9A-Fa-f]{{2}})*", re.ASCII)
_SAFE_IN_PATH = "-._~:[]@!$'()*+,=&"
_SAFE_IN_QUERY = "-._~:[]@!$'()*+,=/?|"

# Attributes of the URI, and the field that holds each.
_PATH_ATTRIBUTES = {
    "token": "token",
    "manufacturer": "manufacturer",
    "serial": "serial",
    "model": "model",
    "object": "object",
    "id": "key_id",
    "type": "type",
}
_QUERY_ATTRIBUTES = {
    "module-path": "module_path",
    "module-name": "module_name",
    "x-replug-pin-only": "pin_only",
}
_PIN_ATTRIBUTES = ("pin-value", "pin-source")
_KEY_TYPES = ("public", "private", "cert")


class UriError(ValueError):
    """The text is not a PKCS#11 URI, or one that cannot name SSH keys."""


@dataclass(frozen=True)
class Uri:
    """A PKCS#11 URI; an attribute that is None is absent and matches everything."""

    token: str | None = None
    manufacturer: str | None = None
    serial: str | None = None
    model: str | None = None
    object: str | None = None
    key_id: bytes | None = None
    type: str | None = None
    module_path: str | None = None
    module_name: str | None = None
    pin_only: str | None = None
    """Ours: with any value, the agent is given the PIN of what it serves, and is to serve nothing else."""

    def __str__(self) -> str:
        """The canonical form (RFC 7512 section 2.3)."""
        path = ";".join(self._formatted(_PATH_ATTRIBUTES, _SAFE_IN_PATH))
        query = "&".join(self._formatted(_QUERY_ATTRIBUTES, _SAFE_IN_QUERY))
        return f"{_SCHEME}{path}?{query}" if query else f"{_SCHEME}{path}"

    def _formatted(self, attributes: dict[str, str], safe: str) -> list[str]:
        parts = []
        for name, field_name in attributes.items():
            value = getattr(self, field_name)
            if value is None:
                continue
            if name == "id":
                # Section 2.3: the whole id SHOULD be percent-encoded.
                text = "".join(f"%{octet:02X}" for octet in value)
            else:
                text = quote_from_bytes(value.encode(), safe=safe)
            parts.append(f"{name}={text}")
        return parts

    def matches_token(self, identity: TokenId) -> bool:
        """Whether the given token attributes are those of `identity`."""
        return (
            self.token in (None, identity.label)
            and self.manufacturer in (None, identity.manufacturer)
            and self.serial in (None, identity.serial)
            and self.model in (None, identity.model)
        )

    def matches_key(self, key: TokenKey) -> bool:
        """Whether the given object attributes are those of `key`."""
        return self.key_id in (None, key.key_id) and self.object in (None, key.label)

    def same_choice(self, other: Uri) -> bool:
        """Whether both choose the same tokens and keys, whatever their modules."""
        return all(
            getattr(self, field_name) == getattr(other, field_name)
            for field_name in _PATH_ATTRIBUTES.values()
        )


def is_uri(text: str) -> bool:
    """Whether `text` is meant as a PKCS#11 URI (schemes ignore case, RFC 3986 section 3.1)."""
    return text[: len(_SCHEME)].lower() == _SCHEME


def parse_uri(text: str) -> Uri:
    """Parse `text`; UriError with the reason if it is not a URI we accept."""
    if not is_uri(text):
        raise UriError(f"does not begin with {_SCHEME}")
    path, _, query = text[len(_SCHEME) :].partition("?")
    values: dict[str, str | bytes] = {}
    if path:
        _collect(path.split(";"), _PATH_ATTRIBUTES, _PATH_VALUE, values)
    if query:
        _collect(query.split("&"), _QUERY_ATTRIBUTES, _QUERY_VALUE, values)
    if values.get("type", "private") not in _KEY_TYPES:
        raise UriError(f"type={values['type']!s} is not a kind of key")
    if "module_path" in values and not str(values["module_path"]).startswith("/"):
        raise UriError("module-path is not absolute")
    if "/" in str(values.get("module_name", "")):
        raise UriError("module-name is a path")
    return Uri(**values)  # type: ignore[arg-type]  # _collect gives each field the type it declares


def _collect(
    parts: list[str], attributes: dict[str, str], pattern: re.Pattern[str], values: dict[str, str | bytes]
) -> None:
    seen: set[str] = set()
    for part in parts:
        name, equals, encoded = part.partition("=")
        if not equals or not name:
            # The query may hold a piece of a PIN.
            what = visible(part) if attributes is _PATH_ATTRIBUTES else "something in the query"
            raise UriError(f"{what} is not an attribute with a value")
        if name in seen:
            raise UriError(f"{visible(name)} is given twice")
        seen.add(name)
        if not pattern.fullmatch(encoded):
            raise UriError(f"the value of {name} has characters that must be percent-encoded")
        if name in _PIN_ATTRIBUTES:
            # Every user can read a command line, and a file that someone else names must not be read.
            raise UriError(f"a PIN is not taken from a URI: leave {name} out and type it")
        if name in attributes:
            values[attributes[name]] = _decode(name, encoded)
        elif attributes is _PATH_ATTRIBUTES:
            # It narrows the choice in a way we cannot apply: by slot, by library, or vendor-specific.
            raise UriError(f"attribute {visible(name)} is not supported")


def _decode(name: str, encoded: str) -> str | bytes:
    raw = unquote_to_bytes(encoded)
    if b"\0" in raw and name != "id":
        raise UriError(f"the value of {name} has a NUL")
    if name == "id":
        return raw
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise UriError(f"the value of {name} is not UTF-8") from error
