"""What a newcomer types on a bare machine, and what must come of it."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from machines.readme import typed
from rigs.booted import Booted
from rigs.pcscd_inside import PORT
from rigs.piv_card import PIN, Card
from rigs.piv_keys import Slot
from rigs.piv_slot import CardSlot
from rigs.terminal import Done, eventually

USER = "ada"
PIN_PROMPT = "PIN"
_REPLACE = "[y/N]"
_LOGIN = "ssh server echo hello"


class Journey:
    """From a bare machine to the first signature, and back."""

    def __init__(self, machine: Booted, repository: Path) -> None:
        self._machine = machine
        self._repository = repository
        self._slot = CardSlot()
        self._card = Card()
        self._agent_before = self._agent_in_new_sessions
        self.commands = self.prompts = 0
        """How many the user has typed, and answered."""

    def take(self) -> None:
        """Every step in order; AssertionError with what was seen if one does not hold."""
        started = time.monotonic()
        steps: Sequence[Callable[[], None]] = (
            self.gets_the_source,
            self.starts_here,
            self.plugs_the_card_in,
            self.logs_in_to_a_server,
            self.mistypes_the_pin,
            self.pulls_it_out_and_puts_it_back,
            self.uninstalls,
        )
        for step in steps:
            before = time.monotonic()
            step()
            print(f"   {step.__name__.replace('_', ' ')}: {time.monotonic() - before:.1f} s", flush=True)
            if step == self.logs_in_to_a_server:
                seconds = time.monotonic() - started
                print(
                    f"   to the first signature: {self.commands} commands, {self.prompts} prompts,"
                    f" {seconds:.0f} s",
                    flush=True,
                )

    def types(
        self, script: str, *answers: tuple[str, str], folder: str = "~/replug", status: int = 0
    ) -> Done:
        """What comes of one command in a login shell, with `answers` typed at the prompts given."""
        self.commands += 1
        self.prompts += len(answers)
        done = self._machine.log_in(USER, f"cd {folder} && {script}", answers)
        assert done.status == status, (script, done)
        return done

    def gets_the_source(self) -> None:
        """As a checkout is that this user made, with their umask."""
        home = self._machine.root / "home" / USER / "replug"
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=self._repository, check=True, capture_output=True
        ).stdout
        archive = subprocess.run(
            ["tar", "--create", "--null", "--files-from=-"],
            cwd=self._repository, input=listed, check=True, capture_output=True,
        ).stdout  # fmt: skip
        home.mkdir()
        subprocess.run(
            ["tar", "--extract", "--no-same-permissions", "--directory", home], input=archive, check=True
        )
        self._machine.run("chown", "-R", f"{USER}:{USER}", f"/home/{USER}/replug")
        self._machine.log_in(
            USER, 'chmod -R "u=rwX,g=$(umask -S | sed "s/.*g=\\([rwx]*\\).*/\\1/;s/x/X/"),o=rX" replug'
        )

    def starts_here(self) -> None:
        """The lines of the README, one by one."""
        for line in typed(self._repository / "README.md", "Start here"):
            replaces = self._agent_before and line.endswith("replug setup")
            done = self.types(line, *([(_REPLACE, "y")] if replaces else []))
            print(f"   $ {line}", flush=True)
            if "replug setup" in line:
                print(_indented(done.out + done.err), flush=True)
                self._follow(done.out)

    def _follow(self, advice: str) -> None:
        """Add the line for logins without a desktop, which these are, to ~/.profile."""
        *_, line = [said.strip() for said in advice.splitlines() if "export SSH_AUTH_SOCK" in said]
        self.types(f"cat >> ~/.profile <<'END'\n{line}\nEND\n")

    def plugs_the_card_in(self) -> None:
        """The virtual card, in a reader of this machine's pcscd."""
        self._machine.run("apt-get", "install", "--yes", "--quiet", "vsmartcard-vpcd")
        self._machine.run("systemctl", "restart", "pcscd.socket", "pcscd.service")
        self._slot.serve(_dial)
        self._slot.insert(self._card)
        self._slot.await_power()
        eventually(lambda: self._key in self._logged_in("ssh-add -L || true").out, "the key is listed", 60)

    def logs_in_to_a_server(self) -> None:
        """To the machine's own sshd, with the PIN typed in the terminal."""
        self._logged_in(
            "install -d -m 700 ~/.ssh; printf 'Host server\\n HostName localhost\\n Port "
            f"{self._machine.port}\\n StrictHostKeyChecking accept-new\\n' > ~/.ssh/config"
        )
        self.types("ssh-add -L > ~/.ssh/authorized_keys")
        done = self.types(_LOGIN, (PIN_PROMPT, PIN))
        assert done.out.endswith("hello\n"), done
        assert (self._card.verifies, self._card.wrong_pins) == (1, 0)

    def mistypes_the_pin(self) -> None:
        """The same way of asking asks again, and nothing else does."""
        self.types("~/.local/bin/replug forget")
        done = self.types(_LOGIN, (PIN_PROMPT, "000000"), (PIN_PROMPT, PIN))
        assert done.out.endswith("hello\n"), done
        assert self._card.wrong_pins == 1

    def pulls_it_out_and_puts_it_back(self) -> None:
        """The promise."""
        verified = self._card.verifies
        self._slot.remove()
        eventually(lambda: self._key not in self._logged_in("ssh-add -L || true").out, "it is gone", 60)
        self._slot.insert(self._card)
        self._slot.await_power()
        assert self.types(_LOGIN).out.endswith("hello\n")
        assert self._card.verifies == verified + 1, "the PIN was not sent again by the agent itself"

    def uninstalls(self) -> None:
        """In the natural order, the program first: what is left is as if it had never been there."""
        self.types("pipx uninstall replug")
        self._machine.run("loginctl", "terminate-user", USER)
        eventually(lambda: not self._sessions, "the user has left", 60)
        assert self._agent_in_new_sessions == self._agent_before
        failed = self._logged_in("systemctl --user --failed --plain --no-legend").out
        assert "replug" not in failed, failed

    @property
    def _agent_in_new_sessions(self) -> str:
        """What the user manager gives to a desktop's programs."""
        return self._logged_in("systemctl --user show-environment | grep ^SSH_AUTH_SOCK=").out

    @property
    def _key(self) -> str:
        return self._card.keys[Slot.AUTHENTICATION].ssh.split()[1]

    @property
    def _sessions(self) -> str:
        return self._machine.run("loginctl", "list-sessions", "--no-legend").out

    def _logged_in(self, script: str) -> Done:
        """What `script` does in a login shell, that nobody counts."""
        return self._machine.log_in(USER, script)


def _indented(text: str) -> str:
    return "".join(f"     {line}\n" for line in text.splitlines())


def _dial() -> socket.socket | None:
    while True:
        with suppress(ConnectionRefusedError):
            return socket.create_connection(("127.0.0.1", PORT))
        time.sleep(0.1)
