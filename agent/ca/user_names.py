"""Who a user is by the system's data: in a thread, because a directory service may be slow to say."""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from replug.agent.config.certificate_rule import GROUP, CertificateRule
from replug.agent.keys.refusal import RequestRefusedError
from replug.token.offload import Share, TooManyThreadsError, in_daemon_thread

_PATIENCE = 5.0  # seconds

T = TypeVar("T")


async def user_name(uid: int) -> str:
    """The name of the user with this number; RequestRefusedError if it cannot be found out."""
    return await _looked_up(uid, lambda: _name_of(uid))


async def name_and_rules(
    uid: int, rules: Sequence[CertificateRule]
) -> tuple[str, tuple[CertificateRule, ...]]:
    """The user's name, and those of the rules that name this user, or a group the user is in, now.

    RequestRefusedError if it cannot be found out.
    """
    return await _looked_up(uid, lambda: _name_and_rules(uid, rules))


async def _looked_up(uid: int, look: Callable[[], T]) -> T:
    try:
        async with asyncio.timeout(_PATIENCE):
            return await in_daemon_thread(Share.USER_NAMES, look)
    except KeyError as error:
        raise RequestRefusedError(f"user {uid} has no name on this machine") from error
    except (OSError, TimeoutError, TooManyThreadsError) as error:
        raise RequestRefusedError(f"the name of user {uid} was not looked up in time", "try again") from error


def _name_of(uid: int) -> str:
    return pwd.getpwuid(uid).pw_name


def _name_and_rules(uid: int, rules: Iterable[CertificateRule]) -> tuple[str, tuple[CertificateRule, ...]]:
    user = pwd.getpwuid(uid)
    groups = frozenset(os.getgrouplist(user.pw_name, user.pw_gid))

    def is_meant(name: str) -> bool:
        if not name.startswith(GROUP):
            return name == user.pw_name
        try:
            return grp.getgrnam(name.removeprefix(GROUP)).gr_gid in groups
        except KeyError:
            return False

    return user.pw_name, tuple(rule for rule in rules if any(map(is_meant, rule.users)))
