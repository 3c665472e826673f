"""Answers messages: a table of handlers by message type, and the one place where an error becomes FAILURE."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from replug.agent import handlers
from replug.agent.agent import Agent
from replug.agent.clients.client import Client
from replug.agent.clients.peer import Peer
from replug.agent.control.refusals import RefusalHistory
from replug.agent.handlers import Reply
from replug.agent.keys.changes import Changes
from replug.agent.keys.refusal import ExtensionRefusedError, RequestRefusedError, SignRefusedError, locked
from replug.agent.views.rules import only_uses_keys
from replug.protocol.additions import KeyAddition
from replug.protocol.constants import MessageType
from replug.protocol.decoding import Response, decode_request
from replug.protocol.messages import ExtensionFailure, Failure
from replug.protocol.purpose_text import in_one_line
from replug.protocol.secrets import wipe
from replug.protocol.visible_text import visible_path
from replug.protocol.wire import ProtocolError
from replug.token.errors import ExplainedError
from replug.token.offload import Aside
from replug.token.requester import requester

log = logging.getLogger(__name__)

_QUICKLY_DECODED = 4096
"""Bytes of a message that takes a millisecond to decode at most, whatever is in it."""
_LONGEST_LOGGED = 2000  # characters of a reason
_FAILURE = Failure().encode()
_EXTENSION_FAILURE = ExtensionFailure().encode()


class _Wipeable(Protocol):
    def wipe(self) -> None: ...


@dataclass(frozen=True)
class _Row:
    """How one type of message is treated."""

    name: str
    """The request's name in the log, `replug status` and `replug explain`."""
    handle: Callable[[Agent, Client, Any], Reply]
    decode: Callable[[bytearray], _Wipeable] = decode_request
    """Decodes the message's bytes, and wipes them unless the object it returns will."""
    slow_to_decode: bool = False
    """Whether a large one takes more than a millisecond to decode."""
    check_client: Callable[[Agent, Client], None] | None = None
    """Raises for a client that may not send this message; called before it is decoded."""
    while_locked: bool = False
    """Whether a locked agent serves it."""
    may_end_locked: bool = False
    """Whether the reply is sent even if the agent was locked while it was made."""
    uses_keys: bool = False
    """Whether those may send it who may only list keys and sign with them."""


_ADD_KEY = _Row("AddIdentity", handlers.add_key, decode=KeyAddition.decode, slow_to_decode=True)
_ADD_PROVIDER = _Row(
    "AddSmartcardKey",
    handlers.add_provider,
    slow_to_decode=True,
    check_client=lambda agent, client: agent.check_may_add_provider(client),
)
_ROWS: dict[int, _Row] = {
    MessageType.REQUEST_IDENTITIES: _Row(
        "RequestIdentities", handlers.list_identities, while_locked=True, may_end_locked=True, uses_keys=True
    ),
    MessageType.SIGN_REQUEST: _Row("SignRequest", handlers.sign, uses_keys=True),
    MessageType.ADD_IDENTITY: _ADD_KEY,
    MessageType.ADD_ID_CONSTRAINED: _ADD_KEY,
    MessageType.ADD_SMARTCARD_KEY: _ADD_PROVIDER,
    MessageType.ADD_SMARTCARD_KEY_CONSTRAINED: _ADD_PROVIDER,
    MessageType.REMOVE_SMARTCARD_KEY: _Row("RemoveSmartcardKey", handlers.remove_provider),
    MessageType.REMOVE_IDENTITY: _Row("RemoveIdentity", handlers.remove_identity),
    MessageType.REMOVE_ALL_IDENTITIES: _Row("RemoveAllIdentities", handlers.remove_all),
    MessageType.REMOVE_ALL_RSA1_IDENTITIES: _Row("RemoveAllRsa1Identities", handlers.remove_all),
    MessageType.LOCK: _Row("Lock", handlers.lock, may_end_locked=True),
    MessageType.UNLOCK: _Row("Unlock", handlers.unlock, while_locked=True, may_end_locked=True),
    # A locked agent serves no extension but session-bind; the handler checks that.
    MessageType.EXTENSION: _Row(
        "Extension", handlers.extension, while_locked=True, may_end_locked=True, uses_keys=True
    ),
}


class Dispatcher:
    """Answers messages. It never raises: whatever goes wrong becomes FAILURE and a reason."""

    def __init__(self, agent: Agent, history: RefusalHistory) -> None:
        self._agent = agent
        self._history = history
        # Not the agent's: many large messages would be in the way of a session-bind, with which ssh begins.
        self._decoding = Aside()
        self._to_decode: list[bytearray] = []
        """Messages that wait for it, or are being decoded."""

    def answer(self, client: Client, message: bytearray) -> bytes | Awaitable[bytes]:
        """The reply; a coroutine for it if a token, the user or a delay is waited for. Wipes the message."""
        row = _ROWS.get(message[0])
        request: _Wipeable | None = None
        reply: Reply | None = None
        try:
            if row is None:
                raise ProtocolError(f"unexpected message type {message[0]}")
            if client.only_uses_keys and not row.uses_keys:
                raise only_uses_keys(client)
            if self._agent.locked and not row.while_locked:
                raise locked()
            if row.check_client is not None:
                row.check_client(self._agent, client)
            slow = row.slow_to_decode and len(message) > _QUICKLY_DECODED
            if slow or client.guest is not None:
                reply = self._handle_later(client, row, message, slow=slow)
                return self._answer_later(client, row, reply)
            request = row.decode(message)
            self._agent.drop_expired()
            reply = row.handle(self._agent, client, request)
            if isinstance(reply, Coroutine):
                return self._answer_later(client, row, reply, request)
            return reply.encode()
        except Exception as error:
            return self._refuse(client, row.name if row is not None else f"message {message[0]}", error)
        finally:
            if not isinstance(reply, Coroutine):
                wipe(message)
                if request is not None:
                    request.wipe()

    def broken(self, client: Client, error: ProtocolError) -> None:
        """A connection is closed because what comes on it is no message; a reason like any other."""
        self._refuse(client, "Connection", error)

    async def _handle_later(self, client: Client, row: _Row, message: bytearray, *, slow: bool) -> Response:
        """The reply to a guest's message, or to one that is `slow` and decoded beside the event loop."""
        request: _Wipeable | None = None
        try:
            if client.guest is not None:
                await self._agent.admit(client)
                if self._agent.locked and not row.while_locked:
                    raise locked()
            request = await self._decoded(row, message) if slow else row.decode(message)
            self._agent.drop_expired()
            reply = row.handle(self._agent, client, request)
            return await reply if isinstance(reply, Coroutine) else reply
        finally:
            wipe(message)
            if request is not None:
                request.wipe()

    def over(self, client: Client) -> None:
        """The connection is closed."""
        self._agent.upstreams.gone(client)

    def not_served(self, peer: Peer, error: ExplainedError) -> None:
        """A connection is closed at once; a reason like any other."""
        self._refuse(Client(peer), "Connection", error)

    async def _decoded(self, row: _Row, message: bytearray) -> _Wipeable:
        if self._agent.locked:
            raise locked()
        self._to_decode.append(message)
        try:
            # A client that is gone leaves the queue; what is being decoded then reads a wiped message.
            request = await self._decoding.run(partial(row.decode, message), lambda late: late.wipe())
        except ProtocolError:
            if self._was_withdrawn(message):
                raise locked() from None
            raise
        finally:
            withdrawn = self._was_withdrawn(message)
            self._to_decode = [other for other in self._to_decode if other is not message]
        if withdrawn:
            request.wipe()
            raise locked()
        return request

    def _was_withdrawn(self, message: bytearray) -> bool:
        """Whether the agent was locked since it began to wait, though it may be unlocked again."""
        return not any(message is other for other in self._to_decode)

    def _withdraw_waiting(self) -> None:
        """Wipe what waits to be decoded: there may be keys and PINs in it, and the agent is locked."""
        waiting, self._to_decode = self._to_decode, []
        for message in waiting:
            wipe(message)

    async def _answer_later(
        self,
        client: Client,
        row: _Row,
        reply: Coroutine[Any, Any, Response],
        request: _Wipeable | None = None,
    ) -> bytes:
        requester.set(client.peer.requester)
        try:
            response = await reply
            if self._agent.locked:
                self._withdraw_waiting()
            if self._agent.locked and not row.may_end_locked:
                raise RequestRefusedError("the agent was locked meanwhile", "unlock it with ssh-add -X")
            return response.encode()
        except Exception as error:
            return self._refuse(client, row.name, error)
        finally:
            if request is not None:
                request.wipe()

    def _refuse(self, client: Client, name: str, error: Exception) -> bytes:
        next_step = purpose = ""
        match error:
            case SignRefusedError():
                reason, next_step, purpose = error.reason, error.next_step, in_one_line(error.purpose)
            case ExplainedError():
                reason, next_step = error.reason, error.next_step
            case ProtocolError():
                reason = str(error)
            case _:
                reason = f"unexpected {type(error).__name__}"
                log.exception("a handler failed", exc_info=error, extra={"request": name})
        if client.view is not None and not purpose:
            reason += f" (socket {visible_path(client.view.path)})"
        program = client.peer.program
        fields = {
            "request": name,
            "program": program,
            "why": reason[:_LONGEST_LOGGED],
            "next_step": next_step,
        }
        if purpose:
            fields["purpose"] = purpose
        # What a client repeats is not to fill the log.
        if self._history.add(client.peer.requester, name, program, reason, next_step, purpose):
            log.warning("refused", extra=fields)
        return _EXTENSION_FAILURE if isinstance(error, ExtensionRefusedError) else _FAILURE


class Conversation:
    """The messages of one client, and the answers to them."""

    def __init__(self, dispatcher: Dispatcher, changes: Changes, client: Client) -> None:
        self._changes = changes
        self._client = client
        self.answer = partial(dispatcher.answer, client)
        self.broken = partial(dispatcher.broken, client)
        self.over = partial(dispatcher.over, client)

    def listing_at_hand(self) -> bytes:
        """The frame with the list of keys; empty if it has to be made."""
        at_hand = self._client.at_hand
        right = at_hand.since <= time.time() < at_hand.until
        return at_hand.frame if right and not self._changes.since(at_hand.made_at) else b""
