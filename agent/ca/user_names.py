"""The name of the user who asks: in a thread, because a directory service may be slow to say."""

from __future__ import annotations

import asyncio
import pwd

from replug.agent.keys.refusal import RequestRefusedError
from replug.token.offload import Share, TooManyThreadsError, in_daemon_thread

_PATIENCE = 5.0  # seconds


async def user_name(uid: int) -> str:
    """The name of the user with this number; RequestRefusedError if it cannot be found out."""
    try:
        async with asyncio.timeout(_PATIENCE):
            return await in_daemon_thread(Share.USER_NAMES, lambda: _name_of(uid))
    except KeyError as error:
        raise RequestRefusedError(f"user {uid} has no name on this machine") from error
    except (TimeoutError, TooManyThreadsError) as error:
        raise RequestRefusedError(f"the name of user {uid} was not looked up in time", "try again") from error


def _name_of(uid: int) -> str:
    return pwd.getpwuid(uid).pw_name
