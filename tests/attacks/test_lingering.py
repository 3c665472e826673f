"""A descriptor passed to the agent, of what takes its time when it is closed, stops nobody."""

from __future__ import annotations

import socket
import time
from contextlib import suppress

import pytest
from rigs.agent import LIST_REQUEST, Agent, frame
from rigs.lingering import lingering

_INCOMPLETE = frame(b"\x0d" + bytes(100))[:-1]


@pytest.mark.parametrize("data", [LIST_REQUEST, _INCOMPLETE], ids=["a request", "half a request"])
@pytest.mark.parametrize("which", ["socket", "control"])
def test_a_socket_that_lingers(agent: Agent, data: bytes, which: str) -> None:
    with agent.connect() as connection:
        assert connection.ask(LIST_REQUEST)[:1] == b"\x0c"
        for _ in range(3):
            with socket.socket(socket.AF_UNIX) as other, lingering() as one:
                other.connect(str(getattr(agent, which)))
                try:
                    socket.send_fds(other, [data], [one.fileno()])
                except PermissionError:
                    return  # this kernel refuses it; how it is on others is in unit/token/test_bytes_only.py
                one.close()
                time.sleep(0.1)  # it has been received by now
                begun = time.monotonic()
                assert connection.ask(LIST_REQUEST)[:1] == b"\x0c"
                assert time.monotonic() - begun < 2
                other.settimeout(5)
                with suppress(ConnectionResetError):
                    assert other.recv(1) == b""
    assert "Traceback" not in agent.log
