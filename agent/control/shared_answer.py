"""What `replug` asks is answered once for all who wait when that begins, however many they are."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from replug.token.pieces import Pieces
from replug.token.requester import NOBODY, requester
from replug.token.serving.shared import result_of

Answer: TypeAlias = Mapping[str, Any]
Make: TypeAlias = Callable[[], Answer | Awaitable[Answer]]


class SharedAnswer:
    """The answers to one command, one after the other, as `make` makes them."""

    def __init__(self, make: Make) -> None:
        self._make = make
        self._under_way: asyncio.Task[bytes] | None = None
        self._next: asyncio.Task[bytes] | None = None

    async def get(self) -> bytes:
        """An answer, a line of JSON, begun from now on: one that is under way may say what was before."""
        if self._next is None:
            self._next = asyncio.create_task(self._made_after(self._under_way))
        return await result_of(self._next)

    async def _made_after(self, earlier: asyncio.Task[bytes] | None) -> bytes:
        if earlier is not None:
            await asyncio.wait([earlier])
        self._under_way, self._next = self._next, None
        requester.set(NOBODY)  # it is made for all of them
        answer = self._make()
        return await _encoded(await answer if isinstance(answer, Awaitable) else answer)


async def _encoded(answer: Answer) -> bytes:
    """The answer as a line of JSON; one that names many keys takes its time."""
    pieces, fields = Pieces(), []
    for name, value in answer.items():
        encoded = []
        for one in value if isinstance(value, list) else ():
            await pieces.next()
            encoded.append(json.dumps(one))
        text = f"[{', '.join(encoded)}]" if isinstance(value, list) else json.dumps(value)
        fields.append(f"{json.dumps(name)}: {text}")
    return f"{{{', '.join(fields)}}}\n".encode()
