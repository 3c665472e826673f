"""What a newcomer types on a bare machine, and what must come of it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from machines.new_machine import PASSWORD
from machines.newcomer import Cost, Newcomer
from machines.reader import Reader
from machines.readme import typed
from rigs.booted import Booted
from rigs.piv_card import PIN
from rigs.terminal import eventually

_PIN_PROMPT = "PIN: "
_KEEP_OR_REPLACE = "[k/r/N]"
_LOGIN = "ssh server echo hello"
_LISTED = "ssh-add -L || true"
_FILE = "~/.ssh/id_ed25519"
_NEWER = "99.0"
_NOT_OURS = "-not -path './replug*' -not -path './.cache/*' -not -path './.local/state/pipx/*'"
"""What find(1) leaves out: the source, and what pip and pipx keep."""


class Journey:
    """From a bare machine to the first signature, and back."""

    def __init__(self, machine: Booted, repository: Path) -> None:
        self._machine = machine
        self._repository = repository
        self._user = Newcomer(machine)
        self._reader = Reader()
        self._install, self._log_in, self._upgrade, self._uninstall, (self._demo, *_), *_ = typed(
            repository / "README.md", "Start here"
        )
        self._agents_before = self._agents
        self.to_first_signature = Cost()

    def take(self) -> None:
        """Every step in order; AssertionError with what was seen if one does not hold."""
        steps: Sequence[Callable[[], None]] = (
            self.gets_the_source,
            self.installs,
            self.plugs_the_card_in,
            self.logs_in_to_a_server,
            self.mistypes_the_pin,
            self.pulls_it_out_and_puts_it_back,
            self.logs_out_and_in_again,
            self.upgrades,
            self.uninstalls,
            self.installs_again,
            self.uninstalls_the_program_alone,
            self.sees_the_demonstration,
        )
        with closing(self._reader):
            for step in steps:
                before = time.monotonic()
                try:
                    step()
                except AssertionError:
                    print(_indented(self._what_is_known()), flush=True)
                    raise
                print(f"   {step.__name__.replace('_', ' ')}: {time.monotonic() - before:.1f} s", flush=True)

    def gets_the_source(self) -> None:
        """As a checkout is that this user made, with their umask."""
        self._user.gets_the_source(self._repository)

    def installs(self) -> None:
        """The first lines of the README, and what `setup` says then."""
        *before, setup = self._install
        for line in before:
            print(f"   $ {line}", flush=True)
            self._user.types(line)
        self._follow(self._sets_up(setup))

    def _sets_up(self, setup: str) -> str:
        print(f"   $ {setup}", flush=True)
        said = self._user.types(setup, *([(_KEEP_OR_REPLACE, "r")] if self._agents_before[0] else []))
        print(_indented(said), flush=True)
        assert "Done: the agent answers." in said, said
        return said

    def _follow(self, advice: str) -> None:
        """Do what `setup` says for logins by ssh, which these are, and where polkit is in the way."""
        [command] = re.findall(r"^ +(echo .* >>~/\S+)$", advice, re.MULTILINE)
        self._user.types(command)
        for command in re.findall(r"^ +\S+ (.*/etc/polkit-1/rules\.d/.*)$", advice, re.MULTILINE):
            print(f"   $ {command}", flush=True)
            self._user.types(command)

    def plugs_the_card_in(self) -> None:
        """A card that has keys."""
        self._reader.attach(self._machine)
        before = time.monotonic()
        self._reader.slot.insert(self._reader.card)
        eventually(self._is_listed, "the key is listed", 60)
        self._user.waits(time.monotonic() - before)

    def logs_in_to_a_server(self) -> None:
        """To the machine's own sshd: by password once, then by the card, its PIN typed in the terminal."""
        self._user.looks(
            "install -d -m 700 ~/.ssh; printf 'Host server\\n HostName localhost\\n Port "
            f"{self._machine.port}\\n StrictHostKeyChecking accept-new\\n' > ~/.ssh/config"
        )
        listing, copying, log_in = self._log_in
        self._user.types(listing)
        self._user.types(copying, ("password:", PASSWORD))
        said = self._user.types(f"{log_in} echo hello", (_PIN_PROMPT, PIN))
        assert said.endswith("hello\n"), said
        card = self._reader.card
        assert (card.verifies, card.wrong_pins) == (1, 0)
        self.to_first_signature = self._user.cost
        # The host's name is in known_hosts as a hash only.
        used = self._user.looks(
            f"PATH=$PATH:~/.local/bin; replug history --host '[localhost]:{self._machine.port}'"
        )
        assert re.fullmatch(r"[-\d]+ [:\d]+ ssh \(pid \d+\): login at .*; key .* of token .*\n", used.out), (
            used
        )

    def mistypes_the_pin(self) -> None:
        """The same way of asking says so and asks again, and nothing else does."""
        self._user.types("replug forget")
        said = self._user.types(_LOGIN, (_PIN_PROMPT, "000000"), ("Wrong PIN.", PIN))
        assert said.endswith("hello\n"), said
        assert "password" not in said, said
        assert self._reader.card.wrong_pins == 1

    def pulls_it_out_and_puts_it_back(self) -> None:
        """The promise."""
        slot, card = self._reader.slot, self._reader.card
        verified = card.verifies
        slot.remove()
        eventually(lambda: not self._is_listed(), "it is gone", 60)
        slot.insert(card)
        slot.await_power()
        assert self._user.types(_LOGIN).endswith("hello\n")
        assert card.verifies == verified + 1, "the PIN was not sent again by the agent itself"

    def logs_out_and_in_again(self) -> None:
        """The next session has the agent from its start; the PIN was kept for the last one only."""
        self._user.logs_out()
        ours = self._agents[0].partition("=")[2].strip()
        assert ours.endswith("/replug/agent.sock"), ours
        assert self._user.agent_of_logins == ours
        eventually(self._is_listed, "the key is listed", 60)
        assert self._user.types(_LOGIN, (_PIN_PROMPT, PIN)).endswith("hello\n")

    def upgrades(self) -> None:
        """A newer version is installed over the one that runs, which goes on until it is restarted."""
        self._user.looks(f"ssh-keygen -q -t ed25519 -N '' -f {_FILE} && ssh-add {_FILE}")
        self._user.looks(f"""sed -i 's/^version = .*/version = "{_NEWER}"/' replug/pyproject.toml""")
        said = [self._user.types(line) for line in self._upgrade][-1]
        print(_indented(said), flush=True)
        assert f"{_NEWER} is installed" in said, said
        assert "1 remembered PIN and 1 key in memory" in " ".join(said.split()), said
        self.pulls_it_out_and_puts_it_back()
        assert self._user.looks(f"ssh-add -T {_FILE}").status == 0

        [change_over] = re.findall(r"systemctl --user restart .*", said)
        self._user.types(change_over)
        assert "is installed" not in self._user.types("replug status")
        eventually(self._is_listed, "the key is listed", 60)
        assert self._user.looks(f"ssh-add -T {_FILE}").status == 1
        assert self._user.types(_LOGIN, (_PIN_PROMPT, PIN)).endswith("hello\n")

    def uninstalls(self) -> None:
        """By the README's lines: what was there before is back at once, and nothing stays."""
        remove, uninstall = self._uninstall
        print(_indented(self._user.types(remove)), flush=True)
        assert self._agents == self._agents_before
        self._user.types(uninstall)
        self._user.logs_out()
        self._is_as_before()
        left = self._user.looks(f"find . -iname '*replug*' {_NOT_OURS}").out
        assert not left, left

    def installs_again(self) -> None:
        """As at first, but for what is there already."""
        _, install, setup = self._install
        self._user.types(install)
        said = self._sets_up(setup)
        assert "echo " not in said, said
        eventually(self._is_listed, "the key is listed", 60)

    def uninstalls_the_program_alone(self) -> None:
        """What is left is as if it had never been there."""
        self._user.types(self._uninstall[-1])
        self._user.logs_out()
        self._is_as_before()

    def sees_the_demonstration(self) -> None:
        """All of it, by an ordinary user; and it leaves nothing behind."""
        print(f"   $ {self._demo}", flush=True)
        said = self._user.types(self._demo)
        assert "Not shown" not in said, said
        left = self._user.looks("find /tmp -user $USER; pgrep -u $USER -a '^(replug|pcscd|ssh-agent)'").out
        assert not left, left

    def _is_as_before(self) -> None:
        assert self._agents == self._agents_before
        failed = self._user.looks("systemctl --user --failed --plain --no-legend").out
        assert not failed, failed

    @property
    def _agents(self) -> tuple[str, str]:
        """Of sessions, and of logins by ssh."""
        return self._user.agent_of_sessions, self._user.agent_of_logins

    def _is_listed(self) -> bool:
        return self._reader.key in self._user.looks(_LISTED).out

    def _what_is_known(self) -> str:
        """For whoever has to find out why a step failed."""
        journal = self._machine.run("journalctl", "--no-pager", "--lines=60").out
        asked = ("replug status", "replug doctor", "replug logs")
        return journal + "".join(
            f"$ {command}\n{done.out}{done.err}"
            for command in asked
            for done in [self._user.looks(f"PATH=$PATH:~/.local/bin; {command}")]
        )


def _indented(text: str) -> str:
    return "".join(f"     {line}\n" for line in text.splitlines())
