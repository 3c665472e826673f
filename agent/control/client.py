"""The client side of the control socket."""

from __future__ import annotations

import json
import math
import os
import socket
import struct
import time
from typing import Any

from replug.agent.clients.peer import Peer
from replug.agent.control.places import another_agent, is_system_service, own_socket, runtime_folder

LIST_REQUEST = b"\x00\x00\x00\x01\x0b"
"""SSH_AGENTC_REQUEST_IDENTITIES, which every agent answers."""
PATIENCE = 10.0
"""Seconds for an answer."""
_UNTIL_BOUND = 2.0  # seconds that an agent which answers may take to make its control socket
_PAUSE = 0.02  # seconds between two looks for it
_SUFFIX = ".control"
_PIECE = 64 * 1024
_LONGEST_ANSWER = 64 * 1024 * 1024
"""Bytes; more than the status of all the keys and tokens that an agent serves."""


class AskError(Exception):
    """The agent could not be asked; the text is for the user."""


def control_path(agent_socket: str) -> str:
    """The control socket that belongs to the agent's socket."""
    return agent_socket + _SUFFIX


def ask(command: str, patience: float = PATIENCE) -> dict[str, Any]:
    """The answer to `command` in `patience` seconds; AskError.

    From the agent that $SSH_AUTH_SOCK names; if it is not set, from the one that `replug setup` started.
    """
    named, own = os.environ.get("SSH_AUTH_SOCK"), own_socket(os.environ)
    if not named:
        if own is None:
            raise AskError(
                f"SSH_AUTH_SOCK is not set, and no agent listens in {runtime_folder(os.environ)};"
                " replug doctor suggests a fix"
            )
        return ask_at(own, command, patience)
    try:
        return ask_at(named, command, patience)
    except AskError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        other = another_agent(named)
        if other is None and own in (None, named):
            raise
        reason = f"SSH_AUTH_SOCK is {named}, where {other} answers" if other else str(error).partition(";")[0]
        if own in (None, named):
            raise AskError(f"{reason}, not replug-agent; replug doctor suggests a fix") from error
        raise AskError(f"{reason}; your replug-agent is at {own}: export SSH_AUTH_SOCK={own}") from error


def ask_at(agent_socket: str, command: str, patience: float = PATIENCE) -> dict[str, Any]:
    """The answer to `command` from the agent that listens at `agent_socket`; AskError.

    An agent that systemd starts at the first connection has no control socket before that; it makes one while
    it answers its first clients.
    """
    begun = None
    while True:
        try:
            return _ask(agent_socket, command, patience)
        except AskError as error:
            if not isinstance(error.__cause__, FileNotFoundError | ConnectionRefusedError):
                raise
            if begun is None:
                if not wake(agent_socket):
                    raise
                begun = time.monotonic()
            elif time.monotonic() > begun + _UNTIL_BOUND:
                raise
        time.sleep(_PAUSE)


def wake(agent_socket: str, patience: float = PATIENCE) -> bool:
    """Ask the agent for its keys, which may start it; whether it answers, which is after its first scan."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(patience)
        try:
            client.connect(agent_socket)
            client.sendall(LIST_REQUEST)
            return bool(client.recv(1))
        except OSError:
            return False


def _ask(agent_socket: str, command: str, patience: float) -> dict[str, Any]:
    path = control_path(agent_socket)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
        # Blocking, with this limit: one that does not block has no place in the queue of those that connect.
        control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", math.ceil(patience), 0))
        try:
            control.connect(path)
            control.settimeout(patience)
            # The folder of a service's socket is root's and that user's alone.
            if Peer.of(control).is_foreign and not is_system_service(agent_socket):
                raise AskError(f"{path} is another user's socket, so it is not trusted")
            control.sendall(command.encode() + b"\n")
            text = _received(control, patience)
        except OSError as error:
            reason = error.strerror or str(error)
            raise AskError(
                f"no replug-agent answers at {path}: {reason}; replug doctor suggests a fix"
            ) from error
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AskError("the agent's answer is malformed") from error
    if not isinstance(answer, dict) or "error" in answer:
        raise AskError("the agent does not know this command: is it older than this program?")
    return answer


def _received(control: socket.socket, patience: float) -> bytes:
    """The answer to its end, which a program in the agent's place need not send. OSError, AskError."""
    end = time.monotonic() + 2 * patience
    text = bytearray()
    while piece := control.recv(_PIECE):
        text += piece
        left = end - time.monotonic()
        if len(text) > _LONGEST_ANSWER or left <= 0:
            raise AskError(f"no replug-agent answers at {control.getpeername()}: the answer does not end")
        control.settimeout(min(left, patience))
    return bytes(text)
