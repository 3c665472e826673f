"""Work of the event loop that takes long, in pieces."""

from __future__ import annotations

import asyncio
import time

_PIECE = 0.001  # seconds


class Pieces:
    """Between two of them everything else has its turn."""

    def __init__(self) -> None:
        self._end = time.monotonic() + _PIECE

    async def next(self) -> None:
        """Call it often; it returns at once unless the piece has taken long enough."""
        if time.monotonic() >= self._end:
            await asyncio.sleep(0)
            self._end = time.monotonic() + _PIECE
