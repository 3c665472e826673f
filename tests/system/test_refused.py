"""Machines on which the agent cannot start or finds nothing: what `setup`, `doctor` and `ssh-add -l` print.

And that following it leads to an agent that answers.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from rigs.home import Home
from rigs.pcscd import Pcscd
from rigs.piv_card import Card
from rigs.refusing_pcscd import refusing_pcscd
from rigs.terminal import Done, eventually
from rigs.user_manager import HOME, USER, UserManager

from replug.agent.doctor.polkit import permit

SOCKET, SERVICE = "replug-agent.socket", "replug-agent.service"
DROP_IN = f".config/systemd/user/{SERVICE}.d/mine.conf"
NO_IDENTITIES = Done(1, "The agent has no identities.\n", "")
NO_USER_NAMESPACES = (sys.executable, "-I", str(Path(__file__).parents[1] / "rigs/no_user_namespaces.py"))
LogIn = Callable[..., UserManager]


def drop_in(home: Home, text: str) -> Path:
    """Settings of the user's own for the service."""
    path = home.folder / DROP_IN
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    return home.write(DROP_IN, f"[Service]\n{text}\n", 0o644)


def lines(done: Done) -> list[str]:
    """What was printed, line by line and in order."""
    return done.out.splitlines()


def own(session: UserManager) -> dict[str, str]:
    """The environment of a program that uses the agent of `replug setup`."""
    return {"SSH_AUTH_SOCK": f"{session.runtime}/replug/agent.sock"}


def doctor(session: UserManager, env: dict[str, str] | None = None) -> list[str]:
    """The findings, a line for each."""
    return lines(session.replug("doctor", env=own(session) if env is None else env))


def finding(found: list[str], check: str) -> str:
    """The one finding of this check."""
    [line] = [line for line in found if line[5:].startswith(f"{check}: ")]
    return line


REFUSED = {
    "203/EXEC": ("ExecStart=\nExecStart=%h/broken -D", "install replug again; replug setup"),
    "217/USER": ("User=no-such-user", "remove PrivateUsers= and User=, which replug's unit does not have"),
    "226/NAMESPACE": (
        "PrivateUsers=yes\nBindReadOnlyPaths=/nowhere",
        "remove Protect*=, Private*= and *Paths=, which replug's unit does not have",
    ),
}


@pytest.mark.parametrize("status", REFUSED)
def test_a_unit_that_is_refused(status: str, home: Home, logged_in: LogIn) -> None:
    settings, fix = REFUSED[status]
    home.write("broken", "#!/nowhere/python\n", 0o755)
    mine = drop_in(home, settings)
    session = logged_in(journal=True)
    before = session.listing()

    done = session.replug("setup")
    assert done.status == 1, done
    [why] = [line for line in lines(done) if line.startswith(f"  {SERVICE}: ")]
    assert why.startswith(f"  {SERVICE}: status {status}: ")
    assert f"  to correct it: {fix}" in done.out
    assert f"code=exited, status={status}" in done.out  # systemd's own words
    assert "Undoing the changes:" in lines(done)
    assert lines(done)[-1] == "Everything is as it was before."
    assert "Done" not in done.out
    assert session.listing() == before
    assert "SSH_AUTH_SOCK" not in session.environment()

    mine.rename(home.folder / "mine.conf")
    assert session.systemctl("daemon-reload").status == 0
    assert "Done: the agent answers." in lines(session.replug("setup"))
    (home.folder / "mine.conf").rename(mine)
    assert session.systemctl("daemon-reload").status == 0
    assert session.ssh_add("-l").out == ""
    found = finding(doctor(session), "unit")
    assert found.startswith(f"fail unit: {SERVICE} has failed (status {status}: ")
    assert f"status={status}" in found.partition("; systemd: ")[2]
    assert f"; fix: {fix}" in found
    assert finding(doctor(session), "agent").endswith(
        f"replug/agent.sock is closed without an answer: no agent starts there; fix: correct what replug logs"
        f" shows; systemctl --user restart {SOCKET}"
    )
    assert f"status={status}" in session.replug("logs").out

    mine.unlink()
    assert session.systemctl("daemon-reload").status == 0
    assert session.ssh_add("-l") == NO_IDENTITIES
    assert finding(doctor(session), "unit").startswith("ok   unit: ")


def test_user_namespaces_are_denied(home: Home, logged_in: LogIn) -> None:
    """Nothing of ours needs one. A setting of the user's that does is refused as 217/USER."""
    session = logged_in(NO_USER_NAMESPACES)
    denied = session.run("systemd-run", "--user", "--quiet", "--wait", "--pipe", "unshare", "--user", "true")
    assert (denied.status, denied.err) == (1, "unshare: unshare failed: Operation not permitted\n")
    assert "Done: the agent answers." in lines(session.replug("setup"))
    assert session.ssh_add("-l") == NO_IDENTITIES
    assert (
        finding(doctor(session), "memory").partition(";")[0]
        == "ok   memory: no other program of yours can read the agent's memory"
    )
    assert session.systemctl("stop", SERVICE).status == 0

    drop_in(home, "PrivateUsers=yes")
    assert session.systemctl("daemon-reload").status == 0
    assert session.ssh_add("-l").out == ""
    assert f"{SERVICE} has failed (status 217/USER: user namespaces" in finding(doctor(session), "unit")
    done = session.replug("setup")
    assert done.status == 1
    assert "  to correct it: remove PrivateUsers= and User=" in done.out


def test_the_program_is_gone_but_its_socket_is_there(home: Home, logged_in: LogIn) -> None:
    """In this session; in the next one there is no socket either."""
    (home.folder / "bin").mkdir(mode=0o755)
    for name in ("replug", "replug-agent"):
        (home.folder / "bin" / name).symlink_to(Path(sys.executable).with_name(name))
    session = logged_in()
    replug = f"{HOME}/bin/replug"
    done = session.run(replug, "setup")
    assert "Done: the agent answers." in lines(done)
    assert f"This shell does not find replug by its name; type {replug}, or" in done.out
    assert f"  export PATH={HOME}/bin:$PATH" in lines(done)
    (home.folder / "bin" / "replug-agent").unlink()
    for _ in range(3):
        assert session.ssh_add("-l").out == ""
    found = finding(doctor(session), "unit")
    assert found.startswith(f"fail unit: {SERVICE} has failed (the agent's program is no longer there); ")
    session.log_out()
    session.log_in()
    assert session.show(SOCKET, "ActiveState") == "inactive"
    assert "SSH_AUTH_SOCK" not in session.environment()


HIDE = """
set -e
mkdir /run/over
mount -t tmpfs tmpfs /run/over
mkdir /run/over/upper /run/over/work
mount -t overlay overlay -o lowerdir=/usr/lib,upperdir=/run/over/upper,workdir=/run/over/work /usr/lib
rm -f /usr/lib/*-linux-gnu*/opensc-pkcs11.so /usr/lib/*-linux-gnu*/pkcs11/opensc-pkcs11.so
rm -f /usr/lib/*-linux-gnu*/libykcs11.so
for folder in /usr/share/p11-kit/modules /etc/pkcs11; do
    [ ! -d $folder ] || mount -t tmpfs tmpfs $folder
done
mount --bind /dev/null /usr/sbin/pcscd
"""
"""Makes the machine one on which neither pcscd nor a module is installed."""


def test_neither_pcscd_nor_a_module_is_installed(home: Home, logged_in: LogIn) -> None:
    home.configure("")  # the agent finds modules by itself
    home.env["PCSCLITE_CSOCK_NAME"] = "/run/pcscd/pcscd.comm"
    session = logged_in()
    assert session.run("sh", "-c", HIDE, as_root=True) == Done(0, "", "")
    done = session.replug("setup")
    assert done.status == 0
    assert "Done: the agent answers." in lines(done)
    found = lines(done)[lines(done).index("What replug doctor finds:") :]
    assert (
        "  fail module: no PKCS#11 module is installed, so no token can be found; fix: sudo apt-get install"
        " opensc-pkcs11, or your token maker's module"
    ) in found
    assert (
        "  fail pcscd: pcscd is not installed: smart cards need it; fix: sudo apt-get install pcscd"
    ) in found
    assert found[-2:] == [
        "To install what is missing, type",
        # Not on PATH.
        f"  sudo apt-get install opensc-pkcs11 pcscd && {Path(sys.executable).with_name('replug')} reload",
    ]
    assert session.ssh_add("-l") == NO_IDENTITIES
    assert finding(doctor(session), "module").startswith("fail module: no PKCS#11 module is installed")

    # What apt-get install would bring.
    assert session.run("umount", "--lazy", "/usr/lib", as_root=True).status == 0
    with closing(Pcscd(home)) as pcscd:
        pcscd.slot.insert(Card())
        pcscd.await_present()
        assert session.run("umount", "/usr/sbin/pcscd", as_root=True).status == 0
        there = f"mkdir -p /run/pcscd && ln -s {HOME}/pcscd/pcscd.comm /run/pcscd/pcscd.comm"
        assert session.run("sh", "-c", there, as_root=True).status == 0
        assert session.replug("reload", env=own(session)) == Done(0, "", "")
        eventually(lambda: session.ssh_add("-l").status == 0, "the card's keys", 60)
        assert finding(doctor(session), "pcscd") == "ok   pcscd: answers"


def test_pcscd_does_not_run_and_no_token_is_there(home: Home, logged_in: LogIn) -> None:
    home.env["PCSCLITE_CSOCK_NAME"] = f"{HOME}/nowhere"
    session = logged_in()
    done = session.replug("setup")
    assert "Done: the agent answers." in lines(done)
    assert finding([line[2:] for line in lines(done)], "pcscd").startswith(
        f"fail pcscd: pcscd is not running: its socket {HOME}/nowhere is missing; fix: sudo "
    )
    assert not any("apt-get" in line for line in lines(done))
    assert session.ssh_add("-l") == NO_IDENTITIES
    found = doctor(session)
    assert finding(found, "keys") == (
        "warn keys: the agent offers no keys; fix: plug a token in, or ssh-add -s MODULE;"
        " if one is in, see the findings below"
    )
    assert "fail pcscd: pcscd is not running" in finding(found, "pcscd")
    assert lines(session.replug("status")) == [
        *lines(session.replug("status", env=own(session)))[:1],
        "  no token: plug one in, or add one with ssh-add -s MODULE; if one is in, see replug doctor",
    ]


def test_polkit_denies_a_shell_over_ssh_and_not_the_agent_and_the_other_way_round(
    home: Home, logged_in: LogIn
) -> None:
    """It is the agent that needs access, and that is asked to try."""
    with closing(Pcscd(home)) as pcscd, refusing_pcscd(home.folder / "denied"):
        pcscd.slot.insert(Card())
        pcscd.await_present()
        session = logged_in()
        assert "Done: the agent answers." in lines(session.replug("setup"))
        over_ssh = own(session) | {
            "SSH_CONNECTION": "192.0.2.1 1 192.0.2.2 22",
            "PCSCLITE_CSOCK_NAME": f"{HOME}/denied",
        }
        found = doctor(session, over_ssh)
        assert finding(found, "pcscd") == "ok   pcscd: answers"
        assert finding(found, "card").endswith("the card answers")

        denied = f"PCSCLITE_CSOCK_NAME={HOME}/denied"
        assert session.systemctl("set-environment", denied).status == 0
        assert session.systemctl("stop", SERVICE).status == 0
        expected = re.compile(
            r"fail pcscd: polkit denies the agent access to pcscd, as where nobody is logged in at the"
            rf" machine \(0x\w+\); fix: {re.escape(permit(USER))}"
        )
        for env in (over_ssh, own(session)):
            assert expected.fullmatch(finding(doctor(session, env), "pcscd"))
        found = lines(session.replug("setup"))
        assert "What replug doctor finds:" in found
        assert expected.fullmatch(finding([line[2:] for line in found], "pcscd"))
        assert session.ssh_add("-l") == NO_IDENTITIES


def test_commands_find_the_users_own_agent_and_name_others(home: Home, logged_in: LogIn) -> None:
    session = logged_in()
    done = session.replug("status")
    assert done == Done(
        1,
        "",
        f"replug: SSH_AUTH_SOCK is not set, and no agent listens in {session.runtime};"
        " replug doctor suggests a fix\n",
    )
    assert session.replug("setup").status == 0
    ours = own(session)["SSH_AUTH_SOCK"]
    for env in ({}, {"XDG_RUNTIME_DIR": ""}):
        assert lines(session.replug("status", env=env))[0].endswith(f" on {ours}")
        assert session.replug("forget", env=env) == Done(0, "0 PINs forgotten.\n", "")
        assert session.replug("reload", env=env) == Done(0, "", "")
        assert session.replug("explain", env=env).status == 0
    found = doctor(session, {})
    assert finding(found, "agent") == (
        f"fail agent: SSH_AUTH_SOCK is not set, but replug-agent answers at {ours};"
        ' fix: export SSH_AUTH_SOCK="$XDG_RUNTIME_DIR/replug/agent.sock"'
    )
    assert finding(found, "memory").startswith("ok ")

    theirs = {"SSH_AUTH_SOCK": f"{HOME}/theirs"}
    agent = session.start("ssh-agent", "-D", "-a", theirs["SSH_AUTH_SOCK"])
    eventually(lambda: session.run("ssh-add", "-l", env=theirs) == NO_IDENTITIES, "OpenSSH's agent")
    assert session.replug("status", env=theirs) == Done(
        1,
        "",
        f"replug: SSH_AUTH_SOCK is {HOME}/theirs, where OpenSSH's ssh-agent answers; your replug-agent is at"
        f" {ours}: export SSH_AUTH_SOCK={ours}\n",
    )
    assert finding(doctor(session, theirs), "agent") == (
        f"fail agent: SSH_AUTH_SOCK is {HOME}/theirs, where OpenSSH's ssh-agent answers;"
        ' fix: export SSH_AUTH_SOCK="$XDG_RUNTIME_DIR/replug/agent.sock"'
    )
    assert session.replug("setup", "--remove").status == 0
    assert session.replug("status", env=theirs).err == (
        f"replug: SSH_AUTH_SOCK is {HOME}/theirs, where OpenSSH's ssh-agent answers, not replug-agent;"
        " replug doctor suggests a fix\n"
    )
    assert agent.poll() is None
