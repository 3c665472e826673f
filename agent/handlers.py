"""One function for each request: from the message to the agent's answer."""

from __future__ import annotations

import logging
import time
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, TypeAlias

from replug.agent.agent import Agent
from replug.agent.clients.client import Client
from replug.agent.keys.refusal import ExtensionRefusedError, RequestRefusedError, locked
from replug.protocol import extensions
from replug.protocol.additions import KeyAddition
from replug.protocol.decoding import Response
from replug.protocol.extensions import QueryResponse, SessionBind
from replug.protocol.keys import fingerprint
from replug.protocol.messages import (
    AddSmartcardKey,
    Extension,
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
from replug.protocol.purpose_text import host_as_listed
from replug.protocol.sessions import add_binding, describe_destination, verify_bind
from replug.protocol.visible_text import visible
from replug.protocol.wire import ProtocolError
from replug.token.pins.pin import LONGEST_PIN, Pin

log = logging.getLogger(__name__)

Reply: TypeAlias = Response | Coroutine[Any, Any, Response]


def list_identities(agent: Agent, client: Client, _request: RequestIdentities) -> Reply:
    """RFC 9987 section 5.5. A locked agent shows nothing."""
    nothing_is_awaited = agent.locked or (
        agent.first_scan.done
        and not agent.expects_a_token
        and not agent.wants_certificate(client)
        and not agent.upstreams.asks_for(client)
    )
    if nothing_is_awaited and not (agent.listing_takes_long(client) or agent.rules_take_long(client)):
        return agent.listing(client)
    return _list_later(agent, client)


async def _list_later(agent: Agent, client: Client) -> Response:
    await agent.first_scan.wait()
    # Who plugs a card in and calls ssh is quicker than a module that reads the card.
    await agent.wait_for_expected()
    if not agent.locked and agent.wants_certificate(client):
        await agent.certify(client)
    if not agent.locked and agent.upstreams.asks_for(client):
        await agent.upstreams.ask(client)
    if agent.rules_take_long(client):
        await agent.apply_rules(client)
    if agent.listing_takes_long(client):
        answer = await agent.aside(lambda: agent.listing(client))
    else:
        answer = agent.listing(client)
    return IdentitiesAnswer(()) if agent.locked else answer


async def sign(agent: Agent, client: Client, request: SignRequest) -> Response:
    """RFC 9987 section 5.6."""
    if not agent.first_scan.done:
        await agent.first_scan.wait()
    started = time.monotonic()
    signed = await agent.sign(client, request)
    host = signed.purpose.login_at
    log.info(
        "signed",
        extra={
            "key": signed.identity.fingerprint,
            "token": signed.identity.place,
            "program": signed.asker.program,
            "purpose": ", ".join(signed.asker.purpose),
            "host": "" if host is None else host_as_listed(host),
            "comment": signed.identity.comment.decode(errors="replace"),
            "confirmed": signed.confirmed,
            "duration_ms": round((time.monotonic() - started) * 1000),
        },
    )
    return SignResponse(signed.signature)


async def add_key(agent: Agent, client: Client, request: KeyAddition) -> Response:
    """RFC 9987 sections 5.2.1 to 5.2.5, `ssh-add FILE`."""
    await agent.add_key(client, request)
    log.info("key added", extra={"key": fingerprint(request.blob), "program": client.peer.program})
    return Success()


async def add_provider(agent: Agent, client: Client, request: AddSmartcardKey) -> Response:
    """RFC 9987 section 5.2.6, `ssh-add -s`; an empty PIN is none."""
    name = _provider_name(request.provider)
    if len(request.pin) > LONGEST_PIN:
        raise RequestRefusedError(f"the PIN is longer than {LONGEST_PIN} bytes")
    pin = Pin(bytearray(request.pin)) if request.pin else None
    request.wipe()  # the module may take its time, and the agent may be locked meanwhile
    await agent.add_provider(client, name, pin, request.constraints)
    return Success()


async def remove_provider(agent: Agent, client: Client, request: RemoveSmartcardKey) -> Response:
    """RFC 9987 section 5.4, `ssh-add -e`. The PIN in the request is not used, as in ssh-agent."""
    await agent.remove_provider(client, _provider_name(request.provider))
    return Success()


def remove_identity(agent: Agent, client: Client, request: RemoveIdentity) -> Reply:
    """RFC 9987 section 5.4; a token's key returns when its provider is added again."""
    if agent.upstreams.asks_for(client):
        return _remove_later(agent, client, request)
    return _remove(agent, client, request)


async def _remove_later(agent: Agent, client: Client, request: RemoveIdentity) -> Response:
    try:
        return _remove(agent, client, request)
    except RequestRefusedError:
        await agent.upstreams.refuse_to_remove(client, request.key_blob)
        raise


def _remove(agent: Agent, client: Client, request: RemoveIdentity) -> Response:
    agent.remove_key(client, request.key_blob)
    log.info("key removed", extra={"key": fingerprint(request.key_blob)})
    return Success()


def remove_all(
    agent: Agent, _client: Client, _request: RemoveAllIdentities | RemoveAllRsa1Identities
) -> Response:
    """RFC 9987 section 5.4, and the message of SSH 1 that `ssh-add -D` sends after it."""
    agent.remove_all()
    log.info("all keys removed")
    return Success()


async def lock(agent: Agent, _client: Client, request: Lock) -> Response:
    """RFC 9987 section 5.7."""
    await agent.lock(request.passphrase)
    log.info("locked")
    return Success()


async def unlock(agent: Agent, client: Client, request: Unlock) -> Response:
    """RFC 9987 section 5.7."""
    await agent.unlock(client, request.passphrase)
    log.info("unlocked")
    return Success()


def extension(agent: Agent, client: Client, request: Extension) -> Reply:
    """RFC 9987 section 5.8."""
    match request.name:
        case extensions.SESSION_BIND:
            return session_bind(agent, client, request.contents)
        case _ if agent.locked:
            raise locked()
        case extensions.QUERY if not request.contents:
            return ExtensionResponse(extensions.QUERY, QueryResponse((extensions.SESSION_BIND,)).encode())
    log.debug("unknown extension", extra={"extension": visible(request.name)})
    return Failure()


async def session_bind(agent: Agent, client: Client, contents: bytes) -> Response:
    """OpenSSH's PROTOCOL.agent: bind the connection to an SSH session; from now on it counts as remote."""
    agent.upstreams.bind_comes(client, contents)
    before = client.sessions
    # The user's own ssh makes the first. Until that is known to hold, and for good if it does not, whatever
    # the reason, nothing is known of what lies beyond.
    unknown = before.bind_failed or not before.bindings
    client.bound(replace(before, bind_attempted=True, bind_failed=unknown))
    try:
        # The client chooses how long the key is that verifies.
        binding = await agent.aside(lambda: verify_bind(SessionBind.decode(contents)))
        bindings = add_binding(before.bindings, binding)
    except ProtocolError as error:
        raise ExtensionRefusedError(f"session-bind: {error}") from error
    # ssh has written a new host's key to known_hosts by now.
    client.hosts = await agent.hosts(client, [bound.host_key for bound in bindings])
    client.bound(replace(before, bind_attempted=True, bindings=bindings))
    await agent.was_bound(client)
    log.debug("session bound", extra={"destination": describe_destination(client.sessions)})
    return Success()


def _provider_name(raw: bytes) -> str:
    try:
        name = raw.decode()
    except UnicodeDecodeError as error:
        raise RequestRefusedError("the provider's name is not UTF-8") from error
    if not name:
        raise RequestRefusedError("the provider has no name")
    return name
