"""The user of a token that is tried: an agent, a host to log in to, and whoever asks for PINs."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rigs.agent import Agent
from rigs.askpass import Askpass
from rigs.sshd import USER, Server, only
from rigs.terminal import Done
from rigs.tried import TriedToken

_PROGRAMS = Path(sys.executable).parent
REPLUG = _PROGRAMS / "replug"


class User:
    """On the token's machine, from the first listing to the locked PIN."""

    def __init__(self, token: TriedToken) -> None:
        self.token = token
        self.home = token.home
        self.askpass = Askpass(self.home)
        self.server = Server(self.home)
        self.expected_keys = key_lines("".join(public.read_text() for public in token.publics.values()))
        """Type and key of all that `ssh-add -L` has to show."""
        self.server.authorize(*token.publics.values())
        signers = [f"{name} {public.read_text()}" for name, public in token.publics.items()]
        self._allowed = self.home.write("allowed-signers", "".join(signers))
        self._program = self.home.program(_PROGRAMS / "replug-agent")
        self.agent = self._start()

    @contextmanager
    def agent_without_configuration(self) -> Iterator[Agent]:
        """One that serves what p11-kit knows."""
        configuration = self.home.folder / ".config" / "replug" / "config.toml"
        text = configuration.read_text()
        configuration.unlink()
        agent = self._start()
        try:
            yield agent
        finally:
            self._end(agent)
            self.home.configure(text.rstrip("\n"))

    def close(self) -> None:
        """Ends the agent."""
        self._end(self.agent)

    def log_in(self, name: str, agent: Agent | None = None) -> Done:
        """Logs in with this key."""
        return self.server.login(agent or self.agent, *only(self.token.publics[name]))

    def must_log_in(self, agent: Agent | None = None) -> None:
        """Logs in once with each key."""
        for name in self.token.publics:
            done = self.log_in(name, agent)
            assert (done.status, done.out) == (0, f"in {USER}\n"), (
                f"{name}: {done}\n{(agent or self.agent).log}"
            )

    def sign(self, name: str, document: Path) -> Done:
        """`ssh-keygen -Y sign`; the signature is at DOCUMENT.sig."""
        public = self.token.publics[name]
        return self.agent.run("ssh-keygen", "-Y", "sign", "-f", public, "-n", "file", document)

    def verify(self, name: str, document: Path) -> Done:
        """`ssh-keygen -Y verify` of that signature, with this key."""
        return self.home.run(
            "ssh-keygen", "-Y", "verify", "-f", self._allowed, "-I", name, "-n", "file",
            "-s", f"{document}.sig", text=document.read_text(),
        )  # fmt: skip

    def replug(self, *arguments: str | Path) -> Done:
        """Runs a command of `replug`."""
        return self.agent.run(REPLUG, *arguments)

    def explain(self) -> str:
        """The latest refusal, in one line."""
        done = self.replug("explain", "-n", "1")
        assert done.status == 0, done
        return re.sub(r"\s+", " ", done.out)

    def status(self, agent: Agent | None = None) -> dict[str, Any]:
        """What `replug status` says of the token; it must say it once."""
        done = (agent or self.agent).run(REPLUG, "status", "--json")
        assert done.status == 0, done
        found = [said for said in json.loads(done.out)["tokens"] if said["keys"]]
        assert len(found) == 1, (found, (agent or self.agent).log)
        token: dict[str, Any] = found[0]
        return token

    def _start(self) -> Agent:
        return Agent(self._program, self.home, env=self.askpass.env)

    def _end(self, agent: Agent) -> None:
        crashed = agent.process.poll()
        status = agent.stop()
        assert crashed is None, f"the agent ended by itself with {crashed}; its log:\n{agent.log}"
        assert status == 2, agent.log


def key_lines(text: str) -> set[str]:
    """Type and key of each line of `ssh-add -L` or a .pub file, without comments."""
    return {" ".join(line.split()[:2]) for line in text.splitlines()}
