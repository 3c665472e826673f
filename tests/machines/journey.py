"""What a newcomer types on a bare machine, and what must come of it."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from machines.new_machine import PASSWORD, USER
from machines.readme import examples, typed
from rigs.booted import Booted
from rigs.pcscd_inside import PORT
from rigs.piv_card import PIN, Card
from rigs.piv_keys import Slot
from rigs.piv_slot import CardSlot
from rigs.terminal import Done, eventually

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
        self._first_lines, self._next_lines, *_ = typed(repository / "README.md", "Start here")
        self._agent_before = self._agent_in_new_sessions
        self.commands = self.prompts = 0
        """How many the user has typed, and answered."""

    def take(self) -> None:
        """Every step in order; AssertionError with what was seen if one does not hold."""
        started = time.monotonic()
        steps: Sequence[Callable[[], None]] = (
            self.gets_the_source,
            self.installs,
            self.plugs_the_card_in,
            self.logs_in_to_a_server,
            self.mistypes_the_pin,
            self.pulls_it_out_and_puts_it_back,
            self.uninstalls,
        )
        for step in steps:
            before = time.monotonic()
            try:
                step()
            except AssertionError:
                print(_indented(self._what_is_known()), flush=True)
                raise
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

    def installs(self) -> None:
        """The first lines of the README, and what `setup` says then."""
        for line in self._first_lines:
            print(f"   $ {line}", flush=True)
            is_setup = line.endswith("replug setup")
            asks = is_setup and self._agent_before
            done = self.types(line, *([(_REPLACE, "y")] if asks else []))
            if is_setup:
                print(_indented(done.out + done.err), flush=True)
                assert "Done: the agent answers." in done.out, done
                self._follow(done.out)

    def _follow(self, advice: str) -> None:
        """Do what `setup` says for logins by ssh, which these are, and where polkit is in the way."""
        [command] = [line.strip() for line in advice.splitlines() if line.strip().startswith("echo ")]
        self.types(command)
        if "POLKIT" in advice:
            commands, rule = examples(self._repository / "docs/replug.1", "POLKIT")
            for command in commands.splitlines():
                self.types(command.replace(" you ", f" {USER} "))
            [place] = set(re.findall(r"/etc/polkit-1/rules\.d/[\w.-]+", advice))
            self.types(f"sudo tee {place} >/dev/null <<'END'\n{rule}\nEND\n")

    def plugs_the_card_in(self) -> None:
        """The virtual card, in a reader of this machine's pcscd."""
        for command in (
            "apt-get install --yes --quiet vsmartcard-vpcd",
            "systemctl restart pcscd.socket",
            "systemctl stop pcscd.service",
        ):
            done = self._machine.run(*command.split())
            assert done.status == 0, done
        self._slot.serve(_dial)
        self._slot.insert(self._card)
        eventually(lambda: self._key in self._logged_in("ssh-add -L || true").out, "the key is listed", 60)

    def logs_in_to_a_server(self) -> None:
        """To the machine's own sshd: by password once, then by the card, its PIN typed in the terminal."""
        self._logged_in(
            "install -d -m 700 ~/.ssh; printf 'Host server\\n HostName localhost\\n Port "
            f"{self._machine.port}\\n StrictHostKeyChecking accept-new\\n' > ~/.ssh/config"
        )
        listing, copying, log_in = self._next_lines
        self.types(listing)
        self.types(copying, ("password:", PASSWORD))
        done = self.types(f"{log_in} echo hello", (PIN_PROMPT, PIN))
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

    def _what_is_known(self) -> str:
        """For whoever has to find out why a step failed."""
        asked = ("replug status", "replug doctor", "replug logs", "sudo journalctl --no-pager --lines=60")
        return "".join(
            f"$ {command}\n{done.out}{done.err}"
            for command in asked
            for done in [self._logged_in(f"PATH=$PATH:~/.local/bin; {command}")]
        )

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
