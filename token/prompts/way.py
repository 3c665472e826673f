"""The ways to ask the user, by the names that `prompt` has for them in the configuration."""

from __future__ import annotations

from typing import Literal

PromptWay = Literal["auto", "pinentry", "askpass", "terminal", "systemd"]
