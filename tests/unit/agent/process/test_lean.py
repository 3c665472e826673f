"""What is kept out of the agent's memory is out, and there again for who wants it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from rigs.agent import descendants


def python(program: str) -> str:
    """What a fresh Python prints."""
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("before", ["", "import ssl; "])
def test_asyncio_works_and_ssl_is_loaded_by_who_asks_for_it(before: str) -> None:
    loaded = python(
        before + "import sys; from replug.agent.process import lean; lean.import_asyncio_without_ssl()\n"
        "print('ssl' in sys.modules, '_ssl' in sys.modules)\n"
        "import asyncio, ssl\n"
        "async def main(): return await asyncio.sleep(0, 'runs')\n"
        "print(asyncio.run(main()), ssl.create_default_context().check_hostname)"
    )
    assert loaded == f"{bool(before)} {bool(before)}\nruns True"


def test_what_serves_has_no_need_of_ssl() -> None:
    assert (
        python(
            "import sys; from replug.agent.process import lean; lean.import_asyncio_without_ssl()\n"
            "import replug.agent.service\n"
            "print({'ssl', '_ssl', 'cryptography', 'pkcs11', 'pyudev'} & set(sys.modules))"
        )
        == "set()"
    )


def test_what_forks_workers_needs_little() -> None:
    """The process that was started: it reads the configuration, and lives as long as the agent."""
    assert (
        python(
            "import sys\n"
            "import replug.agent.main, replug.agent.config.reader\n"
            "from replug.token.worker import forkserver\n"
            "forkserver.load('replug.token.worker.inside.program')\n"
            "unwanted = {'asyncio', 'cryptography', 'pyudev', 'ssl', '_ssl'}\n"
            "print(unwanted & set(sys.modules), 'pkcs11' in sys.modules)"
        )
        == "set() True"
    )


@pytest.mark.parametrize("configuration", [None, "modules = []\n"])
def test_the_running_agent_has_no_ssl(tmp_path: Path, configuration: str | None) -> None:
    if configuration is not None:
        (tmp_path / "replug").mkdir()
        (tmp_path / "replug/config.toml").write_text(configuration)
    program = [Path(sys.executable).with_name("replug-agent"), "-D", "-a", tmp_path / "s"]
    environment = os.environ | {"XDG_CONFIG_HOME": str(tmp_path)}
    with subprocess.Popen(program, stdout=subprocess.PIPE, env=environment) as agent:
        assert agent.stdout
        agent.stdout.readline()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "s"))
            client.sendall(b"\0\0\0\1\x0b")
            assert client.recv(100) == b"\0\0\0\5\x0c\0\0\0\0"
        maps = ""
        if os.geteuid() == 0:
            processes = [agent.pid, *descendants(agent.pid)]
            assert len(processes) > 1
            maps = "".join(Path(f"/proc/{pid}/maps").read_text() for pid in processes)
        agent.terminate()
    assert "/_ssl." not in maps


def test_what_a_lock_needs_is_given_back(tmp_path: Path) -> None:
    """scrypt takes 16 MiB, in whatever thread it runs."""
    program = [Path(sys.executable).with_name("replug-agent"), "-D", "-a", tmp_path / "s"]
    with subprocess.Popen(program, stdout=subprocess.PIPE) as agent:
        assert agent.stdout
        agent.stdout.readline()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "s"))
            before = resident(agent.pid)
            for _ in range(3):
                for message in (b"\x16", b"\x17"):  # SSH_AGENTC_LOCK, SSH_AGENTC_UNLOCK
                    client.sendall(b"\0\0\0\x0b" + message + b"\0\0\0\6sesame")
                    assert client.recv(100) == b"\0\0\0\1\6"
            after = resident(agent.pid)
        agent.terminate()
    # The agent goes on importing what it will need while this runs: some megabytes.
    assert after - before < 24


def resident(pid: int) -> float:
    """In MiB."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) / 1024
