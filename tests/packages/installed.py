"""The Debian package on a new machine: installed by root, used by an ordinary user, and purged."""

from __future__ import annotations

import shutil
from pathlib import Path

from machines.new_machine import USER
from rigs.booted import Booted
from rigs.softhsm import PIN, SO_PIN
from rigs.terminal import Done, eventually

_PIN_PROMPT = "PIN"
_SOCKET, _SERVICE = "replug-agent.socket", "replug-agent.service"
_DOCUMENTS = (
    "/usr/share/bash-completion/completions/replug",
    "/usr/share/bash-completion/completions/replug-agent",
    "/usr/share/doc/replug/changelog.gz",
    "/usr/share/doc/replug/copyright",
    "/usr/share/fish/vendor_completions.d/replug.fish",
    "/usr/share/man/man1/replug-agent.1.gz",
    "/usr/share/man/man1/replug.1.gz",
    "/usr/share/man/man5/replug.toml.5.gz",
    "/usr/share/zsh/vendor-completions/_replug",
)
_NOT_OURS = ("/var/cache", "/var/lib/apt", "/var/lib/dpkg", "/var/log", "/root/.cache")
"""What apt and dpkg leave behind of any package."""


def check(machine: Booted, package: Path) -> None:
    """AssertionError with what was seen if anything is not as it should be."""
    _as_root(machine, "apt-get install --yes --quiet softhsm2")
    # Without it the user's services would end with each login, and the agent while apt-get is at work.
    _as_root(machine, f"loginctl enable-linger {USER}")
    _as_user(machine, "true")  # what the first login of all leaves behind
    before = _files(machine)
    shutil.copy(package, machine.root / "root")
    _as_root(machine, f"apt-get install --yes --quiet --no-install-recommends /root/{package.name}")
    _is_as_it_was_packed(machine)
    _is_used(machine)
    _survives_an_upgrade(machine, f"/root/{package.name}")
    (machine.root / "root" / package.name).unlink()
    _as_user(machine, "replug setup --remove && rm -r softhsm softhsm.conf")
    _is_stopped_with_its_program(machine)
    after = _files(machine)
    assert after == before, (sorted(after - before), sorted(before - after))


def _is_as_it_was_packed(machine: Booted) -> None:
    assert _as_root(machine, "dpkg --verify replug").out == ""
    _as_root(machine, f"ls {' '.join(_DOCUMENTS)}")
    compiled = _as_root(machine, "find /usr/lib/replug -name '*.pyc' | wc -l").out
    assert int(compiled) > 500, compiled
    # Nobody gets it without asking for it.
    assert _as_root(machine, f"systemctl --global is-enabled {_SOCKET}", 1).out == "disabled\n"
    assert "replug" not in _as_user(machine, "systemctl --user show-environment").out


def _is_used(machine: Booted) -> None:
    """From `setup` to a signature with a token's key."""
    _as_user(
        machine,
        "mkdir softhsm && echo directories.tokendir = ~/softhsm >softhsm.conf"
        " && systemctl --user set-environment SOFTHSM2_CONF=$HOME/softhsm.conf",
    )
    said = _as_user(machine, "replug setup --yes")
    assert "Done: the agent answers.\n" in said.out, said
    for unit in (_SOCKET, _SERVICE):
        assert f"/{unit}\n" not in said.out, said
        shown = _as_user(machine, f"systemctl --user show --property=FragmentPath {unit}").out
        assert shown == f"FragmentPath=/usr/lib/systemd/user/{unit}\n"
    softhsm = "export SOFTHSM2_CONF=~/softhsm.conf"
    _as_user(
        machine,
        f"{softhsm}; softhsm2-util --init-token --free --label work --pin {PIN} --so-pin {SO_PIN}",
    )
    made = machine.log_in(USER, f"{softhsm}; replug keygen --label key", [(_PIN_PROMPT, PIN)])
    assert made.status == 0, made
    select = 'export SSH_AUTH_SOCK="$XDG_RUNTIME_DIR/replug/agent.sock"'
    eventually(
        lambda: " key (" in machine.log_in(USER, f"{select}; ssh-add -l").out, "the key is listed", within=30
    )
    _as_user(machine, f"{select}; ssh-add -L >key.pub")
    signed = machine.log_in(
        USER, f"{select}; ssh-add -T key.pub; status=$?; rm key.pub; exit $status", [(_PIN_PROMPT, PIN)]
    )
    assert signed.status == 0, signed
    assert 'Token "work"' in _as_user(machine, "replug status").out
    # There is neither a display nor a terminal to ask for a PIN here, and nothing else is amiss.
    found = machine.log_in(USER, f"{select}; replug doctor").out.splitlines()
    failed = [line.partition(":")[0] for line in found if line.startswith("fail")]
    assert failed == ["fail prompt"], found


def _survives_an_upgrade(machine: Booted, package: str) -> None:
    """To the same version; the agent that runs keeps its PINs and keys."""
    state = f"systemctl --user show --property=ActiveState,MainPID {_SERVICE}"
    before = _as_user(machine, state).out
    assert "ActiveState=active\n" in before, before
    _as_root(machine, f"apt-get install --yes --quiet --reinstall {package}")
    assert _as_user(machine, state).out == before
    assert "PIN remembered" in _as_user(machine, "replug status").out


def _is_stopped_with_its_program(machine: Booted) -> None:
    """It is purged while it runs: no agent stays behind that cannot load its own code any more."""
    _as_user(machine, f"systemctl --user start {_SOCKET} {_SERVICE}")
    assert _running(machine)
    _as_root(machine, "apt-get purge --yes --quiet --autoremove replug")
    assert _running(machine) == ""


def _running(machine: Booted) -> str:
    return machine.run("pgrep", "--list-full", "replug").out


def _files(machine: Booted) -> set[str]:
    """Everything there is, and what links lead to."""
    pruned = " -o ".join(f"-path {path}" for path in _NOT_OURS)
    listed = _as_root(machine, rf"find / -xdev \( {pruned} \) -prune -o -printf '%p %l\n'").out
    return set(listed.splitlines())


def _as_root(machine: Booted, script: str, status: int = 0) -> Done:
    done = machine.run("env", "DEBIAN_FRONTEND=noninteractive", "sh", "-c", script)
    assert done.status == status, (script, done)
    return done


def _as_user(machine: Booted, script: str, status: int = 0) -> Done:
    done = machine.log_in(USER, script)
    assert done.status == status, (script, done)
    return done
