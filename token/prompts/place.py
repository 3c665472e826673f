"""Where the user of the asking process can be asked: on its display, on its terminal (proc(5)).

All of this is read from a process that may be hostile although it is our own user's: an attacker may run it
to sign with the token. The rules for each thing it says:

- It never names a program: SSH_ASKPASS and PATH are the agent's own. Variables that make programs load code
  are ignored (LD_*, GTK_*, QT_*, TERMINFO, and D-Bus addresses that start something, `unixexec:`).
- DISPLAY must be on this machine (or forwarded to it by ssh): a PIN must not cross a network in the clear.
- WAYLAND_DISPLAY names a socket in XDG_RUNTIME_DIR, and that is a folder that only we can write.
- TERM, LANG, LC_ALL and LC_CTYPE become file names in libraries: only letters, digits and a few signs.
- SSH_ASKPASS_REQUIRE and TMUX choose among ways that are all the agent's own.
- GPG_TTY and SSH_TTY are claims and are ignored. The kernel says what the controlling terminal is; we must be
  allowed to open it, and the process must be in the foreground there.

The remaining risks: such a process can show its own dialog and ask for the PIN, and it can have the question
put on a display or terminal that it made and confirm it itself. A confirmation protects from hosts that an
agent is forwarded to, where the asking process is the user's own ssh, not from the user's own programs.

If the process has ended, its number may be another's by now. That one is our user's too, or it is ignored, so
the worst outcome is a question in the wrong place, which names the asking program correctly. Containers with
terminals of their own can name one of ours by its number in the same way.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from replug.token.prompts.processes import Process, with_ancestors

_UNIX98_MAJORS = range(136, 144)  # Documentation/admin-guide/devices.txt


@dataclass(frozen=True)
class Terminal:
    """The controlling terminal of the asking process, or of an ancestor."""

    path: str
    device: int
    """As in st_rdev."""
    process: int
    """The process that has it."""


@dataclass(frozen=True)
class Place:
    """Where the user can be asked."""

    environment: Mapping[str, str]
    """Only variables that say where."""
    terminal: Terminal | None = None
    certain: bool = True
    """Whether `environment` is from the asking process or an ancestor; else it is the agent's own."""

    def in_full(self, own: Mapping[str, str]) -> dict[str, str]:
        """The agent's `own` environment with this place's variables: the environment for a dialog."""
        return {name: value for name, value in own.items() if name not in _TOGETHER} | dict(self.environment)

    @property
    def has_display(self) -> bool:
        """Whether a window can be shown."""
        return bool(self.display)

    @property
    def display(self) -> str:
        """The name of the display; empty if there is none."""
        return self.environment.get("WAYLAND_DISPLAY") or self.environment.get("DISPLAY") or ""

    @property
    def terminal_first(self) -> bool:
        """Whether the user is more likely at the terminal than at the display.

        A pane of tmux moves with the user, from a desktop to a login over ssh, and DISPLAY does not.
        """
        return self.terminal is not None and ("TMUX" in self.environment or not self.certain)


def find_place(
    pid: int | None, own: Mapping[str, str], environment_of: Callable[[int], Mapping[str, str]]
) -> Place:
    """The place of process `pid`, or that of the agent's `own` environment if it has none.

    `environment_of` reads the environment of a process. Call this in a thread: reading /proc can block for as
    long as the process wants (its memory may be backed by a file system of its own).
    """
    environment: Mapping[str, str] = {}
    terminal: Terminal | None = None
    for process in with_ancestors(pid):
        environment = environment or environment_of(process.pid)
        terminal = terminal or _controlling_terminal(process)
        if environment and terminal:
            break
    place = Place(_checked(environment), terminal)
    if environment and (terminal or place.has_display):
        return place
    # It is gone, may not be read, or is a job without a display and a terminal.
    return Place({name: own[name] for name in _CHECKS if own.get(name)}, terminal, certain=False)


def terminal_of(pid: int | None) -> Terminal | None:
    """The terminal of process `pid`, or of the nearest ancestor that has one. Call this in a thread."""
    terminals = (_controlling_terminal(process) for process in with_ancestors(pid))
    return next(filter(None, terminals), None)


def _controlling_terminal(process: Process) -> Terminal | None:
    """The terminal of a process, if there is a device for it."""
    if process.terminal == 0:
        return None
    device = process.device
    major, minor = os.major(device), os.minor(device)
    try:
        if major in _UNIX98_MAJORS:
            path = f"/dev/pts/{(major - _UNIX98_MAJORS.start) * 256 + minor}"
        else:
            path = "/dev/" + os.path.basename(os.readlink(f"/sys/dev/char/{major}:{minor}"))
        state = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISCHR(state.st_mode) or state.st_rdev != device:
        return None
    return Terminal(path, device, process.pid)


def _checked(said: Mapping[str, str]) -> dict[str, str]:
    """Those variables of another process that say where and whose values are safe."""
    return {name: said[name] for name, safe in _CHECKS.items() if said.get(name) and safe(said[name])}


def _matches(pattern: str) -> Callable[[str], bool]:
    return lambda value: re.fullmatch(pattern, value, re.ASCII) is not None


def _is_private_folder(path: str) -> bool:
    try:
        state = os.lstat(path)
    except (OSError, ValueError):
        return False
    private = stat.S_ISDIR(state.st_mode) and state.st_uid == os.getuid() and state.st_mode & 0o022 == 0
    return path.startswith("/") and private


_CHECKS: Mapping[str, Callable[[str], bool]] = {
    "DISPLAY": _matches(r"(unix|localhost|127\.0\.0\.1)?:\d{1,5}(\.\d{1,3})?"),
    "WAYLAND_DISPLAY": _matches(r"[\w.-]{1,64}"),
    "XAUTHORITY": _matches(r"/[^\n]*"),
    "XDG_RUNTIME_DIR": _is_private_folder,
    "DBUS_SESSION_BUS_ADDRESS": _matches(r"unix:(path|abstract)=[^;\s]+"),
    "SSH_ASKPASS_REQUIRE": _matches("never|prefer|force"),
    "TERM": _matches(r"[\w.+-]{1,64}"),
    "LANG": _matches(r"[\w.@-]{1,64}"),
    "LC_CTYPE": _matches(r"[\w.@-]{1,64}"),
    "LC_ALL": _matches(r"[\w.@-]{1,64}"),
    "TMUX": _matches(r"[^\n]+"),
}
"""The variables that are used, and what makes a value safe."""

_TOGETHER = {"DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "TERM", "TMUX"}
"""Variables that must come from one process: a mixture would be wrong."""
