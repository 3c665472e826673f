"""`replug setup` with a real user manager: what it does, that it asks, and that all of it can be undone."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rigs.home import Home
from rigs.softhsm import MODULE, Token
from rigs.terminal import Done, eventually
from rigs.user_manager import HOME, UserManager

SOCKET, SERVICE = "replug-agent.socket", "replug-agent.service"
UNITS = ".config/systemd/user"
NO_IDENTITIES = Done(1, "The agent has no identities.\n", "")
LogIn = Callable[[], UserManager]
KEEP_OR_REPLACE = "(k), or replace it (r)? `replug setup --remove` undoes either. [k/r/N] "


def set_up(session: UserManager, *options: str) -> Done:
    done = session.replug("setup", *options)
    assert (done.status, done.err) == (0, ""), done
    return done


def test_from_setup_to_removal(session: UserManager) -> None:
    home, environment = session.listing(), session.environment().keys()

    set_up(session)
    assert session.environment()["SSH_AUTH_SOCK"] == f"{session.runtime}/replug/agent.sock"

    session.log_out()
    session.log_in()
    assert session.environment()["SSH_AUTH_SOCK"] == f"{session.runtime}/replug/agent.sock"
    assert session.show(SERVICE, "ActiveState") == "inactive"
    assert session.ssh_add("-l") == NO_IDENTITIES
    assert session.show(SERVICE, "ActiveState") == "active"
    eventually(lambda: session.show(SERVICE, "StatusText"), "a status")

    session.systemctl("kill", "--signal=KILL", SERVICE)
    eventually(lambda: session.show(SERVICE, "ActiveState") == "failed", "its end is noticed")
    assert session.ssh_add("-l") == NO_IDENTITIES
    assert session.show(SERVICE, "ActiveState") == "active"

    done = session.replug("setup", "--remove")
    assert (done.status, done.err, done.out.splitlines()[-1]) == (0, "", "Done.")
    assert session.environment().keys() == environment
    assert session.listing() == home
    assert session.show(SOCKET, "LoadState") == "not-found"
    assert session.systemctl("is-system-running").out == "running\n"


def test_a_dry_run_says_the_same_and_does_nothing(session: UserManager) -> None:
    before = session.listing()
    would = set_up(session, "--dry-run").out.splitlines()
    assert session.listing() == before
    will = set_up(session).out.splitlines()
    assert would[0] == "replug setup would"
    assert would[1:] == will[1 : len(would)]
    assert "Done: the agent answers." in will
    assert f"  write {session.folder}/{UNITS}/{SOCKET}" in would

    after = session.listing()
    assert set_up(session, "--remove", "--dry-run").out.startswith("replug setup --remove would\n")
    assert session.listing() == after


def test_the_second_time_there_is_nothing_to_do(session: UserManager) -> None:
    set_up(session)
    after = session.listing()
    assert set_up(session).out.startswith("replug is already set up; there is nothing to change.\n")
    assert session.listing() == after


def test_removing_what_is_not_there(session: UserManager) -> None:
    before = session.listing()
    assert "nothing to undo" in set_up(session, "--remove").out
    assert session.listing() == before


def test_units_of_an_older_version_are_renewed(session: UserManager, home: Home) -> None:
    set_up(session)
    record = home.folder / ".local/state/replug/setup.json"
    unit = home.folder / UNITS / SERVICE
    new = unit.read_text()
    old = new + "# An older one.\n"
    unit.write_text(old)
    record.write_text(record.read_text().replace(sha256(new), sha256(old)))
    assert session.ssh_add("-l") == NO_IDENTITIES
    said = set_up(session).out
    assert "Done. The agent that runs is still the one from before, until you type" in said
    assert "PINs and keys in memory do not survive the change" in said
    assert f"  write {session.folder}/{UNITS}/{SERVICE}\n" in said
    assert f"systemctl --user restart {SOCKET} {SERVICE}" in said
    assert unit.read_text() == new


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_a_file_that_was_changed_is_not_touched(session: UserManager, home: Home) -> None:
    before = session.listing()
    set_up(session)
    changed = home.folder / UNITS / SERVICE
    text = changed.read_text() + "# Mine.\n"
    changed.write_text(text)

    done = session.replug("setup")
    assert done.status == 1
    assert f"{UNITS}/{SERVICE} was changed since and was not touched" in done.err
    assert f"leave {session.folder}/{UNITS}/{SERVICE}" in set_up(session, "--remove").out
    assert changed.read_text() == text
    left = {line.split()[1] for line in session.listing()} - {line.split()[1] for line in before}
    assert left == {"./.config/systemd", f"./{UNITS}", f"./{UNITS}/{SERVICE}"}


def test_a_file_of_somebody_elses_is_not_touched(logged_in: LogIn, home: Home) -> None:
    (home.folder / UNITS).mkdir(parents=True)
    home.write(f"{UNITS}/{SERVICE}", "[Service]\nExecStart=true\n")
    session = logged_in()
    before = session.listing()
    done = session.replug("setup", "--yes")
    assert done.status == 1
    assert f"{UNITS}/{SERVICE} is not replug's" in done.err
    assert session.listing() == before


def other_agent(home: Home, unit: str, folder: str, path: str) -> None:
    """A socket of another agent that starts at login and sets SSH_AUTH_SOCK, as gcr's does."""
    (home.folder / folder / "sockets.target.wants").mkdir(parents=True)
    (home.folder / folder / "sockets.target.wants").chmod(0o755)  # as systemctl makes it, whatever our umask
    service = unit.replace(".socket", ".service")
    home.write(
        f"{folder}/{unit}",
        f"[Socket]\nListenStream=%t/{path}\nService={service}\n"
        f"ExecStartPost=systemctl --user set-environment SSH_AUTH_SOCK=%t/{path}\n"
        "ExecStopPost=systemctl --user unset-environment SSH_AUTH_SOCK\n"
        "[Install]\nWantedBy=sockets.target\n",
    )
    home.write(f"{folder}/{service}", f"[Unit]\nRequires={unit}\n[Service]\nExecStart=sleep infinity\n")
    (home.folder / folder / "sockets.target.wants" / unit).symlink_to(HOME / folder / unit)


@pytest.mark.parametrize(
    ("name", "socket", "configured"),
    [("gcr-ssh-agent", "gcr/ssh", True), ("ssh-agent", "openssh_agent", False)],
    ids=["gcr's, with a configuration", "Debian 13's, without"],
)
def test_another_agent_is_kept_behind_when_asked(
    name: str, socket: str, configured: bool, logged_in: LogIn, home: Home
) -> None:
    """It runs on, programs use replug, at each login, and `--remove` leaves everything as it was."""
    unit, service = f"{name}.socket", f"{name}.service"
    other_agent(home, unit, UNITS, socket)
    path = home.folder / ".config/replug/config.toml"
    if not configured:
        path.unlink()
        path.parent.rmdir()
    session = logged_in()
    session.systemctl("start", service)  # somebody has used it
    before, environment = session.listing(), session.environment()["SSH_AUTH_SOCK"]

    done = session.replug("setup", typing=[(KEEP_OR_REPLACE, "k")])
    assert done.status == 0, done
    assert f"keep the agent at {session.runtime}/{socket}: its keys are used through replug" in done.out
    text = path.read_text()
    assert f'upstreams = ["$XDG_RUNTIME_DIR/{socket}"]\n' in text
    assert ("modules = []" in text) == configured
    assert "nothing to change" in set_up(session).out
    for login in ("this", "the next"):
        assert session.environment()["SSH_AUTH_SOCK"] == f"{session.runtime}/replug/agent.sock", login
        assert session.show(unit, "ActiveState") == "active"
        assert f"{session.runtime}/{socket}: " in session.replug("status").out
        # Whichever sets SSH_AUTH_SOCK last wins.
        assert SOCKET in session.show(unit, "Before").split()
        session.log_out()
        session.log_in()

    assert session.replug("setup", "--remove").status == 0
    assert session.environment()["SSH_AUTH_SOCK"] == environment
    assert session.show(unit, "ActiveState") == "active"
    assert session.listing() == before


@pytest.mark.parametrize("folder", [UNITS, ".local/share/systemd/user"], ids=["own", "system"])
def test_another_agent_is_replaced_when_asked_and_brought_back(
    folder: str, logged_in: LogIn, home: Home
) -> None:
    other_agent(home, "gcr-ssh-agent.socket", folder, "gcr/ssh")
    session = logged_in()
    before, environment = session.listing(), session.environment()["SSH_AUTH_SOCK"]
    assert environment == f"{session.runtime}/gcr/ssh"

    done = session.replug("setup")
    assert (done.status, session.listing()) == (1, before)
    assert "--yes" in done.err
    assert session.replug("setup", typing=[(KEEP_OR_REPLACE, "")]).status == 1
    assert session.listing() == before
    done = session.replug("setup", typing=[(KEEP_OR_REPLACE, "r")])
    assert done.status == 0, done
    assert (
        "stop and disable gcr-ssh-agent.socket, the agent of GNOME's gcr, while replug is installed"
        in done.out
    )
    assert "nothing to change" in set_up(session).out
    assert session.show("gcr-ssh-agent.socket", "LoadState") == "loaded"  # not masked

    for login in ("this", "the next"):
        assert session.environment()["SSH_AUTH_SOCK"] == f"{session.runtime}/replug/agent.sock", login
        assert session.show("gcr-ssh-agent.socket", "ActiveState") == "inactive"
        session.log_out()
        session.log_in()

    assert session.replug("setup", "--remove").status == 0
    assert session.environment()["SSH_AUTH_SOCK"] == environment
    assert session.show("gcr-ssh-agent.socket", "ActiveState") == "active"
    assert session.listing() == before


def test_gpg_agents_socket_counts_only_if_it_is_used(logged_in: LogIn, home: Home) -> None:
    """Debian enables it for everybody."""
    unit, folder = "gpg-agent-ssh.socket", ".local/share/systemd/user"
    other_agent(home, unit, folder, "gnupg/S.gpg-agent.ssh")
    text = "\n".join(
        line for line in (home.folder / folder / unit).read_text().split("\n") if "Exec" not in line
    )
    home.write(f"{folder}/{unit}", text)
    session = logged_in()
    assert unit not in set_up(session, "--dry-run").out

    socket = f"{session.runtime}/gnupg/S.gpg-agent.ssh"
    done = session.replug("setup", "--keep", env={"SSH_AUTH_SOCK": socket})
    assert f"keep the agent at {socket}" in done.out, done
    assert "nothing to change" in set_up(session).out  # where the shell has ours
    assert session.replug("setup", "--remove").status == 0

    (home.folder / ".gnupg").mkdir()
    home.write(".gnupg/gpg-agent.conf", "# Mine\nenable-ssh-support\n", 0o644)
    said = set_up(session, "--yes").out
    assert f"stop and disable {unit}" in said
    assert "gpg-agent.conf:2 lets gpg-agent set SSH_AUTH_SOCK at login: remove enable-ssh-support" in said


def test_gnomes_keyring_starts_no_agent_any_more(logged_in: LogIn, home: Home) -> None:
    (home.folder / "xdg" / "autostart").mkdir(parents=True)
    home.write(
        "xdg/autostart/gnome-keyring-ssh.desktop",
        "[Desktop Entry]\nType=Application\nExec=/usr/bin/gnome-keyring-daemon --components=ssh\n",
        0o644,
    )
    session = logged_in()
    before = session.listing()
    desktop = {"XDG_CONFIG_DIRS": f"{session.folder}/xdg"}
    assert session.replug("setup", env=desktop).status == 1
    assert session.listing() == before
    done = session.replug("setup", "--yes", env=desktop)
    assert done.status == 0
    assert "which keeps gnome-keyring from starting its ssh agent at login" in done.out
    written = home.folder / ".config" / "autostart" / "gnome-keyring-ssh.desktop"
    program = Path(sys.executable).with_name("replug-agent")
    assert written.read_text() == (
        "[Desktop Entry]\nType=Application\n"
        f'Exec=sh -c "test -x {program} || exec /usr/bin/gnome-keyring-daemon --components=ssh"\n'
    )
    assert "nothing to change" in session.replug("setup", env=desktop).out
    set_up(session, "--remove")
    assert session.listing() == before


def test_an_agent_it_does_not_know(session: UserManager, home: Home) -> None:
    other = f"{session.folder}/other.sock"
    home.write("other.sock", "")
    session.systemctl("set-environment", f"SSH_AUTH_SOCK={other}")
    assert session.replug("setup").status == 1
    assert f"in place of {other}" in set_up(session, "--yes").out
    assert session.environment()["SSH_AUTH_SOCK"] == f"{session.runtime}/replug/agent.sock"
    set_up(session, "--remove")
    assert session.environment()["SSH_AUTH_SOCK"] == other


def test_what_leads_elsewhere_is_named_and_not_touched(session: UserManager, home: Home) -> None:
    (home.folder / ".ssh").mkdir()
    home.write(".ssh/config", "Host *\n  IdentityAgent ~/.1password/agent.sock\n", 0o644)
    home.write(".bashrc", '# ssh-agent\neval "$(ssh-agent -s)"\n', 0o644)
    before = session.listing()
    said = set_up(session).out
    assert "/.ssh/config:2 makes ssh use ~/.1password/agent.sock" in said
    assert '~/.bashrc:2 starts or selects another agent: eval "$(ssh-agent -s)"' in said
    set_up(session, "--remove")
    assert session.listing() == before


def test_lines_that_still_select_it_are_named_and_not_touched(session: UserManager, home: Home) -> None:
    """Setup suggests such a line for logins to which systemd gives no SSH_AUTH_SOCK."""
    [command] = [line.strip() for line in set_up(session).out.splitlines() if line.endswith(">>~/.profile")]
    home.write(".profile", "umask 077\n# not replug/agent.sock\n", 0o666)
    assert session.run("sh", "-c", command).status == 0
    suggested = (home.folder / ".profile").read_text().splitlines()[-1]
    assert suggested.endswith("export SSH_AUTH_SOCK=" + f"{session.runtime}/replug/agent.sock")
    login = session.run("sh", "-c", ". ./.profile; ssh-add -l")
    assert login == NO_IDENTITIES
    assert ".profile" not in set_up(session).out
    said = set_up(session, "--remove").out.splitlines()
    assert said[
        said.index("These lines in your own files still select the agent; remove them yourself:") :
    ] == [
        "These lines in your own files still select the agent; remove them yourself:",
        f"  ~/.profile:3: {suggested}",
        "Done.",
    ]
    assert suggested in (home.folder / ".profile").read_text()
    login = session.run("sh", "-c", '. ./.profile; echo "${SSH_AUTH_SOCK-none}"')
    assert login == Done(0, "none\n", "")  # the line does no harm when it stays


def test_what_fails_is_undone(session: UserManager, home: Home) -> None:
    before = session.listing()
    # A runtime folder that cannot be made: the socket does not start.
    session.run("touch", session.runtime / "replug")
    done = session.replug("setup")
    assert done.status == 1
    assert "No agent answers:" in done.out
    assert "Undoing the changes:" in done.out
    assert "Done" not in done.out
    session.run("rm", "-f", session.runtime / "replug")
    assert session.listing() == before
    assert "SSH_AUTH_SOCK" not in session.environment()


def test_a_token_without_keys_is_mentioned_at_the_end(home: Home, logged_in: LogIn) -> None:
    home.configure(f'modules = ["{MODULE}"]')
    Token(home)
    session = logged_in()
    for _ in range(2):  # the second time there is nothing to change
        [found] = [line for line in set_up(session).out.splitlines() if line.startswith("  warn token: ")]
        assert found.startswith('  warn token: "work" (serial ')
        assert (
            ": it shows no keys without a login, and may hold none yet; fix: replug keygen pkcs11:token=work"
            in found
        )
