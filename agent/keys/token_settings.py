"""The settings of each token, found in the configuration as it is now."""

from __future__ import annotations

import os

from replug.agent.config.model import Config, TokenSettings
from replug.agent.config.settings import Settings
from replug.token.identity import TokenId
from replug.token.names.pin_source import PinSource
from replug.token.pins.policy import PinPolicy, PolicyOf
from replug.token.pins.source import ConfiguredPin


class TokenSettingsFinder:
    """Looks up the settings and the PIN policy of a token in the current configuration."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known_for: Config | None = None
        self._known: dict[tuple[TokenId, str], TokenSettings] = {}
        self._sources: dict[tuple[str, PinSource], ConfiguredPin] = {}
        """By the URI of the [[token]] entry that names the source."""

    def of(self, token: TokenId, module_path: str) -> TokenSettings:
        """The settings of `token`, seen through the module with this real path."""
        config = self._settings.config
        if config is not self._known_for:
            self._known_for, self._known = config, {}
        settings = self._known.get((token, module_path))
        if settings is None:
            settings = self._known[token, module_path] = config.for_token(token, module_path)
        return settings

    def policies(self, module_path: str) -> PolicyOf:
        """The PIN policies of the tokens of a module."""

        def policy_of(token: TokenId) -> PinPolicy:
            settings = self.of(token, module_path)
            return PinPolicy(
                source=self._source(token, module_path, settings.pin_source),
                time_to_live=settings.pin_time_to_live,
                idle_time=settings.pin_idle_time,
                forget_on=settings.forget_pin_on,
            )

        return policy_of

    def _source(self, token: TokenId, module_path: str, source: PinSource | None) -> ConfiguredPin | None:
        """One object for each source: it remembers whose PIN it holds and whether the token refused it."""
        entry = self._settings.config.entry_for(token, module_path)
        if source is None or entry is None:
            return None
        return self._sources.setdefault((str(entry.uri), source), ConfiguredPin(source, os.environ))
