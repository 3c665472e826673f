"""One scan of a module's slots by a worker: who is in them. Tokens that are alike are told apart.

`Module` decides when to scan, and `ServedTokens` what it means.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from replug.token.errors import WorkerRefusedError
from replug.token.identity import TokenId, TokenInfo
from replug.token.modules.twins import Known, Seen, tell_apart
from replug.token.serving.opening import read_all
from replug.token.serving.served import ServedToken
from replug.token.worker.client import Slots, WorkerClient

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class View:
    """The slots as one worker saw them."""

    worker: int
    """Its process id."""
    slots: Slots


async def scan(
    worker: WorkerClient, known: View | None, path: str, alike: Callable[[TokenId], list[ServedToken]]
) -> tuple[View, list[TokenInfo]] | None:
    """The slots and the tokens in them; None if this worker still sees what is `known`.

    `path` is the module's. `alike` returns the served tokens of which a token says the same as this one.
    """
    view = View(worker.pid, await worker.slots())
    if view == known:
        return None
    infos = await worker.scan()
    who: dict[int, TokenId] = {}
    namesakes: dict[TokenId, list[TokenInfo]] = {}
    for info in infos:
        namesakes.setdefault(info.identity, []).append(info)
    for original, group in namesakes.items():
        who |= await _tell_apart(worker, group, path, alike(original))
        await asyncio.sleep(0)  # there may be a hundred tokens, and others want their turn
    return view, [replace(info, identity=who[info.slot]) for info in infos]


async def _tell_apart(
    worker: WorkerClient, infos: list[TokenInfo], path: str, alike: list[ServedToken]
) -> dict[int, TokenId]:
    """Who the tokens are, by their slots, that are alike in all that `infos` say."""
    [original] = {info.identity for info in infos}
    unique = original.has_serial and not any(token.pin_owner.has_twin for token in alike)
    if len(infos) == 1 and (not alike or (len(alike) == 1 and unique)):
        return {infos[0].slot: alike[0].identity if alike else original}
    if not alike:
        log.warning(
            "several tokens are alike; their keys, and then their slots, tell them apart",
            extra={"token": str(original), "path": path, "tokens": len(infos)},
        )
    seen = [Seen(info, await _keys_in(worker, info.slot)) for info in infos]
    served = [Known(token.identity, token.slot, token.pin_owner.keys.known) for token in alike]
    return dict(zip((info.slot for info in infos), tell_apart(seen, served), strict=True))


async def _keys_in(worker: WorkerClient, slot: int) -> set[bytes]:
    """The keys that the token in `slot` shows; none if it cannot be read: others can."""
    try:
        return set((await read_all(await worker.peek(slot))).keys)
    except WorkerRefusedError:
        return set()
