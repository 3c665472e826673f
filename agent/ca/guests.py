"""Guests: other users of the machine, for whom the agent is a service that makes certificates.

A `[[certificate]]` names them. A guest lists certificates of their own and signs with them, and nothing else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from replug.agent.ca.user_names import name_and_rules
from replug.agent.clients.client import Client
from replug.agent.config.settings import Settings
from replug.agent.keys.refusal import RequestRefusedError
from replug.token.hardening import tells_users_apart
from replug.token.requester import Guest

MOST_CERTIFICATES = 10
"""That are tried for one guest in a minute: the CA keys are for all."""
MOST_SIGNATURES = 600
"""For one guest in a minute: each is a line in the log, which is for all."""
_WITHIN = 60.0  # seconds


class Guests:
    """Who is one, by the configuration and the machine's users as they are now."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def why_none(self) -> RequestRefusedError | None:
        """Why no other user may connect; None if some may."""
        if not self._settings.config.guest_rules:
            return RequestRefusedError("connection from another user")
        if not tells_users_apart():
            return RequestRefusedError(
                "connection from another user, whom an agent in a user namespace cannot tell from others",
                "remove PrivateUsers= from its unit; in a container, let that have all users' numbers",
            )
        return None

    async def admit(self, client: Client) -> None:
        """Note who this is, and which rules name them now; RequestRefusedError if none does."""
        uid = client.peer.uid
        name, rules = await name_and_rules(uid, self._settings.config.guest_rules)
        client.guest = Guest(uid, name)
        if rules != client.guest_rules:
            client.guest_rules = rules
        if not rules:
            raise RequestRefusedError(
                f"no [[certificate]] names user {name}, nor a group that {name} is in now",
                "see users in config.toml, and id(1)",
            )


class Allowance:
    """How often something is done for one guest in a minute."""

    def __init__(self, clock: Callable[[], float], most: int, what: str) -> None:
        """`clock` is in seconds; `what` is the plural of a noun."""
        self._clock = clock
        self._most = most
        self._what = what
        self._tried: dict[int, deque[float]] = {}
        """When, by user, within the last minute."""

    def take(self, guest: Guest) -> None:
        """Count one; RequestRefusedError if there were too many."""
        since = self._clock() - _WITHIN
        for uid, times in list(self._tried.items()):
            while times and times[0] <= since:
                times.popleft()
            if not times:
                del self._tried[uid]
        times = self._tried.setdefault(guest.uid, deque())
        if len(times) >= self._most:
            raise RequestRefusedError(
                f"{self._most} {self._what} were asked for within {_WITHIN:g} s for user {guest.name}",
                f"try again in {times[0] - since:.0f} s",
            )
        times.append(self._clock())
