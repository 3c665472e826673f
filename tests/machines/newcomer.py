"""Someone who uses a new machine for the first time, and what it costs them."""

from __future__ import annotations

import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from machines.new_machine import PASSWORD, USER
from rigs.booted import Booted
from rigs.terminal import Done, eventually

FOLDER = "~/replug"
"""Where the source is."""

_CONTROL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[78])")
"""What moves the cursor, and colours (ECMA-48, "Control sequences")."""


@dataclass(frozen=True)
class Cost:
    """What was typed, and how long the machine took for it."""

    commands: int = 0
    answers: int = 0
    seconds: float = 0

    def __str__(self) -> str:
        return f"{self.commands} commands, {self.answers} answers"


class Newcomer:
    """An ordinary user with sudo, who logs in by ssh."""

    def __init__(self, machine: Booted) -> None:
        self.machine = machine
        self.cost = Cost()
        self._known_to_sudo = False

    def gets_the_source(self, repository: Path) -> None:
        """As a checkout is that this user made, with their umask."""
        home = self.machine.root / "home" / USER / "replug"
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=repository, check=True, capture_output=True
        ).stdout
        archive = subprocess.run(
            ["tar", "--create", "--null", "--files-from=-"],
            cwd=repository, input=listed, check=True, capture_output=True,
        ).stdout  # fmt: skip
        home.mkdir()
        subprocess.run(
            ["tar", "--extract", "--no-same-permissions", "--directory", home], input=archive, check=True
        )
        self.machine.run("chown", "-R", f"{USER}:{USER}", f"/home/{USER}/replug")
        self.looks('chmod -R "u=rwX,g=$(umask -S | sed "s/.*g=\\([rwx]*\\).*/\\1/;s/x/X/"),o=rX" replug')

    def types(self, script: str, *answers: tuple[str, str], status: int = 0) -> str:
        """What a terminal shows of one command in a login shell; `answers` are typed at the prompts given."""
        if "sudo " in script and not self._known_to_sudo:
            answers = (("[sudo] password", PASSWORD), *answers)
            self._known_to_sudo = True
        before = time.monotonic()
        done = self.machine.log_in(USER, f"cd {FOLDER} && {script}", answers)
        took = time.monotonic() - before
        cost = self.cost
        self.cost = Cost(cost.commands + 1, cost.answers + len(answers), cost.seconds + took)
        assert done.status == status, (script, done)
        return _CONTROL.sub("", done.out)

    def waits(self, seconds: float) -> None:
        """Counts the time that something else took."""
        self.cost = Cost(self.cost.commands, self.cost.answers, self.cost.seconds + seconds)

    def looks(self, script: str) -> Done:
        """What a command shows in a login shell, for us to see: it is not counted."""
        return self.machine.log_in(USER, script)

    @property
    def agent_of_sessions(self) -> str:
        """What the user manager gives to a desktop's programs."""
        return self.looks("systemctl --user show-environment | grep ^SSH_AUTH_SOCK=").out

    @property
    def agent_of_logins(self) -> str:
        """What a login by ssh has."""
        return self.looks('echo "${SSH_AUTH_SOCK-}"').out.strip()

    def logs_out(self) -> None:
        """Ends every session, and all that runs for the user."""
        manager = f"user@{self.looks('id -u').out.strip()}.service"
        self.machine.run("loginctl", "terminate-user", USER)
        eventually(
            lambda: self.machine.run("systemctl", "is-active", manager).status != 0, "the user has left", 60
        )
