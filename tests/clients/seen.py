"""What was seen of a client's visit, from behind the agent's socket."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from clients.client import Client
from clients.user import RefusedError, Visit
from rigs.key_files import blob_of
from rigs.relay import Exchange

from replug.protocol.constants import MessageType
from replug.protocol.extensions import SESSION_BIND, SessionBind
from replug.protocol.wire import Reader


@dataclass(frozen=True)
class Seen:
    """What a visit came to."""

    brought: bool
    said: tuple[str, ...]
    """Each request with its reply, in words; of signatures those with the key that opens."""
    in_flight: int
    """The most requests of one connection that waited for a reply."""


def visit(client: Client, visit: Visit) -> tuple[Seen, str]:
    """Has the client bring the document, with nothing in its way; what it complained of."""
    visit.user.server.authorize(visit.public)
    visit.agent.forget()
    complaint = ""
    try:
        document = client.bring(visit)
    except RefusedError as error:
        complaint = str(error)
    else:
        assert document == visit.user.document.read_text(), document
    said = in_words(visit.agent.exchanges, blob_of(visit.public))
    return Seen(not complaint, said, visit.agent.in_flight), complaint


def in_words(exchanges: Iterable[Exchange], key: bytes) -> tuple[str, ...]:
    """These requests and replies."""
    said = set()
    for request, reply in exchanges:
        kind, asked = MessageType(request[0]), Reader(request[1:])
        words = [kind.name]
        if kind is MessageType.SIGN_REQUEST:
            if asked.string() != key:
                continue
            asked.string()
            words.append(f"flags {asked.uint32()}")
        elif kind is MessageType.EXTENSION:
            words.append(asked.string().decode())
            if words[-1] == SESSION_BIND and SessionBind.decode(asked.rest()).is_forwarding:
                words.append("of a forwarded agent")
        words += ["->", MessageType(reply[0]).name]
        if reply[0] == MessageType.SIGN_RESPONSE:
            words.append(Reader(Reader(reply[1:]).string()).string().decode())
        said.add(" ".join(words))
    return tuple(sorted(said))
