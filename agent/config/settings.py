"""The settings in effect."""

from __future__ import annotations

from replug.agent.config.model import Config
from replug.agent.config.options import Options


class Settings:
    """Shared by everything that depends on options and configuration; a reload replaces its contents."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.refused = ""
        """Why the configuration file, as it is now, is not in force; then what was read before is."""

    @property
    def config(self) -> Config:
        """The configuration file."""
        return self.options.config
