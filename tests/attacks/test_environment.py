"""Nothing of the environment, the working folder or the user's own packages is imported by the programs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from rigs.agent import PIN_PROMPT, Agent
from rigs.home import Home
from rigs.softhsm import Token
from rigs.terminal import Done

BIN = Path(sys.executable).parent
NAMES = (
    "asyncio", "ctypes", "cryptography", "json", "logging", "os", "pkcs11", "replug", "site",
    "sitecustomize", "socket", "subprocess", "usercustomize",
)  # fmt: skip
USER_SITE = f"python{sys.version_info.major}.{sys.version_info.minor}/site-packages"


@pytest.fixture
def marker(home: Home) -> Path:
    """Where it is noted what was imported of the hostile modules, which are wherever Python may look."""
    marker = home.folder / "imported"
    trap = f"open({str(marker)!r}, 'a').write(__name__ + '\\n')\n"
    hostile = home.folder / "hostile"
    user_site = home.folder / ".local" / "lib" / USER_SITE
    for folder in (hostile, user_site, home.folder / "base" / "lib" / USER_SITE):
        folder.mkdir(parents=True)
        for name in NAMES:
            (folder / f"{name}.py").write_text(trap)
        (folder / "hostile.pth").write_text(f"import sys; exec({trap!r})\n")
    (hostile / "startup").write_text(trap)
    home.env |= {
        "PYTHONPATH": str(hostile),
        "PYTHONHOME": str(hostile),
        "PYTHONSTARTUP": str(hostile / "startup"),
        "PYTHONUSERBASE": str(home.folder / "base"),
        "PYTHONINSPECT": "1",
        "PYTHONWARNINGS": "error",
        "PYTHONDEVMODE": "1",
        "PYTHONPLATLIBDIR": "hostile",
        "PYTHONEXECUTABLE": str(hostile / "startup"),
        "__PYVENV_LAUNCHER__": str(hostile / "startup"),
        "PYTHONBREAKPOINT": "hostile.breakpoint",
        "PYTHONSAFEPATH": "",
    }
    return marker


def test_the_trap_is_one(home: Home, marker: Path) -> None:
    path = home.env["PYTHONPATH"]  # with the others Python would not even start
    others = [name for name in home.env if name.startswith(("PYTHON", "__PY"))]
    for name in others:
        del home.env[name]
    home.run(sys.executable, "-c", "import asyncio", env={"PYTHONPATH": path})
    assert marker.read_text()


def test_an_agents_whole_life(home: Home, marker: Path) -> None:
    token = Token(home)
    token.add("p256")
    key = home.folder / "key"
    assert home.run("ssh-keygen", "-q", "-N", "", "-t", "ed25519", "-f", key).status == 0
    agent = InHostileFolder(BIN / "replug-agent", home)
    try:
        assert agent.ssh_add("-s", token.module, typing=[(PIN_PROMPT, token.pin)]).status == 0, agent.log
        assert agent.ssh_add("-q", key) == Done(0, "", ""), agent.log
        for public in (home.folder / "p256.pub", f"{key}.pub"):
            assert agent.ssh_add("-T", public) == Done(0, "", ""), agent.log
        for command in (["status"], ["doctor"], ["explain", "git@example.org"], ["config", "--check"]):
            done = agent.run("sh", "-c", f'cd hostile && exec "$0" {" ".join(command)}', BIN / "replug")
            assert "Traceback" not in done.err, done
    finally:
        assert agent.stop() == 2
    assert not marker.exists(), marker.read_text()


class InHostileFolder(Agent):
    """An agent that is started where the traps are."""

    def __init__(self, program: Path, home: Home) -> None:
        home.env["PROGRAM"] = str(program)
        script = home.write("agent", '#!/bin/sh\ncd hostile && exec "$PROGRAM" "$@"\n', 0o700)
        super().__init__(script, home)


def test_a_command_is_given_the_callers_environment(home: Home, marker: Path) -> None:
    """What is not for the agent may well be for the program that is run with it."""
    expected = {name: value for name, value in home.env.items() if name.startswith("PYTHON")}
    del expected["PYTHONEXECUTABLE"]  # means nothing on Linux, but for breaking Python's start
    done = home.run(BIN / "replug-agent", "env")
    assert dict(line.split("=", 1) for line in done.lines if line.startswith("PYTHON")) == expected
    assert not marker.exists()
