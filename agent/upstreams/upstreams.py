"""Other agents behind this one: their keys are listed after its own, and used through it.

They are asked for each list, and to sign with keys that they list and this agent does not hold.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from replug.agent.clients.client import Client
from replug.agent.config.settings import Settings
from replug.agent.keys.changes import Changes
from replug.agent.keys.constraints import KeyConstraints
from replug.agent.keys.refusal import RequestRefusedError
from replug.agent.upstreams.checked import check_signature
from replug.agent.upstreams.client_links import ClientLinks
from replug.agent.upstreams.error import UpstreamError
from replug.agent.upstreams.identity import UpstreamIdentity
from replug.agent.upstreams.key_list import KeyList
from replug.agent.upstreams.link import Link
from replug.agent.upstreams.open_links import OpenLinks
from replug.agent.upstreams.upstream import Upstream
from replug.protocol.decoding import decode_response
from replug.protocol.extensions import SESSION_BIND
from replug.protocol.keys import fingerprint
from replug.protocol.messages import Extension, SignRequest, SignResponse
from replug.protocol.signatures import InvalidSignatureError
from replug.protocol.visible_text import visible_path
from replug.protocol.wire import ProtocolError
from replug.token.offload import Aside


class Upstreams:
    """The agents that the configuration names now, and what clients have to do with them."""

    def __init__(self, settings: Settings, changes: Changes, is_locked: Callable[[], bool]) -> None:
        self.own_sockets: list[str] = []
        """The paths that this agent listens at; whoever listens adds them."""
        self._settings = settings
        self._changes = changes
        self._is_locked = is_locked
        # Not the agent's: long lists would be in the way of a session-bind, with which ssh begins.
        self._decoding = Aside()
        self.all: list[Upstream] = []
        self._clients: dict[int, ClientLinks] = {}
        """By the identity of the client, which each refers to."""
        self._links = OpenLinks()
        self.follow_configuration()

    def follow_configuration(self) -> None:
        """Ask those, and only those, that the configuration names now."""
        before = {one.path: one for one in self.all}
        self.all = [
            before.get(path)
            or Upstream(path, self.own_sockets, self._is_locked, self._has_changed, self._decoding)
            for path in self._settings.config.upstreams
        ]
        for gone in set(before.values()) - set(self.all):
            gone.end()
            for links in self._clients.values():
                links.forget(gone)

    def _has_changed(self) -> None:
        self._changes.count += 1

    def end(self) -> None:
        """Ask nobody any more."""
        for upstream in self.all:
            upstream.end()

    def asks_for(self, client: Client) -> bool:
        """Whether others are asked before the client is listed its keys, if this agent is not locked."""
        return client.guest is None and any(not one.left_out for one in self.all)

    def bind_comes(self, client: Client, contents: bytes) -> None:
        """The client sends a session-bind: the other agents are to get it as it is."""
        if self.all and client.guest is None:
            self._of(client).bind(Extension(SESSION_BIND, contents).encode())

    def gone(self, client: Client) -> None:
        """The client's connection is over."""
        client.gone = True
        links = self._clients.pop(id(client), None)
        if links is not None:
            links.close()

    def _of(self, client: Client) -> ClientLinks:
        links = self._clients.get(id(client))
        if links is None:
            links = ClientLinks(client)
            if not client.gone:  # nobody would take them out again
                self._clients[id(client)] = links
        return links

    async def ask(self, client: Client) -> None:
        """Have all of them list their keys for the client, at once; takes a second at most."""
        links = self._of(client)
        asked = [one for one in self.all if not one.left_out] if links.is_complete else []
        lists = await asyncio.gather(*[self._list(one, links.to(one)) for one in asked])
        links.listed(dict(zip(asked, lists, strict=True)))

    async def states(self) -> list[dict[str, Any]]:
        """What `replug status` says of each; they are asked now, if this agent is not locked."""
        await asyncio.gather(*[self._look(one) for one in self.all if not one.left_out])
        return [_state(one) for one in self.all]

    async def _look(self, upstream: Upstream) -> None:
        link = upstream.link(())
        try:
            await upstream.list_for(link)
        finally:
            link.close()

    async def _list(self, upstream: Upstream, link: Link) -> KeyList | None:
        async with self._links.use(link):
            return await upstream.list_for(link)

    def lists(self, client: Client) -> list[KeyList]:
        """What they have listed for the client, in the order of the configuration."""
        links = self._clients.get(id(client))
        there = [one for one in self.all if not one.left_out]
        return [] if links is None else [keys for _, keys in links.lists(there)]

    async def holding(self, client: Client, blob: bytes) -> list[UpstreamIdentity]:
        """The key as the first of them has it that lists it for the client; they are asked if none did."""
        if not self.all or self._is_locked():
            return []
        found = self._listed(client, blob)
        if not found and self.asks_for(client):
            await self.ask(client)
            found = self._listed(client, blob)
        return found

    def _listed(self, client: Client, blob: bytes) -> list[UpstreamIdentity]:
        links = self._of(client)
        for upstream, keys in links.lists(self.all):
            if blob in keys.comments:
                sign = partial(self._sign, upstream, links)
                comment = keys.comments[blob]
                return [UpstreamIdentity(blob, comment, KeyConstraints(), upstream.path, sign)]
        return []

    async def _sign(self, upstream: Upstream, links: ClientLinks, request: SignRequest) -> bytes:
        """The signature by that agent. RequestRefusedError, UpstreamError."""
        if upstream not in self.all:
            raise RequestRefusedError(f"{upstream.name} is not in the configuration any more")
        link, patience = links.to(upstream), self._settings.config.touch_timeout
        try:
            async with asyncio.timeout(patience), self._links.sign(link):
                reply = bytes(await link.ask(request.encode()))
            answer = decode_response(reply)
        except TimeoutError:
            raise RequestRefusedError(
                f"{upstream.name} did not answer within {patience:g} s", "see what it waits for"
            ) from None
        except UpstreamError as error:
            upstream.fails(error)
            raise
        except ProtocolError as error:
            wrong = UpstreamError(f"{upstream.name} gives no usable answer: {error}")
            upstream.fails(wrong)
            raise wrong from error
        if not isinstance(answer, SignResponse):
            raise RequestRefusedError(
                f"{upstream.name} did not sign, and gives no reason", "see its own log and settings"
            )
        try:
            check = partial(check_signature, request.key_blob, answer.signature, request.data)
            await self._decoding.run(check)
        except InvalidSignatureError as error:
            key = fingerprint(request.key_blob)
            reason = f"{upstream.name} gave a signature that key {key} has not made: {error}"
            raise RequestRefusedError(reason) from error
        return answer.signature

    async def refuse_to_remove(self, client: Client, blob: bytes) -> None:
        """Raise RequestRefusedError for a key that another agent lists: this one cannot remove it."""
        for held in await self.holding(client, blob):
            raise RequestRefusedError(
                f"key {fingerprint(blob)} is not in this agent, but in the {held.place}",
                f"remove it there: SSH_AUTH_SOCK={visible_path(held.path)} ssh-add -d",
            )


def _state(upstream: Upstream) -> dict[str, Any]:
    failure, shown = upstream.failure, upstream.shown
    return {
        "socket": upstream.path,
        "answers": failure is None and shown is not None,
        "left_out": upstream.left_out,
        "why": "" if failure is None else failure.reason,
        "next_step": "" if failure is None else failure.next_step,
        "keys": None if failure is not None or shown is None else len(shown.entries),
        "lists_nothing": shown is not None and shown.refused,
    }
