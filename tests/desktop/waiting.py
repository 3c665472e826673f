"""Waiting in these tests: for what happens on the loop, and for what happens in a service's thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from rigs.message_bus import BusService

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """What `main` returns; a test that waits for what never comes fails after a minute."""
    return asyncio.run(asyncio.wait_for(main, 60))


async def seen(service: BusService, condition: Callable[[], bool]) -> None:
    """Return when the service has been asked for something that makes `condition` hold."""
    await asyncio.to_thread(service.wait_until, condition)


async def until(condition: Callable[[], object]) -> None:
    """Return when `condition` holds."""
    while not condition():  # noqa: ASYNC110 - of what may be in another thread or process
        await asyncio.sleep(0.005)
