"""The settings in effect."""

from __future__ import annotations

import time

from replug.agent.config.model import Config
from replug.agent.config.options import Options


class Settings:
    """Shared by everything that depends on options and configuration; a reload replaces its contents."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.read_at = time.time()
        """When the settings in force were read, in seconds since 1970."""
        self.refused = ""
        """Why the configuration file, as it is now, is not in force; then what was read before is."""
        self.refused_since: float | None = None
        """When it was first refused, in seconds since 1970."""

    def refuse(self, reason: str) -> None:
        """Note that the file is refused; what was read before remains in force."""
        self.refused = reason
        if self.refused_since is None:
            self.refused_since = time.time()

    def accept(self) -> None:
        """Note that what the file says now is in force."""
        self.refused, self.refused_since = "", None
        self.read_at = time.time()

    @property
    def config(self) -> Config:
        """The configuration file."""
        return self.options.config
