"""One function for each request; what they refuse, and the one place where a refusal becomes FAILURE."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any

from replug.agent.clients.client import Client
from replug.agent.keyring import Keyring
from replug.agent.refusal import ExtensionRefusedError, RefusalHistory, RequestRefusedError
from replug.protocol import extensions
from replug.protocol.constants import MessageType
from replug.protocol.decoding import Request, Response, decode_request
from replug.protocol.extensions import QueryResponse, SessionBind
from replug.protocol.keys import fingerprint
from replug.protocol.messages import (
    AddIdentity,
    AddSmartcardKey,
    Extension,
    ExtensionFailure,
    ExtensionResponse,
    Failure,
    IdentitiesAnswer,
    Lock,
    RemoveAllIdentities,
    RemoveAllRsa1Identities,
    RemoveIdentity,
    RemoveSmartcardKey,
    RequestIdentities,
    SignRequest,
    SignResponse,
    Success,
    Unlock,
)
from replug.protocol.sessions import add_binding, describe_destination, verify_bind
from replug.protocol.wire import ProtocolError
from replug.token.errors import ExplainedError
from replug.token.hardening import wipe
from replug.token.pins.pin import Pin

log = logging.getLogger(__name__)

Reply = Response | Coroutine[Any, Any, Response]
_FAILURE = Failure().encode()
_EXTENSION_FAILURE = ExtensionFailure().encode()


def list_identities(keyring: Keyring, client: Client, _request: RequestIdentities) -> Reply:
    """RFC 9987 section 5.5. Public data that is at hand: no token is asked. A locked agent shows nothing."""
    return (
        _list(keyring, client)
        if keyring.first_scan_done or keyring.lock.locked
        else _list_after_first_scan(keyring, client)
    )


async def _list_after_first_scan(keyring: Keyring, client: Client) -> Response:
    await keyring.wait_for_first_scan()
    return _list(keyring, client)


def _list(keyring: Keyring, client: Client) -> Response:
    if keyring.lock.locked:
        return IdentitiesAnswer(())
    answer = keyring.identities.answer(client.sees)
    if keyring.identities.limited:
        keyring.drop_expired()  # of what is not in the answer any more
    return answer


async def sign(keyring: Keyring, client: Client, request: SignRequest) -> Response:
    """RFC 9987 section 5.6."""
    await keyring.wait_for_first_scan()
    keyring.drop_expired()
    started = time.monotonic()
    signature, held = await keyring.sign(client, request)
    log.info(
        "signed",
        extra={
            "key": held.fingerprint,
            "token": held.place,
            "program": str(client.peer),
            "destination": describe_destination(client.sessions),
            "duration_ms": round((time.monotonic() - started) * 1000),
        },
    )
    return SignResponse(signature)


async def add_key(keyring: Keyring, client: Client, message: bytearray) -> Response:
    """RFC 9987 sections 5.2.1 to 5.2.5, `ssh-add FILE`; the message is not decoded in this process."""
    key = await keyring.add_key(client, message)
    log.info("key added", extra={"key": fingerprint(key.blob), "program": str(client.peer)})
    return Success()


async def add_provider(keyring: Keyring, client: Client, request: AddSmartcardKey) -> Response:
    """RFC 9987 section 5.2.6, `ssh-add -s`; an empty PIN is none."""
    if client.remote and not keyring.options.allow_remote_pkcs11:
        raise RequestRefusedError(
            "a forwarded connection may not load PKCS#11 modules",
            "start the agent with -O allow-remote-pkcs11 to allow it",
        )
    name = _provider_name(request.provider)
    pin = Pin(bytearray(request.pin)) if request.pin else None
    await keyring.add_provider(client, name, pin, request.constraints)
    return Success()


async def remove_provider(keyring: Keyring, _client: Client, request: RemoveSmartcardKey) -> Response:
    """RFC 9987 section 5.4, `ssh-add -e`. No PIN is needed to remove what needs none to add again."""
    await keyring.remove_provider(_provider_name(request.provider))
    return Success()


def remove_identity(keyring: Keyring, client: Client, request: RemoveIdentity) -> Response:
    """RFC 9987 section 5.4; a token's key is back when its provider is added again."""
    keyring.remove_key(client, request.key_blob)
    log.info("key removed", extra={"key": fingerprint(request.key_blob)})
    return Success()


def remove_all(
    keyring: Keyring, _client: Client, _request: RemoveAllIdentities | RemoveAllRsa1Identities
) -> Response:
    """RFC 9987 section 5.4, and the old message of SSH 1 that `ssh-add -D` sends after it."""
    keyring.remove_all()
    log.info("all keys removed")
    return Success()


async def lock(keyring: Keyring, _client: Client, request: Lock) -> Response:
    """RFC 9987 section 5.7."""
    await keyring.lock.lock(request.passphrase)
    log.info("locked")
    return Success()


async def unlock(keyring: Keyring, _client: Client, request: Unlock) -> Response:
    """RFC 9987 section 5.7."""
    await keyring.lock.unlock(request.passphrase)
    log.info("unlocked")
    return Success()


def extension(keyring: Keyring, client: Client, request: Extension) -> Reply:
    """RFC 9987 section 5.8: what the extensions are called is asked with one of them."""
    match request.name:
        case extensions.SESSION_BIND:
            return session_bind(keyring, client, request.contents)
        case extensions.QUERY if not request.contents:
            return ExtensionResponse(extensions.QUERY, QueryResponse((extensions.SESSION_BIND,)).encode())
    log.debug("unknown extension", extra={"extension": request.name})
    return Failure()


async def session_bind(_keyring: Keyring, client: Client, contents: bytes) -> Response:
    """OpenSSH's PROTOCOL.agent: the connection speaks for a session, and is remote from here on."""
    client.sessions = replace(client.sessions, bind_attempted=True)
    try:
        # In a thread: the client chooses how long the key is that verifies.
        binding = await asyncio.to_thread(lambda: verify_bind(SessionBind.decode(contents)))
        client.sessions = replace(client.sessions, bindings=add_binding(client.sessions.bindings, binding))
    except ProtocolError as error:
        raise ExtensionRefusedError(f"session-bind: {error}") from error
    log.debug("session bound", extra={"destination": describe_destination(client.sessions)})
    return Success()


_HANDLERS: dict[type, Callable[[Keyring, Client, Any], Reply]] = {
    RequestIdentities: list_identities,
    SignRequest: sign,
    AddSmartcardKey: add_provider,
    RemoveSmartcardKey: remove_provider,
    RemoveIdentity: remove_identity,
    RemoveAllIdentities: remove_all,
    RemoveAllRsa1Identities: remove_all,
    Lock: lock,
    Unlock: unlock,
    Extension: extension,
}
_WITH_PRIVATE_KEY = (MessageType.ADD_IDENTITY, MessageType.ADD_ID_CONSTRAINED)
_WHILE_LOCKED = (RequestIdentities, Unlock)
_MAY_END_LOCKED = (RequestIdentities.__name__, Lock.__name__, Unlock.__name__, Extension.__name__)


class Dispatcher:
    """From a message's bytes to the reply's. Never raises: whatever goes wrong is FAILURE and a reason."""

    def __init__(self, keyring: Keyring, history: RefusalHistory) -> None:
        self._keyring = keyring
        self._history = history

    def answer(self, client: Client, message: bytearray) -> bytes | Awaitable[bytes]:
        """The reply, at once where no token, person or delay is waited for. The message is wiped."""
        name = f"message {message[0]}"
        if message[0] in _WITH_PRIVATE_KEY:
            return self._answer_later(client, AddIdentity.__name__, self._add_key(client, message), message)
        request: Request | None = None
        try:
            request = decode_request(message)
            wipe(message)
            name = type(request).__name__
            reply = self._handle(client, request)
            if isinstance(reply, Coroutine):
                return self._answer_later(client, name, reply, request)
            request.wipe()
            return reply.encode()
        except Exception as error:
            if request is not None:
                request.wipe()
            return self._refuse(client, name, error)

    async def _add_key(self, client: Client, message: bytearray) -> Response:
        self._refuse_if_locked()
        return await add_key(self._keyring, client, message)

    def _handle(self, client: Client, request: Request) -> Reply:
        if self._keyring.lock.locked:
            is_bind = isinstance(request, Extension) and request.name == extensions.SESSION_BIND
            if not is_bind and not isinstance(request, _WHILE_LOCKED):
                self._refuse_if_locked()
        return _HANDLERS[type(request)](self._keyring, client, request)

    def _refuse_if_locked(self) -> None:
        if self._keyring.lock.locked:
            raise RequestRefusedError("the agent is locked", "unlock it with ssh-add -X")

    async def _answer_later(
        self, client: Client, name: str, reply: Awaitable[Response], request: Request | bytearray
    ) -> bytes:
        try:
            response = await reply
            if self._keyring.lock.locked and name not in _MAY_END_LOCKED:
                raise RequestRefusedError("the agent was locked meanwhile", "unlock it with ssh-add -X")
            return response.encode()
        except Exception as error:
            return self._refuse(client, name, error)
        finally:
            if isinstance(request, bytearray):
                wipe(request)
            else:
                request.wipe()

    def _refuse(self, client: Client, name: str, error: Exception) -> bytes:
        next_step = ""
        match error:
            case ExplainedError():
                reason, next_step = error.reason, error.next_step
            case ProtocolError():
                reason = str(error)
            case _:
                reason = f"unexpected {type(error).__name__}"
                log.exception("a handler failed", exc_info=error, extra={"request": name})
        program = str(client.peer)
        fields = {"request": name, "program": program, "why": reason, "next_step": next_step}
        log.warning("refused", extra=fields)
        self._history.add(name, program, reason, next_step)
        return _EXTENSION_FAILURE if isinstance(error, ExtensionRefusedError) else _FAILURE


def _provider_name(raw: bytes) -> str:
    try:
        name = raw.decode()
    except UnicodeDecodeError as error:
        raise RequestRefusedError("the provider's name is not UTF-8") from error
    if not name:
        raise RequestRefusedError("the provider has no name")
    return name
