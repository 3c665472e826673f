"""Many rules for many keys: to compare them is in nobody's way."""

from __future__ import annotations

import threading
import time

from doubles.session_hosts import bind_of
from doubles.stand_ins import Key
from rigs.agent import LIST_REQUEST, StartAgent, frame, string
from rigs.home import Home
from rigs.other_agent import Asked, OtherAgent

from replug.protocol.extensions import SESSION_BIND
from replug.protocol.messages import Extension

_SUCCESS, _FAILURE = b"\x06", b"\x05"
_KEYS, _RULES = 2048, 64
_COMMENT = b"a key of somebody"
_UNKNOWN = frame(b"\x1b" + string(b"nobody@example.org"))
"""A request that is answered at once."""


def _many(asked: Asked) -> None:
    """It has as many keys as a list can have, others each time."""
    first = 0
    while asked.request():
        keys = b""
        for number in range(first, first + _KEYS):
            keys += string(string(b"ssh-ed25519") + string(number.to_bytes(32, "big"))) + string(_COMMENT)
        first += _KEYS
        asked.socket.sendall(frame(b"\x0c" + _KEYS.to_bytes(4, "big") + keys))


def test_keys_are_compared_with_rules_beside_all_else(home: Home, start_agent: StartAgent) -> None:
    other = OtherAgent(home.folder / "other.sock", _many)
    rules = "".join(
        f'[[key]]\nmatch = ["work{number}*", "*{number}*", "SHA256:{number:043}"]\nhosts = "host{number}"\n'
        for number in range(_RULES)
    )
    home.configure(f"modules = []\nupstreams = ['{other.path}']\n{rules}")
    try:
        agent = start_agent()
        with agent.connect() as login, agent.connect() as another:
            assert another.ask(LIST_REQUEST)[:1] == b"\x0c"  # nothing that only begins is in the way
            bound = frame(Extension(SESSION_BIND, bind_of(Key(), b"session").encode()).encode())
            assert login.ask(bound) == _SUCCESS
            asking = threading.Thread(target=login.ask, args=(LIST_REQUEST,))
            begun, waited = time.monotonic(), []
            asking.start()
            while asking.is_alive():
                asked_at = time.monotonic()
                assert another.ask(_UNKNOWN) == _FAILURE
                waited.append(time.monotonic() - asked_at)
                asking.join(0.01)
            took = time.monotonic() - begun
            assert max(waited) < took / 2, (max(waited), took)
    finally:
        other.stop()
