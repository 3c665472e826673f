"""The sockets of the configuration's `[[socket]]`s: made, removed, and what became of each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from replug.agent.clients.connection import Conversation
from replug.agent.clients.listener import Listener
from replug.agent.clients.peer import Peer
from replug.agent.clients.server import Entrance, Server
from replug.agent.clients.view import View
from replug.agent.config.settings import Settings
from replug.agent.keys.changes import Changes
from replug.agent.keys.refusal import RequestRefusedError
from replug.agent.views.place import make_socket
from replug.protocol.visible_text import visible_path
from replug.token.bytes_only import BytesOnlyListener
from replug.token.errors import ExplainedError
from replug.token.offload import Share, in_daemon_thread

log = logging.getLogger(__name__)

_PATIENCE = 4.0  # seconds for all of them; `replug reload` waits for it
_FOR_ONE = 1.5  # seconds
_PARTING = 1.0  # seconds to remove them
_AT_ONCE = 4  # threads: a folder that does not answer is not in the way of the others


@dataclass
class ViewSocket:
    """One socket."""

    view: View
    listener: Listener | None = None
    """None if it is not there."""
    entrance: Entrance | None = None
    failed: ExplainedError | None = None
    """Why it is not there."""


class ViewSockets:
    """Has what `settings` say.

    `own` are the agent's other sockets; `server` serves who connects; `conversation` begins one with them.
    `leave` is that of a BytesOnlyListener. `changes` are of what clients are listed.
    """

    def __init__(
        self,
        settings: Settings,
        own: Collection[str],
        server: Server,
        conversation: Callable[[Peer, View | None], Conversation],
        leave: Callable[[int], object],
        changes: Changes,
    ) -> None:
        self._settings = settings
        self._own = own
        self._server = server
        self._conversation = conversation
        self._leave = leave
        self._changes = changes
        self._ended: list[Listener] = []
        """Of sockets that are to be removed."""
        self._sockets: dict[str, ViewSocket] = {}
        """By path, in the configuration's order."""
        self._following = asyncio.Lock()
        self._few = asyncio.Semaphore(_AT_ONCE)

    def all(self) -> list[ViewSocket]:
        """Each `[[socket]]`."""
        return list(self._sockets.values())

    async def follow(self) -> None:
        """Have the sockets of the configuration as it is now, and no others; those that stay are not touched.

        What holds for clients changes at once. What cannot be had is logged. Takes four seconds at most.
        """
        entries = {entry.path: entry for entry in self._settings.config.sockets}
        for path in [path for path in self._sockets if path not in entries]:
            self._end(self._sockets.pop(path))
        there = self._sockets
        self._sockets = {path: there.get(path) or ViewSocket(View(entry)) for path, entry in entries.items()}
        for path, entry in entries.items():
            self._sockets[path].view.entry = entry
        self._changes.count += 1
        async with self._following:
            try:
                async with asyncio.timeout(_PATIENCE):
                    await asyncio.gather(self._remove_ended(), *map(self._make, self.all()))
            except TimeoutError:
                for one in self.all():
                    if one.listener is None and one.failed is None:
                        self._fail(one, RequestRefusedError("many folders do not answer"))

    async def close(self) -> None:
        """End them all, and remove their files if the folders answer."""
        for there in self.all():
            self._end(there)
        self._sockets.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(_PARTING):
                await self._remove_ended()

    def _open(self, view: View, listener: Listener) -> Entrance:
        entrance = Entrance(
            BytesOnlyListener.of(listener.socket, self._leave),
            lambda peer: self._conversation(peer, view),
            lambda: RequestRefusedError(f"connection from another user to {visible_path(view.path)}"),
            view.path,
        )
        self._server.open(entrance)
        return entrance

    def _shut(self, there: ViewSocket) -> None:
        """Close the connections, too."""
        if there.entrance is not None:
            self._server.shut(there.entrance)
            there.entrance.listener.close()
            there.entrance = None

    def _end(self, there: ViewSocket) -> None:
        self._shut(there)
        if there.listener is not None:
            self._ended.append(there.listener)
            log.info("socket closed", extra={"socket": there.view.path})

    async def _remove_ended(self) -> None:
        async def remove(listener: Listener) -> None:
            async with self._few, asyncio.timeout(_FOR_ONE):
                await in_daemon_thread(Share.VIEW_SOCKETS, listener.remove)

        ended, self._ended = self._ended, []
        await asyncio.gather(*map(remove, ended), return_exceptions=True)

    async def _make(self, there: ViewSocket) -> None:
        """Listen, unless that is so; also again where the file was removed meanwhile."""
        there.failed = None
        path, before = there.view.path, there.listener
        listening, not_needed = partial(_listening, path, self._own, before), partial(_not_needed, before)
        try:
            async with self._few, asyncio.timeout(_FOR_ONE):
                listener = await in_daemon_thread(Share.VIEW_SOCKETS, listening, not_needed)
        except TimeoutError:
            if before is None:
                self._fail(there, RequestRefusedError("its folder does not answer"))
            return
        except ExplainedError as error:
            self._fail(there, error)
            return
        if listener is before:
            return
        if self._sockets.get(path) is not there:  # the configuration is another by now
            self._ended.append(listener)
            return
        self._shut(there)
        there.listener = listener
        there.entrance = self._open(there.view, listener)
        log.info("socket opened", extra={"socket": path, "keys": ", ".join(there.view.entry.keys)})

    def _fail(self, there: ViewSocket, error: ExplainedError) -> None:
        there.failed = error
        log.warning(
            "no socket",
            extra={"socket": there.view.path, "why": error.reason, "next_step": error.next_step},
        )


def _not_needed(before: Listener | None, late: Listener) -> None:
    if late is not before:
        late.socket.close()
        late.remove()


def _listening(path: str, own: Collection[str], before: Listener | None) -> Listener:
    """The listener of before if its file is still there, else a new one. RequestRefusedError."""
    return before if before is not None and before.is_there else make_socket(path, own)
