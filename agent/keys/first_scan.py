"""The reading of the tokens that are served from the beginning, for which the first requests wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from replug.token.modules.module import Module

_USUAL = 5.0  # seconds
_SLOW_CARD = 60.0  # seconds more while a card is visibly being read: `ssh` after login must not find no keys
_SIGN_OF_LIFE = 3.0  # seconds since the last one; a module that is silent for longer may be hung
_LOOK = 0.25  # seconds


class FirstScan:
    """Begun once, with the agent."""

    def __init__(self, modules: Callable[[], Iterable[Module]]) -> None:
        """`modules` are those that are being read."""
        self.done = True
        """Whether nothing is left to wait for."""
        self._modules = modules
        self._task: asyncio.Task[None] | None = None
        self._begun = 0.0
        """On the loop's clock."""

    def begin(self, scan: Coroutine[Any, Any, None]) -> None:
        """Scan in a task; `done` is true at its end."""
        self.done, self._begun = False, asyncio.get_running_loop().time()
        self._task = asyncio.create_task(self._run(scan))

    async def _run(self, scan: Coroutine[Any, Any, None]) -> None:
        try:
            await scan
        finally:
            self.done = True

    def cancel(self) -> None:
        """Scan no further."""
        if self._task is not None:
            self._task.cancel()

    async def wait(self) -> None:
        """Wait until it is done, but only some seconds: the first client may have started the agent."""
        if self.done or self._task is None:
            return
        loop = asyncio.get_running_loop()
        # From its beginning: a module that takes longer is not to delay each request by this.
        end = self._begun + _USUAL
        await asyncio.wait({self._task}, timeout=max(0.0, end - loop.time()))
        while (
            not self.done
            and loop.time() < end + _SLOW_CARD
            and any(module.shows_life(_SIGN_OF_LIFE) for module in self._modules())
        ):
            await asyncio.wait({self._task}, timeout=_LOOK)
