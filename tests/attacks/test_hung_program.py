"""A program whose file is on a file system that does not answer: the agent asks nothing about the file."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from rigs.agent import LIST_REQUEST, Agent

_SOURCE = Path(__file__).with_name("hung_program.c")


def test_it_keeps_nobody_waiting(agent: Agent, tmp_path: Path) -> None:
    program, folder = tmp_path / "hung_program", tmp_path / "folder"
    folder.mkdir()
    subprocess.run(
        ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-o", program, _SOURCE], check=True
    )
    hung = subprocess.Popen([program, folder, agent.socket], stdout=subprocess.PIPE, text=True)
    try:
        assert hung.stdout
        said = hung.stdout.readline()
        if said.startswith("skip"):
            pytest.skip(said)
        assert said == "connected\n"
        with agent.connect(timeout=10) as connection:
            assert connection.ask(LIST_REQUEST)[:1] == b"\x0c"
    finally:
        hung.kill()
        hung.wait()
