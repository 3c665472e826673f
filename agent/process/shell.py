"""The lines ssh-agent prints for a shell to evaluate, byte for byte."""

from __future__ import annotations


def prefers_csh(shell: str | None) -> bool:
    """Whether the user's `$SHELL` is of the C shell family (ssh-agent.c main)."""
    return shell is not None and shell.endswith("csh")


def assignment(name: str, value: str, *, csh: bool) -> str:
    """The line that exports variable `name` as `value`, which must be quoted already."""
    return f"setenv {name} {value};\n" if csh else f"{name}={value}; export {name};\n"


def foreground_lines(path: str, pid: int, *, csh: bool) -> str:
    """The lines that an agent in the foreground (-d, -D) prints."""
    return assignment("SSH_AUTH_SOCK", quoted(path), csh=csh) + f"echo Agent pid {pid};\n"


def daemon_lines(path: str, pid: int, *, csh: bool) -> str:
    """The lines for an agent that went to the background as process `pid`."""
    return (
        assignment("SSH_AUTH_SOCK", quoted(path), csh=csh)
        + assignment("SSH_AGENT_PID", str(pid), csh=csh)
        + f"echo Agent pid {pid};\n"
    )


def killed_lines(pid: int, *, csh: bool) -> str:
    """The lines that -k prints when it has ended the agent with process id `pid`."""
    unset = "unsetenv" if csh else "unset"
    return f"{unset} SSH_AUTH_SOCK;\n{unset} SSH_AGENT_PID;\necho Agent pid {pid} killed;\n"


def quoted(word: str) -> str:
    """`word` quoted as misc.c argv_assemble does it: backslashes for quotes, double quotes for blanks."""
    escaped = "".join("\\" + char if char in "\\'\"" else char for char in word)
    return f'"{escaped}"' if " " in word or "\t" in word else escaped
