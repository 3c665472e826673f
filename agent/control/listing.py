"""The list of keys of an agent, as any client gets it."""

from __future__ import annotations

import socket
import time

from replug.agent.control.client import LIST_REQUEST, PATIENCE, AskError
from replug.protocol.messages import IdentitiesAnswer, ListedIdentity
from replug.protocol.wire import ProtocolError, Reader

_LONGEST_REPLY = 256 * 1024  # bytes, as OpenSSH's clients have it
_IDENTITIES_ANSWER = 12


def listed_at(agent_socket: str, patience: float = PATIENCE) -> tuple[ListedIdentity, ...]:
    """What the agent at this path lists for a client that is bound to nothing; AskError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(patience)
        try:
            client.connect(agent_socket)
            return ask_for_list(client)
        except (EOFError, OSError, ValueError) as error:
            raise AskError(f"the agent at {agent_socket} does not list its keys: {error}") from error


def ask_for_list(client: socket.socket) -> tuple[ListedIdentity, ...]:
    """The keys that the agent lists; none for a refusal. OSError; EOFError, ValueError if it is no reply.

    It has as long as the client's time-out for all of it.
    """
    end = time.monotonic() + (client.gettimeout() or PATIENCE)
    client.sendall(LIST_REQUEST)
    length = int.from_bytes(_receive(client, 4, end), "big")
    if not 0 < length <= _LONGEST_REPLY:
        raise ValueError(f"a reply of {length} bytes")
    reply = _receive(client, length, end)
    if reply[0] != _IDENTITIES_ANSWER:
        return ()
    try:
        return IdentitiesAnswer.decode(Reader(reply[1:])).identities
    except ProtocolError as error:
        raise ValueError(str(error)) from error


def _receive(client: socket.socket, count: int, end: float) -> bytes:
    data = b""
    while len(data) < count:
        piece = client.recv(count - len(data))
        if not piece:
            raise EOFError("the connection ended")
        data += piece
        if time.monotonic() > end:
            raise TimeoutError("the reply comes too slowly")
    return data
