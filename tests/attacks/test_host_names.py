"""A client that is bound to hosts with many long names in known_hosts: little of them is kept for it."""

from __future__ import annotations

import base64
import os
import resource
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from attacks.largest import EXTENSION
from doubles.session_hosts import bind_of
from doubles.stand_ins import Key
from rigs.agent import Connection, frame, string
from rigs.home import Home
from rigs.user_manager import HOME, USER, UserManager

from replug.protocol.constants import MAX_BINDINGS
from replug.protocol.extensions import SESSION_BIND
from replug.protocol.known_hosts import LONGEST_NAME

PROGRAM = Path(sys.executable).with_name("replug-agent")
NAMES, CONNECTIONS = 60, 60
MOST = 64 * 1024
"""Bytes of one connection."""


def line(number: int, key: Key) -> bytes:
    names = (f"{number}-{name}-".ljust(LONGEST_NAME, "x") for name in range(NAMES))
    return ",".join(names).encode() + b" ssh-ed25519 " + base64.b64encode(key.blob) + b"\n"


def resident(session: UserManager) -> int:
    """Bytes of memory that the largest process of the agent has."""
    found = []
    for pid in session.processes():
        folder = Path(f"/proc/{pid}")
        if (folder / "comm").read_text().startswith("replug-agent"):
            found.append(int((folder / "statm").read_text().split()[1]) * resource.getpagesize())
    return max(found)


def test_many_connections_with_many_names_take_little_memory(
    home: Home, log_in: Callable[[], UserManager]
) -> None:
    keys = [Key() for _ in range(MAX_BINDINGS)]
    (home.folder / ".ssh").mkdir(mode=0o700)
    home.write(".ssh/known_hosts", b"".join(line(number, key) for number, key in enumerate(keys)))
    session = log_in()
    # Where ssh looks: in the home that the account has, whatever HOME says.
    found = session.run("sh", "-c", f"ln -s {HOME}/.ssh ~{USER}/.ssh", as_root=True)
    assert found.status == 0, found
    agent = session.start(PROGRAM, "-D", "-a", HOME / "agent.sock")
    assert agent.stdout
    assert agent.stdout.readline().startswith(b"SSH_AUTH_SOCK=")
    binds = [bind_of(key, os.urandom(32), forwarding=key is not keys[-1]) for key in keys]
    requests = [frame(EXTENSION + string(SESSION_BIND.encode()) + bind.encode()) for bind in binds]
    with ExitStack() as stack:

        def bound() -> None:
            connection = stack.enter_context(Connection(home.folder / "agent.sock", 60))
            for request in requests:
                assert connection.ask(request) == b"\x06"

        for _ in range(5):  # what the agent needs once
            bound()
        before = resident(session)
        for _ in range(CONNECTIONS):
            bound()
        grown = (resident(session) - before) / CONNECTIONS
    assert grown < MOST
