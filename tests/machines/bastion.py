"""docs/bastion.md, as it is typed on a bare machine: two admins and a stranger, and SoftHSM for a token.

The machine is also the server that the admins log in to.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from machines.newcomer import Newcomer
from machines.readme import typed
from rigs.booted import Booted
from rigs.softhsm import PIN, SO_PIN
from rigs.terminal import Done, eventually

_ADMINS, _STRANGER = ("alice", "bob"), "mallory"
_SOCKET = "/run/replug-ca/agent.sock"
_SERVER = "server1"
_LOG_IN = f"ssh -o BatchMode=yes root@{_SERVER}"
_TOKEN_PROMPTS = (
    ("enter SO PIN", SO_PIN),
    ("reenter SO PIN", SO_PIN),
    ("enter user PIN", PIN),
    ("reenter user PIN", PIN),
)
_UNLOCK_PROMPT = "Enter passphrase for PKCS#11: "


class Bastion:
    """From a bare machine to logins whose servers know who it was, and back."""

    def __init__(self, machine: Booted, repository: Path) -> None:
        self._machine = machine
        self._repository = repository
        self._page = repository / "docs" / "bastion.md"
        self._user = Newcomer(machine)

    def take(self) -> None:
        """Every step in order; AssertionError with what was seen if one does not hold."""
        steps: Sequence[Callable[[], None]] = (
            self.is_installed,
            self.gets_a_ca_key,
            self.certifies,
            self.is_trusted_by_the_server,
            self.admins_log_in_under_their_names,
            self.strangers_do_not,
            self.guests_do_nothing_else,
            self.an_admin_leaves,
            self.an_admin_is_revoked,
            self.starts_with_a_credential,
            self.is_removed,
        )
        for step in steps:
            before = time.monotonic()
            try:
                step()
            except AssertionError:
                print(self._what_is_known(), flush=True)
                raise
            print(f"   {step.__name__.replace('_', ' ')}: {time.monotonic() - before:.1f} s", flush=True)

    def is_installed(self) -> None:
        """By root, for the group of the admins."""
        self._user.gets_the_source(self._repository)
        for name in (*_ADMINS, _STRANGER, "carol"):
            self._as_root(f"useradd --create-home --shell /bin/bash {name}")
        assert self._files() == ""
        ((*lines, setup),) = typed(self._page, "Install")
        for line in lines:
            self._types(line)
        said = self._types(setup)
        assert "Done: the agent answers." in said, said
        assert "make one on a token" in said, said

    def gets_a_ca_key(self) -> None:
        """Of SoftHSM, as this machine has no YubiKey."""
        _, (install, join, make_token, restart, keygen) = typed(self._page, "A CA key on the token")
        for line in (install, join):
            self._types(line)
        self._types(make_token, *_TOKEN_PROMPTS)
        self._types(restart)
        said = self._types(keygen, ("PIN", PIN))
        assert "ecdsa-sha2-" in said, said

    def certifies(self) -> None:
        """By the configuration that setup begins, once root has given the PIN."""
        (setup, unlock), _ = typed(self._page, "What is certified for whom")
        said = self._types(setup)
        assert "Wrote /etc/replug/config.toml" in said, said
        assert "sudo replug unlock" in said, said
        self._types("sudo systemctl reload replug-ca.service")
        said = self._types(unlock, (_UNLOCK_PROMPT, PIN))
        assert "The PIN is remembered." in said, said

    def is_trusted_by_the_server(self) -> None:
        """Which is this machine."""
        root = self._machine.root
        trusted = self._user.looks("sudo replug ca trust")
        assert trusted.status == 0, trusted
        (root / "etc/ssh/replug_ca.pub").write_text(trusted.out)
        ((*server,),) = [lines for lines in typed(self._page, "The servers", "# ") if lines]
        for line in server:
            self._as_root(line)
        port = self._machine.port
        # To read its configuration again, sshd begins again.
        eventually(lambda: self._user.looks("true").status == 0, "sshd answers again", 30)
        (root / "etc/ssh/ssh_config.d/00-server.conf").write_text(
            f"Host {_SERVER}\n HostName localhost\n Port {port}\n"
        )
        *_, (scan,) = typed(self._page, "The servers")
        self._types(scan.replace(_SERVER, f"-p {port} localhost"))

    def admins_log_in_under_their_names(self) -> None:
        """As root, without a key there; the server's log has the certificate's name and number."""
        for name in _ADMINS:
            done = self._machine.log_in(name, f"{_LOG_IN} id -un")
            assert (done.status, done.out) == (0, "root\n"), done
            log = self._as_root("journalctl --unit=ssh --no-pager --since=-1min").out
            assert f"ID {name}@machine (serial " in log, log
        issued = self._user.types("sudo replug ca issued")
        assert all(f" {name}@machine root serial " in issued for name in _ADMINS), issued

    def strangers_do_not(self) -> None:
        """Who is not in the group cannot reach the socket; who reaches it is still no guest."""
        assert self._machine.log_in(_STRANGER, f"{_LOG_IN} true").status == 255
        asked = self._machine.log_in(_STRANGER, f"SSH_AUTH_SOCK={_SOCKET} ssh-add -l")
        assert "Permission denied" in asked.err, asked
        self._as_root(f"chmod 0666 {_SOCKET}")
        assert self._machine.log_in(_STRANGER, f"{_LOG_IN} true").status == 255
        self._as_root(f"chmod 0660 {_SOCKET}")
        assert f"no [[certificate]] names user {_STRANGER}" in self._user.types("sudo replug status")

    def guests_do_nothing_else(self) -> None:
        """Their own programs say that the agent refuses."""
        agent = f"export SSH_AUTH_SOCK={_SOCKET};"
        listed = self._machine.log_in("alice", f"{agent} ssh-add -L")
        assert [line.split()[2].partition("@")[0] for line in listed.out.splitlines()] == ["alice"], listed
        self._machine.log_in("alice", "ssh-keygen -q -t ed25519 -N '' -f key; ssh-keygen -yf key >key.pub")
        module = "/usr/lib/softhsm/libsofthsm2.so"
        for script in ("ssh-add key", "ssh-add -D", "ssh-add -d key.pub", f"ssh-add -e {module}"):
            done = self._machine.log_in("alice", f"{agent} {script}")
            assert done.status != 0, (script, done)
        (self._machine.root / "home/alice/ca.pub").write_bytes(
            (self._machine.root / "etc/ssh/replug_ca.pub").read_bytes()
        )
        sign = f"{agent} ssh-keygen -q -U -s ca.pub -I evil -n root -V +1h key.pub"
        assert self._machine.log_in("alice", sign).status != 0
        assert self._machine.log_in("alice", f"SSH_AUTH_SOCK={_SOCKET} replug status").status == 1

    def an_admin_leaves(self) -> None:
        """While a session of theirs on the bastion is open, which still is in the group."""
        add, remove = typed(self._page, "Admins come and go")[0]
        self._types(add)
        assert self._machine.log_in("carol", f"{_LOG_IN} true").status == 0
        wait = "until [ -e /tmp/removed ]; do sleep 0.1; done"
        script = f"{_LOG_IN} true && touch /tmp/was-in; {wait}; {_LOG_IN} true"
        with ThreadPoolExecutor() as pool:
            session = pool.submit(self._machine.log_in, "bob", script)
            eventually(lambda: self._machine.run("test", "-e", "/tmp/was-in").status == 0, "bob is in", 30)
            self._types(remove)
            self._as_root("touch /tmp/removed")
            done = session.result()
        assert done.status == 255, done
        assert "no [[certificate]] names user bob" in self._user.types("sudo replug explain")
        assert self._machine.log_in("bob", f"{_LOG_IN} true").status == 255
        assert self._machine.log_in("alice", f"{_LOG_IN} true").status == 0

    def an_admin_is_revoked(self) -> None:
        """By key id, which is for the certificates to come, too."""
        issued, revoke = typed(self._page, "Admins come and go")[1]
        assert "alice@machine" in self._types(issued)
        self._types(revoke)
        self._as_root("cp /etc/replug/revoked.krl /etc/ssh/replug_revoked.krl")
        assert self._machine.log_in("alice", f"{_LOG_IN} true").status == 255
        assert self._machine.log_in("carol", f"{_LOG_IN} true").status == 0

    def starts_with_a_credential(self) -> None:
        """And nobody types the PIN; the checks of doctor, as root, find nothing wrong."""
        _, (encrypt,) = typed(self._page, "What is certified for whom")
        _, _, command = encrypt.partition(" | ")
        self._types(f"printf %s {PIN} | {command}")
        configuration = self._machine.root / "etc/replug/config.toml"
        entry = '\n[[token]]\nuri = "pkcs11:token=ca"\npin_source = "credential:ca-pin"\n'
        configuration.write_text(configuration.read_text() + entry)
        said = self._types("sudo replug setup --ca")
        assert "Done: the agent answers." in said, said
        assert "unlock" not in said, said
        assert self._machine.log_in("carol", f"{_LOG_IN} true").status == 0
        assert "certificate issued" in self._user.looks("sudo replug logs").out
        found = self._user.looks("sudo replug doctor").out.splitlines()
        assert [line for line in found if line.startswith("fail")] == [], found

    def is_removed(self) -> None:
        """What setup wrote is gone, and ssh is as it was."""
        remove, uninstall = typed(self._page, "Undo")[0]
        self._types(remove)
        self._types(uninstall)
        assert self._files() == ""
        assert self._machine.log_in("carol", f"{_LOG_IN} true").status == 255

    def _files(self) -> str:
        """What is of replug where the system looks for units, users, folders, programs, and lines for ssh."""
        folders = "/etc/systemd /etc/ssh/ssh_config.d /etc/sysusers.d /etc/tmpfiles.d /etc/polkit-1 /run"
        return self._as_root(f"find {folders} /usr/local/bin -name '*replug*'; true").out

    def _types(self, line: str, *answers: tuple[str, str]) -> str:
        print(f"   $ {line}", flush=True)
        said = self._user.types(line, *answers)
        return " ".join(said.split())

    def _as_root(self, script: str) -> Done:
        done = self._machine.run("sh", "-c", script)
        assert done.status == 0, (script, done)
        return done

    def _what_is_known(self) -> str:
        """For whoever has to find out why a step failed."""
        asked = ("replug status", "replug doctor", "journalctl --no-pager --lines=60")
        return "".join(
            f"$ {command}\n{done.out}{done.err}"
            for command in asked
            for done in [self._machine.run("sh", "-c", f"PATH=$PATH:/usr/local/bin; {command}")]
        )
