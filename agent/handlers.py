"""One function for each request; what they refuse, and the one place where a refusal becomes FAILURE."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from replug.agent.keyring import Keyring
from replug.agent.peer import Peer
from replug.agent.refusal import RefusalHistory, RequestRefusedError
from replug.protocol.constraints import Constraint, Lifetime
from replug.protocol.extensions import SESSION_BIND
from replug.protocol.keys import fingerprint
from replug.protocol.messages import (
    AddSmartcardKey,
    Extension,
    Failure,
    IdentitiesAnswer,
    Identity,
    Lock,
    RemoveAllIdentities,
    RemoveAllRsa1Identities,
    RemoveIdentity,
    RemoveSmartcardKey,
    Request,
    RequestIdentities,
    Response,
    SignRequest,
    SignResponse,
    Success,
    Unlock,
    decode_request,
)
from replug.protocol.wire import ProtocolError
from replug.token.errors import ExplainedError
from replug.token.pin import Pin
from replug.token.prompt import Asker

log = logging.getLogger(__name__)

Reply = Response | Awaitable[Response]
_FAILURE = Failure().encode()


@dataclass
class Client:
    """What the agent knows of one connection."""

    peer: Peer
    remote: bool = False
    """A session-bind was attempted, so this may be a forwarded connection (ssh-agent.c, socket_is_remote)."""

    def asker(self) -> Asker:
        """This client, as a person who is asked on its behalf wants to know it."""
        return Asker(str(self.peer), self.peer.pid)


def list_identities(keyring: Keyring, _client: Client, _request: RequestIdentities) -> Response:
    """RFC 9987 section 5.5. Public data that is at hand: no token is asked. A locked agent shows nothing."""
    if keyring.lock.locked:
        return IdentitiesAnswer(())
    keyring.drop_expired()
    return IdentitiesAnswer(
        tuple(Identity(identity.key.blob, identity.comment.encode()) for identity in keyring.identities)
    )


async def sign(keyring: Keyring, client: Client, request: SignRequest) -> Response:
    """RFC 9987 section 5.6."""
    keyring.drop_expired()
    asker, started = client.asker(), time.monotonic()
    signature, token = await keyring.sign(request.key_blob, request.data, request.flags, asker)
    log.info(
        "signed",
        extra={
            "key": fingerprint(request.key_blob),
            "token": str(token.identity),
            "program": asker.program,
            "duration_ms": round((time.monotonic() - started) * 1000),
        },
    )
    return SignResponse(signature)


async def add_provider(keyring: Keyring, client: Client, request: AddSmartcardKey) -> Response:
    """RFC 9987 section 5.2.6, `ssh-add -s`; an empty PIN is none."""
    if client.remote and not keyring.options.allow_remote_pkcs11:
        raise RequestRefusedError(
            "a forwarded connection may not load PKCS#11 modules",
            "start the agent with -O allow-remote-pkcs11 to allow it",
        )
    pin = Pin(request.pin) if request.pin else None
    await keyring.add_provider(_provider_name(request.provider), pin, _lifetime(request.constraints))
    return Success()


async def remove_provider(keyring: Keyring, _client: Client, request: RemoveSmartcardKey) -> Response:
    """RFC 9987 section 5.4, `ssh-add -e`. No PIN is needed to remove what needs none to add again."""
    await keyring.remove_provider(_provider_name(request.provider))
    return Success()


def remove_identity(keyring: Keyring, _client: Client, request: RemoveIdentity) -> Response:
    """RFC 9987 section 5.4; a token's key is back when its provider is added again."""
    key = fingerprint(request.key_blob)
    if not keyring.identities.remove_key(request.key_blob):
        raise RequestRefusedError(f"key {key} is not in the agent")
    log.info("key removed", extra={"key": key})
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


def extension(_keyring: Keyring, client: Client, request: Extension) -> Response:
    """RFC 9987 section 5.8. None is supported yet, but an attempt at session-bind marks the connection."""
    if request.name == SESSION_BIND:
        client.remote = True
    log.debug("unknown extension", extra={"extension": request.name})
    return Failure()


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
_WHILE_LOCKED = (RequestIdentities, Unlock)
_MAY_END_LOCKED = (Lock.__name__, Unlock.__name__)


class Dispatcher:
    """From a message's bytes to the reply's. Never raises: whatever goes wrong is FAILURE and a reason."""

    def __init__(self, keyring: Keyring, history: RefusalHistory) -> None:
        self._keyring = keyring
        self._history = history

    def answer(self, client: Client, message: bytes) -> bytes | Awaitable[bytes]:
        """The reply, at once where no token, person or delay is waited for."""
        name = f"message {message[0]}"
        try:
            request = decode_request(message)
            name = type(request).__name__
            reply = self._handle(client, request)
            return reply.encode() if isinstance(reply, Response) else self._answer_later(client, name, reply)
        except Exception as error:
            return self._refuse(client, name, error)

    def _handle(self, client: Client, request: Request) -> Reply:
        is_bind = isinstance(request, Extension) and request.name == SESSION_BIND
        if self._keyring.lock.locked and not is_bind and not isinstance(request, _WHILE_LOCKED):
            raise RequestRefusedError("the agent is locked", "unlock it with ssh-add -X")
        handler = _HANDLERS.get(type(request))
        if handler is None:
            raise RequestRefusedError("this agent does not do that yet")
        return handler(self._keyring, client, request)

    async def _answer_later(self, client: Client, name: str, reply: Awaitable[Response]) -> bytes:
        try:
            response = await reply
            if self._keyring.lock.locked and name not in _MAY_END_LOCKED:
                raise RequestRefusedError("the agent was locked meanwhile", "unlock it with ssh-add -X")
            return response.encode()
        except Exception as error:
            return self._refuse(client, name, error)

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
        return _FAILURE


def _provider_name(raw: bytes) -> str:
    try:
        name = raw.decode()
    except UnicodeDecodeError as error:
        raise RequestRefusedError("the provider's name is not UTF-8") from error
    if not name:
        raise RequestRefusedError("the provider has no name")
    return name


def _lifetime(constraints: tuple[Constraint, ...]) -> int | None:
    """The lifetime among the constraints; any other constraint is one that we could not keep."""
    lifetime = None
    for constraint in constraints:
        if not isinstance(constraint, Lifetime):
            raise RequestRefusedError(f"constraint {type(constraint).__name__} is not supported yet")
        lifetime = constraint.seconds
    return lifetime
