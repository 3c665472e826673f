"""What listens in the place of the agent's control socket, and keeps or fills the memory of who asks."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from rigs.home import Home

from replug.agent.control.client import AskError, ask_at

REPLUG = Path(sys.executable).with_name("replug")
MEMORY = 512 * 1024 * 1024  # bytes that the command may have


@contextmanager
def impostor(path: Path, answer: Callable[[socket.socket], object]) -> Iterator[None]:
    """Answers one client at `path`, until that hangs up."""
    with socket.socket(socket.AF_UNIX) as listening, ThreadPoolExecutor(1) as own:
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            client = listening.accept()[0]
            with client, suppress(OSError):
                while True:
                    answer(client)

        own.submit(serve)
        yield


def test_an_answer_without_end_takes_no_memory(home: Home) -> None:
    agent = home.folder / "agent.sock"
    command = ("prlimit", f"--as={MEMORY}", REPLUG, "status")
    with impostor(agent.with_name("agent.sock.control"), lambda client: client.sendall(b" " * 2**16)):
        done = home.run(*command, env={"SSH_AUTH_SOCK": str(agent)})
    assert (done.status, done.out) == (1, "")
    assert done.err.endswith(".control: the answer does not end\n"), done.err


def test_one_that_comes_byte_by_byte_is_not_waited_for(home: Home) -> None:
    def drip(client: socket.socket) -> None:
        client.sendall(b" ")
        time.sleep(0.05)

    with (
        impostor(home.folder / "agent.sock.control", drip),
        pytest.raises(AskError, match="no replug-agent answers at"),
    ):
        ask_at(str(home.folder / "agent.sock"), "status", 0.5)
