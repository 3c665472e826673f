"""Where ssh's configuration sends ssh to an agent: every IdentityAgent line (ssh_config(5))."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from replug.agent.keys.regular_file import lines_of

_DEEPEST_INCLUDE = 16  # as OpenSSH has it (readconf.c, READCONF_MAX_DEPTH)
_MOST_FILES = 256  # one that includes itself twice would be read 65536 times


@dataclass(frozen=True)
class IdentityAgent:
    """One line that names an agent."""

    place: str
    """The file and the line, such as `/home/you/.ssh/config:7`."""
    hosts: str
    """The hosts that it is for, in words."""
    value: str
    """As it is written there."""

    def leads_to(self, socket: str, environment: Mapping[str, str], home: Path) -> bool:
        """Whether ssh uses the agent at `socket` in spite of the line."""
        return self.value == "SSH_AUTH_SOCK" or self._path(environment, home) == socket != ""

    def _path(self, environment: Mapping[str, str], home: Path) -> str:
        """The path that ssh makes of the value: ~, ${NAME}, $NAME, %d and %i (ssh_config(5), TOKENS)."""
        value = self.value
        if value.startswith("$") and value[1:].isidentifier():
            return environment.get(value[1:], value)
        value = value.replace("%d", str(home)).replace("%i", str(os.getuid()))
        for name, content in environment.items():
            value = value.replace(f"${{{name}}}", content)
        return str(home) + value[1:] if value.startswith("~/") else value


def identity_agents(file: Path) -> Iterator[IdentityAgent]:
    """The IdentityAgent lines of `file` and of the files that it includes; none if it cannot be read."""
    return _read(file, file.parent, 0, iter(range(_MOST_FILES)))


def _read(file: Path, folder: Path, depth: int, may_be_read: Iterator[int]) -> Iterator[IdentityAgent]:
    if next(may_be_read, None) is None:
        return
    try:
        lines = lines_of(file)
    except OSError:
        return
    hosts = "all hosts"
    for number, line in enumerate(lines, 1):
        words = line.replace("=", " ", 1).replace('"', "").split()
        match [words[0].lower(), *words[1:]] if words else []:
            case ["host", *patterns]:
                hosts = " ".join(patterns)
            case ["match", *conditions]:
                hosts = "match " + " ".join(conditions)
            case ["identityagent", value, *_]:
                yield IdentityAgent(f"{file}:{number}", hosts, value)
            case ["include", *names] if depth < _DEEPEST_INCLUDE:
                for name in names:
                    pattern = os.path.join(folder, os.path.expanduser(name))
                    for included in sorted(glob.glob(pattern)):
                        yield from _read(Path(included), folder, depth + 1, may_be_read)
