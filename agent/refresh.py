"""Reading the tokens that are in again, as `replug refresh` asks: keys made or deleted elsewhere show."""

from __future__ import annotations

import asyncio
from typing import Any

from replug.agent.keyring import Keyring
from replug.token.errors import TokenError
from replug.token.modules.module import Module
from replug.token.serving.served import ServedToken


async def refresh(keyring: Keyring) -> dict[str, Any]:
    """The tokens that are in, with the number of their keys before and after. No PIN is asked for or sent.

    Their logins end, as a module shows another program's changes only to a new process.
    """
    if keyring.locked:
        return {"version": 1, "refused": "the agent is locked: unlock it with ssh-add -X", "tokens": []}
    read = await asyncio.gather(*(_refresh(module) for module in keyring.modules()))
    return {"version": 1, "refused": "", "tokens": [one for each in read for one in each]}


async def _refresh(module: Module) -> list[dict[str, Any]]:
    before = {token: set(token.keys) for token in module.tokens.values() if token.present}
    try:
        await module.look_again()
    except TokenError as error:
        return [_described(token, keys, error) for token, keys in before.items()]
    read = []
    for token in [token for token in module.tokens.values() if token.present]:
        try:
            await token.read()
            read.append(_described(token, before.get(token, set())))
        except TokenError as error:
            read.append(_described(token, before.get(token, set()), error))
    return read


def _described(token: ServedToken, before: set[bytes], error: TokenError | None = None) -> dict[str, Any]:
    now = set(token.keys)
    return {
        "token": str(token.identity),
        "keys": len(now),
        "new": len(now - before),
        "gone": len(before - now),
        "failed": "" if error is None else str(error),
    }
