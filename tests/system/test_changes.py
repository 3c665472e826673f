"""Uninstalled, upgraded, mistyped: what `replug setup` leaves of it, and that each login has an agent."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rigs.home import Home
from rigs.terminal import Done
from rigs.user_manager import HOME, UserManager

SOCKET, SERVICE = "replug-agent.socket", "replug-agent.service"
UNITS = ".config/systemd/user"
RECORD = ".local/state/replug/setup.json"
OTHER, FOLDER = "gcr-ssh-agent.socket", ".local/share/systemd/user"
NO_IDENTITIES = Done(1, "The agent has no identities.\n", "")
LogIn = Callable[..., UserManager]


@pytest.fixture
def installed(home: Home) -> Path:
    """The programs, where pipx would put them; the folder."""
    folder = home.folder / "bin"
    folder.mkdir(mode=0o755)
    for name in ("replug", "replug-agent"):
        (folder / name).symlink_to(Path(sys.executable).with_name(name))
    return folder


def uninstall(folder: Path) -> None:
    """As pipx does."""
    for path in folder.iterdir():
        path.unlink()


@pytest.fixture
def other(home: Home) -> None:
    """OpenSSH's agent, in the units of another that starts at login."""
    (home.folder / FOLDER / "sockets.target.wants").mkdir(parents=True)
    (home.folder / FOLDER / "sockets.target.wants").chmod(0o755)
    home.write(
        f"{FOLDER}/{OTHER}",
        "[Socket]\nListenStream=%t/gcr/ssh\nService=other.service\n"
        "ExecStartPost=systemctl --user set-environment SSH_AUTH_SOCK=%t/gcr/ssh\n"
        "ExecStopPost=systemctl --user unset-environment SSH_AUTH_SOCK\n"
        "[Install]\nWantedBy=sockets.target\n",
    )
    home.write(f"{FOLDER}/other.service", "[Service]\nExecStart=sleep infinity\n")
    (home.folder / FOLDER / "sockets.target.wants" / OTHER).symlink_to(HOME / FOLDER / OTHER)


@pytest.mark.usefixtures("other")
def test_uninstalled_in_the_natural_order(home: Home, installed: Path, logged_in: LogIn) -> None:
    """The program goes first, or alone: the agent that was there before is there at the next login."""
    session = logged_in()
    theirs, ours = f"{session.runtime}/gcr/ssh", f"{session.runtime}/replug/agent.sock"
    assert session.environment()["SSH_AUTH_SOCK"] == theirs
    assert session.run(f"{HOME}/bin/replug", "setup", "--yes").status == 0
    assert session.environment()["SSH_AUTH_SOCK"] == ours
    assert session.show(OTHER, "ActiveState") == "inactive"
    assert session.ssh_add("-l") == NO_IDENTITIES

    uninstall(installed)
    assert session.ssh_add("-l") == NO_IDENTITIES  # what runs goes on
    for installed_again in (False, True):
        if installed_again:
            for name in ("replug", "replug-agent"):
                (installed / name).symlink_to(Path(sys.executable).with_name(name))
        session.log_out()
        session.log_in()
        expected = ours if installed_again else theirs
        assert session.environment()["SSH_AUTH_SOCK"] == expected
        assert session.show(OTHER, "ActiveState") == ("inactive" if installed_again else "active")
        assert session.show(SOCKET, "ActiveState") == ("active" if installed_again else "inactive")
    assert session.systemctl("is-system-running").out == "running\n"
    assert session.ssh_add("-l") == NO_IDENTITIES


@pytest.mark.usefixtures("other")
def test_what_replug_0_1_0_set_up_is_changed_over(home: Home, logged_in: LogIn) -> None:
    """It masked other agents, and named the socket in environment.d, whether the program was there or not."""
    session = logged_in()
    before = session.listing()
    assert session.replug("setup", "--yes").status == 0
    named = ".config/environment.d/60-replug.conf"
    text = "SSH_AUTH_SOCK=${XDG_RUNTIME_DIR}/replug/agent.sock\n"
    assert session.run("mkdir", ".config/environment.d").status == 0
    assert session.run("tee", named, text=text).status == 0
    record = json.loads((home.folder / RECORD).read_text())
    record["files"] = {path: digest for path, digest in record["files"].items() if "gcr-ssh" not in path}
    record["files"][f"{HOME}/{named}"] = hashlib.sha256(text.encode()).hexdigest()
    record["folders"].append(f"{HOME}/.config/environment.d")
    record["replaced"] = [{"unit": OTHER, "masked": True, "enabled": True, "active": True}]
    (home.folder / RECORD).write_text(json.dumps(record))
    (home.folder / UNITS / f"{OTHER}.d" / "replug.conf").unlink()
    assert session.systemctl("mask", OTHER).status == 0

    done = session.replug("setup", "--yes")
    assert done.status == 0, done
    assert f"  remove {HOME}/{named}, which an earlier replug setup made" in done.lines
    assert not (home.folder / named).exists()
    assert session.show(OTHER, "LoadState") == "loaded"
    session.log_out()
    session.log_in()
    assert session.environment()["SSH_AUTH_SOCK"] == f"{session.runtime}/replug/agent.sock"
    assert session.show(OTHER, "ActiveState") == "inactive"
    assert session.replug("setup", "--remove").status == 0
    assert session.environment()["SSH_AUTH_SOCK"] == f"{session.runtime}/gcr/ssh"
    assert session.show(OTHER, "ActiveState") == "active"
    assert session.listing() == before


def test_an_upgrade_that_fails_leaves_what_was_there(home: Home, logged_in: LogIn) -> None:
    session = logged_in()
    assert session.replug("setup").status == 0
    unit, record = home.folder / UNITS / SERVICE, home.folder / RECORD
    new = unit.read_text()
    old = new + "# An older one.\n"
    unit.write_text(old)
    digests = [hashlib.sha256(text.encode()).hexdigest() for text in (new, old)]
    record.write_text(record.read_text().replace(*digests))
    before = json.loads(record.read_text())
    (home.folder / f"{UNITS}/{SERVICE}.d").mkdir(mode=0o755)
    home.write(f"{UNITS}/{SERVICE}.d/mine.conf", "[Service]\nUser=no-such-user\n", 0o644)

    done = session.replug("setup")
    assert done.status == 1
    assert f"  {SERVICE}: status 217/USER: " in done.out
    assert "  bring back the units that were there before" in done.lines
    assert unit.read_text() == old
    assert json.loads(record.read_text()) == before
    assert "Done" not in done.out
    (home.folder / f"{UNITS}/{SERVICE}.d/mine.conf").unlink()
    assert session.systemctl("daemon-reload").status == 0
    assert session.ssh_add("-l") == NO_IDENTITIES


def test_a_configuration_that_is_refused_stops_setup_before_it_changes_anything(
    home: Home, logged_in: LogIn
) -> None:
    home.configure("workers = many")
    session = logged_in()
    before = session.listing()
    done = session.replug("setup")
    assert done.status == 1
    assert "config.toml:1: " in done.err
    assert done.err.endswith("replug: nothing was changed; correct the file, then replug setup\n")
    home.write(".config/replug/config.toml", "modules = []\n", 0o666)
    done = session.replug("setup")
    assert done.err.endswith(
        f"nothing was changed; chmod go-w {HOME}/.config/replug/config.toml, then replug setup\n"
    )
    assert {line.split()[1] for line in session.listing()} == {line.split()[1] for line in before}


def test_what_setup_makes_is_closed_whatever_the_umask(home: Home, logged_in: LogIn) -> None:
    """With 0002, and a group that has others in it, the agent would not trust its own folder."""
    configuration = home.folder / ".config"
    for path in (configuration / "replug" / "config.toml", configuration / "replug", configuration):
        path.unlink() if path.is_file() else path.rmdir()
    session = logged_in()
    replug = Path(sys.executable).with_name("replug")
    assert session.run("sh", "-c", f"umask 0002; exec {replug} setup").status == 0
    made = session.run("find", ".config", ".local", "-perm", "/022", "!", "-type", "l")
    assert made == Done(0, "", "")
