"""A provider that is served, and its identities.

They are made from the keys of its tokens, the settings and the certificates, and include those of tokens that
are out: these return at once with their token, and `Identities` leaves them out of listings until then.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import TypeAlias

from replug.agent.config.comment_template import fill_template
from replug.agent.config.key_choice import chosen_keys
from replug.agent.config.model import TokenSettings
from replug.agent.keys.certificate_files import CertificateFiles
from replug.agent.keys.certificates import Certificates
from replug.agent.keys.constraints import KeyConstraints
from replug.agent.keys.identity import TokenBackedIdentity
from replug.token.keys import TokenKey
from replug.token.modules.provider import Provider
from replug.token.serving.served import ServedToken

SettingsFinder: TypeAlias = Callable[[ServedToken], TokenSettings]
"""The settings of a token as they are now."""

log = logging.getLogger(__name__)

MOST_IDENTITIES = 1024
"""Of one provider: each costs at every change, and a module may show any number of tokens full of keys."""
_ALL_KEYS = ("*",)
_BY_LABEL = "{label}"


@dataclass
class ServedProvider:
    """A provider, with the constraints and certificates it was added with and the settings of its tokens."""

    provider: Provider
    constraints: KeyConstraints
    certificates: Certificates
    """Those that came with the request to add it."""
    certificate_files: CertificateFiles
    settings_of: SettingsFinder
    certificates_only: bool = False
    """Whether only certificates are listed, and not the keys they are for."""
    lifetime_given: bool = False
    """Whether it was added with a lifetime, which then takes precedence over the configuration's."""
    added: float = 0.0
    """When it was added, on the boot clock."""
    configured: bool = False
    """Whether the configuration names it and no user added it."""
    removed: frozenset[bytes] = frozenset()
    """Blobs of single identities that were removed since."""
    identities: tuple[TokenBackedIdentity, ...] = field(default=(), init=False)
    """Those that were not removed; the tokens may be out."""
    _said_full: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.update()

    def update(self) -> None:
        """Make the identities again, after a change of tokens, settings, certificates or `removed`."""
        of_tokens = (self._identities(token) for token in self.provider.tokens())
        identities = chain.from_iterable(of_tokens)
        self.identities = tuple(islice(identities, MOST_IDENTITIES))
        if next(identities, None) is not None and not self._said_full:
            self._said_full = True
            log.warning(
                "only the first keys of the provider are served",
                extra={"provider": self.provider.shown, "keys": MOST_IDENTITIES},
            )

    def _identities(self, token: ServedToken) -> Iterator[TokenBackedIdentity]:
        settings = self.settings_of(token)
        constraints = self._constraints_by(settings)
        for key in self._keys_by(settings, token):
            comment = self._comment_by(settings, key, token).encode()
            blobs = self._certificates_for(key)
            if not self.certificates_only:
                blobs = (*blobs, key.blob)
            for blob in blobs:
                if blob not in self.removed:
                    yield TokenBackedIdentity(blob, comment, constraints, key, token)

    def expires_on(self, token: ServedToken) -> float | None:
        """When the identities on `token` are dropped, on the boot clock; None is never."""
        return self._constraints_by(self.settings_of(token)).expires

    @property
    def expiries(self) -> list[float | None]:
        """These times for all its tokens; if it has none yet, the one it was added with."""
        return [self.expires_on(token) for token in self.provider.tokens()] or [self.constraints.expires]

    def _certificates_for(self, key: TokenKey) -> tuple[bytes, ...]:
        found = self.certificates.of_key(key.blob) + self.certificate_files.known.of_key(key.blob)
        return tuple(dict.fromkeys(found))

    def _keys_by(self, settings: TokenSettings, token: ServedToken) -> list[TokenKey]:
        keys = self.provider.keys_on(token)
        return keys if settings.keys == _ALL_KEYS else chosen_keys(keys, settings.keys)

    def _comment_by(self, settings: TokenSettings, key: TokenKey, token: ServedToken) -> str:
        if settings.comment == _BY_LABEL:
            return key.label or self.provider.name
        return fill_template(settings.comment, key, token.identity) or self.provider.name

    def _constraints_by(self, settings: TokenSettings) -> KeyConstraints:
        constraints = self.constraints
        if settings.confirm:
            constraints = replace(constraints, confirm=constraints.confirm | settings.confirm)
        if settings.lifetime is not None and not self.lifetime_given:
            constraints = replace(
                constraints, expires=self.added + settings.lifetime if settings.lifetime else None
            )
        return constraints
