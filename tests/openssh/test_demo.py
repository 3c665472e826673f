"""`make demo` works, fails loudly, and cleans up after itself in every case."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rigs.home import Home
from rigs.sshd import USER
from rigs.terminal import eventually

DEMO = Path(__file__).parent.parent / "demo.py"


@pytest.fixture(autouse=True)
def nothing_left(home: Home) -> Iterator[None]:
    """No file in the temporary folder, and no process that was started in it."""
    yield
    assert os.listdir(home.env["TMPDIR"]) == []
    eventually(lambda: processes_below(home) == [], "the end of every process")


def processes_below(home: Home) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if home.env["TMPDIR"].encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text())
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


def test_it_works(home: Home) -> None:
    done = home.run(sys.executable, DEMO, timeout=120)

    assert (done.status, done.err) == (0, ""), done
    theirs, ours = done.out.split("Now the card is pulled out")[1:]
    assert "agent refused operation" in theirs.partition("With replug-agent:")[0]
    assert f"\nHello, {USER}\n" in ours
    assert "pipx install ." in done.out
    assert len(done.out.partition("To keep it:\n")[2].splitlines()) == 3


def test_it_fails_if_the_login_fails(home: Home) -> None:
    (home.folder / "bin").mkdir()
    home.write("bin/ssh", "#!/bin/sh\necho no route to anywhere\nexit 255\n", 0o755)

    done = home.run(sys.executable, DEMO, env={"PATH": f"{home.folder}/bin:{home.env['PATH']}"}, timeout=120)

    assert done.status == 1
    assert "ended with status 255" in done.err


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_cleans_up_when_it_is_stopped(sign: signal.Signals, home: Home) -> None:
    demo = subprocess.Popen(
        [sys.executable, DEMO], env=home.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert demo.stdout
    for line in demo.stdout:
        if line.startswith("Agent pid"):
            break
    demo.send_signal(sign)

    _, err = demo.communicate(timeout=60)

    assert demo.returncode == 130
    assert "cleaned up" in err
