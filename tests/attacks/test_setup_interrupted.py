"""`replug setup` that is killed half-way, or started twice: the next one carries on, or undoes it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from rigs.home import Home
from rigs.terminal import Done, eventually
from rigs.user_manager import UserManager

from replug.agent.setup.record import digest

UNITS = (".config/systemd/user/replug-agent.service", ".config/systemd/user/replug-agent.socket")
RECORD = ".local/state/replug/setup.json"
# The command itself, which sends itself a signal when it has made so many of its changes.
INTERRUPTED = """
import os, signal, sys
replug, number, left = sys.argv[1], getattr(signal, sys.argv[2]), int(sys.argv[3])
from pathlib import Path
from replug.agent.setup import plan
places = [(plan, "save_record"), (plan, "write_file"), (plan, "make_folder")]
for place, name in [(Path, "unlink")] if "--remove" in sys.argv else places:
    def interrupted(*arguments, real=getattr(place, name), **more):
        global left
        if left == 0:
            os.kill(os.getpid(), number)
        left -= 1
        return real(*arguments, **more)
    setattr(place, name, interrupted)
from replug.agent.commands.main import main
sys.argv = [replug, "setup", *sys.argv[4:]]
sys.exit(main())
"""


def interrupted(session: UserManager, by: str, changes: int, *options: str) -> tuple[str | Path, ...]:
    """The arguments of `replug setup` that gets the signal `by` when it has made so many changes."""
    replug = Path(sys.executable).with_name("replug")
    return sys.executable, "-I", session.folder / "interrupted.py", replug, by, str(changes), *options


def make_older(home: Home) -> None:
    """What was set up was set up by an older version, whose units were others."""
    record = (home.folder / RECORD).read_text()
    for name in UNITS:
        unit = home.folder / name
        new, old = unit.read_text(), "# An older one.\n" + unit.read_text()
        unit.write_text(old)
        record = record.replace(digest(new.encode()), digest(old.encode()))
    (home.folder / RECORD).write_text(record)


def test_killed_half_way_it_goes_on_or_is_undone(log_in: Callable[[], UserManager], home: Home) -> None:
    home.write("interrupted.py", INTERRUPTED, 0o644)
    session = log_in()
    before = session.listing()
    for changes, and_then in ((2, "--remove"), (3, "--yes")):
        assert session.replug("setup").status == 0
        make_older(home)
        assert session.run(*interrupted(session, "SIGKILL", changes)).status == 128 + signal.SIGKILL
        done = session.replug("setup", and_then)
        assert done.status == 0, done
        if and_then != "--remove":
            assert "nothing to change" not in done.out
            assert "nothing to change" in session.replug("setup").out
            assert session.show("replug-agent.service", "NeedDaemonReload") == "no"
            assert session.replug("setup", "--remove").status == 0
        assert session.listing() == before, f"killed after {changes} changes"
    assert session.replug("setup").status == 0
    assert session.run(*interrupted(session, "SIGKILL", 1, "--remove")).status == 128 + signal.SIGKILL
    done = session.replug("setup", "--remove")
    assert done.status == 0, done
    assert session.listing() == before


def test_two_at_once(log_in: Callable[[], UserManager], home: Home) -> None:
    """The second one says that there is another, and leaves everything to it."""
    home.write("interrupted.py", INTERRUPTED, 0o644)
    session = log_in()
    before = session.listing()
    first = session.start(*interrupted(session, "SIGSTOP", 1))
    eventually((home.folder / RECORD).exists, "the first one has begun")
    for options in ((), ("--remove",)):
        assert session.replug("setup", *options) == Done(
            1,
            "",
            "replug: another replug setup is at work; nothing was changed: try again when it has ended\n",
        )
    for pid in session.processes():
        if b"interrupted.py" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGCONT)
    assert first.wait(120) == 0
    assert session.replug("setup", "--remove").status == 0
    assert session.listing() == before
