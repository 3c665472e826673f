"""The settings that hold now."""

from __future__ import annotations

from replug.agent.config.model import Config
from replug.agent.config.options import Options


class Settings:
    """Handed to all that follow the command line and the configuration; reload replaces what is in it."""

    def __init__(self, options: Options) -> None:
        self.options = options

    @property
    def config(self) -> Config:
        """What the configuration file says."""
        return self.options.config
