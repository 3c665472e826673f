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
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(autouse=True)
def nothing_left(home: Home) -> Iterator[None]:
    """No file in the temporary folder, and no process that was started in it."""
    yield
    assert os.listdir(home.env["TMPDIR"]) == []
    eventually(lambda: processes_below(home) == [], "the end of every process")


def demo(home: Home) -> list[str | Path]:
    """The command; as packages are installed here, none is unpacked."""
    return [sys.executable, DEMO, home.folder / "unpacked"]


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
    done = home.run(*demo(home), timeout=120)

    assert (done.status, done.err) == (0, ""), done
    theirs, ours = done.out.split("Now the card is pulled out")[1:]
    assert "agent refused operation" in theirs.partition("With replug-agent:")[0]
    assert f"\nHello, {USER}\n" in ours
    assert "pipx install ." in done.out
    assert len(done.out.partition("To keep it:\n")[2].splitlines()) == 3
    picture = home.run(sys.executable, DOCS / "picture.py", text=done.out)
    assert picture.out == (DOCS / "demo.svg").read_text(), "make picture"


def test_it_shows_the_rest_where_namespaces_are_refused(home: Home) -> None:
    (home.folder / "unpacked/usr/lib").mkdir(parents=True)
    (home.folder / "bin").mkdir()
    home.write("bin/unshare", "#!/bin/sh\necho unshare: Operation not permitted >&2\nexit 1\n", 0o755)

    done = home.run(*demo(home), env={"PATH": f"{home.folder}/bin:{home.env['PATH']}"}, timeout=120)

    assert (done.status, done.err) == (0, ""), done
    assert 'Good "file" signature for me@example.com' in done.out
    assert "# Not shown: a card that is pulled out and put back." in done.out
    assert "not allowed here: unshare: Operation not permitted\n" in done.out


def test_it_fails_if_the_login_fails(home: Home) -> None:
    (home.folder / "bin").mkdir()
    home.write("bin/ssh", "#!/bin/sh\necho no route to anywhere\nexit 255\n", 0o755)

    done = home.run(*demo(home), env={"PATH": f"{home.folder}/bin:{home.env['PATH']}"}, timeout=120)

    assert done.status == 1
    assert "ended with status 255" in done.err


@pytest.mark.parametrize(
    ("sign", "moment"),
    [
        (signal.SIGINT, "Agent pid"),
        (signal.SIGTERM, "Agent pid"),
        (signal.SIGHUP, "Agent pid"),
        (signal.SIGINT, "# Now the card is pulled out"),
    ],
)
def test_it_cleans_up_when_it_is_stopped(sign: signal.Signals, moment: str, home: Home) -> None:
    started = subprocess.Popen(
        demo(home), env=home.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert started.stdout
    for line in started.stdout:
        if line.startswith(moment):
            break
    started.send_signal(sign)

    _, err = started.communicate(timeout=60)

    assert started.returncode == 130
    assert "cleaned up" in err
