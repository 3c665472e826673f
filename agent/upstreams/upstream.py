"""Another agent: what it lists, and whether it answers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextvars import Context

from replug.agent.keys.refusal import RequestRefusedError
from replug.agent.upstreams.connecting import Connecting
from replug.agent.upstreams.error import UpstreamAbsentError, UpstreamEndedError, UpstreamError
from replug.agent.upstreams.key_list import KeyList
from replug.agent.upstreams.link import Link
from replug.protocol.messages import RequestIdentities
from replug.protocol.visible_text import visible_path
from replug.token.offload import Aside, TooManyThreadsError
from replug.token.turns import FairSemaphore

log = logging.getLogger(__name__)

_PATIENCE = 1.0  # seconds for a list
_LONG_PATIENCE = 60.0  # seconds for one that nobody waits for
_LONGEST_PAUSE = 60.0  # seconds before it is asked in the background again
_MOST_AT_ONCE = 8  # lists that are asked for
_MOST_LISTS = 16  # kept at once; each may be as long as a message
_SHORT = 4096  # bytes of a list that is decoded within a millisecond
_LOGGED_EVERY = 60.0  # seconds
_REQUEST_IDENTITIES = RequestIdentities().encode()


class Upstream:
    """The agent that listens at `path`.

    Once it has not answered a client in time, or has said what makes no sense, it is `left_out` of lists, and
    asked in the background until it has answered again; then `changed` is called.
    """

    def __init__(
        self,
        path: str,
        own_sockets: Iterable[str],
        is_locked: Callable[[], bool],
        changed: Callable[[], None],
        decoding: Aside,
    ) -> None:
        self.path = path
        self.name = f"the agent at {visible_path(path)}"
        self.left_out = False
        self.failure: UpstreamError | None = None
        """Why the last request came to nothing."""
        self.shown: KeyList | None = None
        """What it listed last; None before that."""
        self._is_locked = is_locked
        self._changed = changed
        self._decoding = decoding
        self._connecting = Connecting(path, own_sockets)
        self._turns = FairSemaphore(_MOST_AT_ONCE)
        self._lists: OrderedDict[bytes, KeyList] = OrderedDict()
        """Those listed last, by what was received."""
        self._pause = 0.0
        self._failed_at = -2 * _LONGEST_PAUSE
        self._logged = ""
        self._logged_at = -_LOGGED_EVERY
        self._in_background: asyncio.Task[None] | None = None
        self._over = False

    def link(self, binds: Sequence[bytes]) -> Link:
        """A connection for a client that has sent these session-binds."""
        return Link(self.name, self._connecting.connect, binds, self._is_locked)

    async def list_for(self, link: Link) -> KeyList | None:
        """The keys that it lists on this connection, within a second; None if it does not."""
        began = False
        try:
            async with asyncio.timeout(_PATIENCE), self._turns:
                began = True
                listed = await self._listed(link)
        except TimeoutError:
            if began:  # else it is others who were asked for too long
                self.fails(UpstreamError(f"{self.name} did not answer within {_PATIENCE:g} s", "restart it"))
            return None
        except UpstreamError as error:
            self.fails(error)
            return None
        except RequestRefusedError:  # this agent was locked meanwhile, or others have their turn
            return None
        self._answers(listed)
        return listed

    async def _listed(self, link: Link) -> KeyList:
        reply = bytes(await link.ask(_REQUEST_IDENTITIES))
        known = self._lists.get(reply)
        if known is None:
            if len(reply) <= _SHORT:
                known = KeyList.decode(self.name, reply)
            else:
                try:
                    known = await self._decoding.run(lambda: KeyList.decode(self.name, reply))
                except TooManyThreadsError as error:
                    raise UpstreamError(error.reason, error.next_step) from error
            known = self._lists.setdefault(reply, known)
        self._lists.move_to_end(reply)
        while len(self._lists) > _MOST_LISTS:
            self._lists.popitem(last=False)
        return known

    def _answers(self, listed: KeyList) -> None:
        self.failure, self.shown, self._logged = None, listed, ""

    def fails(self, error: UpstreamError) -> None:
        """Note that a request came to nothing; unless that took no time, it is left out now."""
        self.failure = error
        now = time.monotonic()
        takes_no_time = isinstance(error, UpstreamAbsentError | UpstreamEndedError)
        # A client can have it end as many connections as it likes.
        is_news = error.reason != self._logged and not isinstance(error, UpstreamEndedError)
        if is_news or now - self._logged_at > _LOGGED_EVERY:
            self._logged, self._logged_at = error.reason, now
            fields = {"why": error.reason, "next_step": error.next_step}
            if isinstance(error, UpstreamAbsentError):
                log.info("another agent is not there", extra=fields)
            elif isinstance(error, UpstreamEndedError):
                log.info("another agent ended a connection", extra=fields)
            else:
                log.warning("the keys of another agent are left out until it answers", extra=fields)
        if takes_no_time or self.left_out or self._over:
            return
        # One that answers only while nobody waits would keep clients waiting again and again.
        recent = now - self._failed_at < 2 * _LONGEST_PAUSE
        self._pause = min(max(1.0, 2 * self._pause), _LONGEST_PAUSE) if recent else 0.0
        self._failed_at = now
        self.left_out = True
        # On nobody's behalf.
        loop = asyncio.get_running_loop()
        self._in_background = loop.create_task(self._until_it_answers(), context=Context())

    async def _until_it_answers(self) -> None:
        while True:
            await asyncio.sleep(self._pause)
            link = self.link(())
            try:
                async with asyncio.timeout(_LONG_PATIENCE):
                    self._answers(await self._listed(link))
                break
            except (UpstreamError, RequestRefusedError, TimeoutError) as error:
                if isinstance(error, UpstreamAbsentError):
                    self.failure = error
                    break
            finally:
                link.close()
            self._pause = min(max(1.0, 2 * self._pause), _LONGEST_PAUSE)
        self._in_background, self.left_out = None, False
        what = "another agent answers again" if self.failure is None else "another agent has ended"
        log.info(what, extra={"agent": self.path})
        self._changed()

    def end(self) -> None:
        """Ask it no more."""
        self._over = True
        if self._in_background is not None:
            self._in_background.cancel()
