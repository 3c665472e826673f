"""Reading the configuration again while the agent runs (SIGHUP, `systemctl --user reload`)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from replug.agent.config.file import config_path, load_config
from replug.agent.config.model import Config, ConfigError
from replug.agent.keyring import Keyring
from replug.token.offload import Share, TooManyThreadsError, in_daemon_thread

log = logging.getLogger(__name__)

_PATIENCE = 5.0  # seconds for the file; with those for sockets less than `replug reload` waits


class Reloader:
    """Applies the configuration file to `keyring`; `follow` has the rest follow it, in a few seconds."""

    def __init__(self, keyring: Keyring, follow: Callable[[], Awaitable[object]]) -> None:
        self._keyring = keyring
        self._follow = follow
        self._wanted = False
        self._read = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def read_at(self) -> float:
        """When the settings in force were read, in seconds since 1970."""
        return self._keyring.settings.read_at

    def reload(self) -> None:
        """Read the file again; if it is being read now, once more after that."""
        self._wanted = True
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._while_wanted())

    async def outcome(self) -> str:
        """Read the file again; why it was refused, or nothing: then it is in force."""
        self._read.clear()
        self.reload()
        await self._read.wait()
        return self._keyring.settings.refused

    async def finished(self) -> None:
        """Return when every reload that was requested is done."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _while_wanted(self) -> None:
        while self._wanted:
            self._wanted = False
            try:
                await self._reload()
            except Exception as error:
                log.exception("the configuration was not read again")
                self._refuse(f"unexpected {type(error).__name__}")

    def _refuse(self, reason: str) -> None:
        """Say that the settings of before hold; somebody may count on what the new file forgets."""
        log.error("the configuration was not read again: %s", reason)
        settings = self._keyring.settings
        in_force = ", ".join(sorted(settings.config.forget_pin_on)) or "nothing"
        read = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(settings.read_at))
        log.error("the settings read before remain in force", extra={"read": read, "forget_pin_on": in_force})
        settings.refuse(reason)
        self._tell()

    def _tell(self) -> None:
        # With another reading to come, that one counts.
        if not self._wanted:
            self._read.set()

    async def _reload(self) -> None:
        """Read the file and apply it; a file with errors is logged and changes nothing."""
        keyring = self._keyring
        try:
            async with asyncio.timeout(_PATIENCE):
                modules = self._keyring.settings.options.modules
                config = await in_daemon_thread(
                    Share.CONFIGURATION, lambda: load_config(config_path(), modules)
                )
        except (TimeoutError, TooManyThreadsError):
            self._refuse("the file system does not answer")
            return
        except ConfigError as error:
            self._refuse(str(error))
            return
        keyring.settings.accept()
        old = keyring.settings.config
        keyring.change_options(keyring.settings.options.with_config(config))
        for name in changes_needing_restart(old, config):
            log.warning("takes effect when the agent is restarted", extra={"setting": name})
        await self._follow()
        self._tell()
        await keyring.certificate_files.look()
        await keyring.serve_configured()
        log.info("configuration read again")


def changes_needing_restart(old: Config, new: Config) -> list[str]:
    """The names of the keys that differ and that need a restart of the agent."""
    from replug.agent.config.keys import GLOBAL_KEYS, TOKEN_KEYS

    def entries(config: Config, name: str) -> list[object]:
        return [(entry.uri, getattr(entry, name)) for entry in config.tokens if getattr(entry, name)]

    def changed() -> Iterator[str]:
        for key in GLOBAL_KEYS:
            if key.needs_restart and getattr(old, key.name) != getattr(new, key.name):
                yield key.name
        for key in TOKEN_KEYS:
            if key.needs_restart and entries(old, key.name) != entries(new, key.name):
                yield f"[[token]] {key.name}"

    return list(changed())


async def reload(reloader: Reloader) -> dict[str, Any]:
    """Read the file again, as `replug reload` asks: why it is refused, if it is, and when it was not."""
    return {"version": 1, "refused": await reloader.outcome(), "read": reloader.read_at}
