"""Writes the shells' completions of both programs from the programs' own command lines.

Started as `python docs/completions/generate.py [FOLDER]`; FOLDER is this file's unless another is given.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from replug.agent.commands.main import make_parser

FILES, COMMANDS = "files", "commands"

AGENT_OPTIONS = (
    ("-A", "directory", "user: shared:", "make the socket in this folder"),
    ("-a", "bind_address", "", "listen at this path"),
    ("-c", "", "", "print for the C shell"),
    ("-D", "", "", "stay in the foreground"),
    ("-d", "", "", "stay in the foreground and log every step"),
    ("-E", "fingerprint_hash", "sha256 md5 sha1 sha384 sha512", "hash of shown fingerprints"),
    ("-k", "", "", "end the agent of SSH_AGENT_PID"),
    ("-O", "option", "allow-remote-pkcs11 no-restrict-websafe websafe-allow=", "set an option"),
    ("-P", "allowed_providers", "", "modules that may be loaded"),
    ("-s", "", "", "print for the Bourne shell"),
    ("-T", "", "", "put the socket under TMPDIR"),
    ("-t", "life", "", "how long keys are kept"),
    ("-U", "", "", "do not remove stale sockets"),
    ("-u", "", "", "remove stale sockets and exit"),
    ("-V", "", "", "show the version and exit"),
)
"""replug-agent's options: flag, the name of its value, its possible values, and its purpose."""


@dataclass(frozen=True)
class Option:
    """One option; `takes` is the name of its value, empty for none."""

    flags: tuple[str, ...]
    help: str
    takes: str = ""
    values: tuple[str, ...] = ()


@dataclass
class Level:
    """A program or one of its commands: path, options, commands, and other arguments."""

    path: tuple[str, ...]
    help: str = ""
    options: list[Option] = field(default_factory=list)
    commands: list[Level] = field(default_factory=list)
    rest: str = ""
    """What other arguments are: FILES, COMMANDS, or nothing."""

    def walk(self) -> Iterator[Level]:
        """This level and all below."""
        yield self
        for command in self.commands:
            yield from command.walk()


def from_parser(parser: argparse.ArgumentParser, path: tuple[str, ...], help_text: str = "") -> Level:
    """A level of a program that uses argparse."""
    level = Level(path, help_text)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            level.commands = [
                from_parser(one, (*path, name), helps.get(name, "")) for name, one in action.choices.items()
            ]
        elif action.help == argparse.SUPPRESS:
            continue
        elif action.option_strings:
            takes = "" if action.nargs == 0 else str(action.metavar or action.dest)
            values = tuple(map(str, action.choices or ()))
            level.options.append(Option(tuple(action.option_strings), action.help or "", takes, values))
        elif action.choices:
            level.commands += [Level((*path, str(choice))) for choice in action.choices]
        elif (action.metavar or action.dest) not in ("command", "host"):
            level.rest = FILES
    return level


def agent() -> Level:
    """replug-agent, whose options are ssh-agent's."""
    options = [
        Option((flag,), text, takes, tuple(values.split())) for flag, takes, values, text in AGENT_OPTIONS
    ]
    return Level(("replug-agent",), options=options, rest=COMMANDS)


def bash(program: Level) -> str:
    """A completion function for bash, which needs nothing else."""
    name = program.path[0]
    function = "_" + name.replace("-", "_")
    lines = [f"# bash completion for {name}; made by docs/completions/generate.py", f"{function}() {{"]
    lines += [
        '    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} path="" word'
    ]
    below = [level for level in program.walk() if level is not program]
    if below:
        known = "|".join(f'"{" ".join(("", *level.path[1:]))}"' for level in below)
        lines += ['    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do']
        lines += [f'        case "$path $word" in {known}) path="$path $word" ;; esac', "    done"]
    lines += ["    COMPREPLY=()", '    case "$path $previous" in']
    for level in program.walk():
        for option in level.options:
            if option.takes:
                flags = "|".join(f'"{" ".join(("", *level.path[1:], flag))}"' for flag in option.flags)
                lines.append(f"        {flags}) {_bash_value(option)}; return ;;")
    lines += ["    esac", '    case "$path" in']
    for level in program.walk():
        words = [flag for option in level.options for flag in option.flags]
        words += [command.path[-1] for command in level.commands]
        filling = [f'mapfile -t COMPREPLY < <(compgen -W "{" ".join(words)}" -- "$current")']
        if level.rest:
            kind = "-f" if level.rest == FILES else "-c"
            filling.append(f'mapfile -t -O ${{#COMPREPLY[@]}} COMPREPLY < <(compgen {kind} -- "$current")')
        place = " ".join(("", *level.path[1:])) if level is not program else ""
        lines += [f'        "{place}")', *(f"            {line}" for line in filling), "            ;;"]
    return "\n".join([*lines, "    esac", "}", f"complete -o filenames -F {function} {name}", ""])


def _bash_value(option: Option) -> str:
    if option.values:
        return f'mapfile -t COMPREPLY < <(compgen -W "{" ".join(option.values)}" -- "$current")'
    return 'mapfile -t COMPREPLY < <(compgen -f -- "$current")' if _is_path(option) else ":"


def zsh(program: Level) -> str:
    """Completion functions for zsh, one for each level."""
    name = program.path[0]
    lines = [f"#compdef {name}", "# made by docs/completions/generate.py", ""]
    for level in reversed(list(program.walk())):
        lines += [f"{_function(level)}() {{"]
        arguments = [_zsh_option(option) for option in level.options]
        if level.commands:
            lines += ["    local context state state_descr line", "    typeset -A opt_args"]
            arguments += ["'1:command:->command'", "'*::argument:->argument'"]
        elif level.rest:
            arguments.append("'*:file:_files'" if level.rest == FILES else "'*::command:_normal'")
        call = " \\\n        ".join([f"_arguments {'-C ' if level.commands else '-s '}-S", *arguments])
        lines += [f"    {call}"]
        if level.commands:
            lines += ["    case $state in", "        command)", "            local -a commands=("]
            lines += [f"                {_quote(f'{one.path[-1]}:{one.help}')}" for one in level.commands] + [
                "            )",
                "            _describe command commands",
                "            ;;",
            ]
            lines += ["        argument)", "            case $words[1] in"]
            lines += [f"                {one.path[-1]}) {_function(one)} ;;" for one in level.commands]
            lines += ["            esac", "            ;;", "    esac"]
        lines += ["}", ""]
    return "\n".join([*lines, f'{_function(program)} "$@"', ""])


def _function(level: Level) -> str:
    return "_" + "_".join(level.path).replace("-", "_")


def _zsh_option(option: Option) -> str:
    text = re.sub(r"([\[\]:])", r"\\\1", option.help)
    value = ""
    if option.takes:
        action = f"({' '.join(option.values)})" if option.values else "_files" if _is_path(option) else " "
        value = f":{option.takes}:{action}"
    if len(option.flags) == 1:
        return _quote(f"{option.flags[0]}[{text}]{value}")
    return f"'({' '.join(option.flags)})'{{{','.join(option.flags)}}}{_quote(f'[{text}]{value}')}"


def fish(program: Level) -> str:
    """Completions for fish."""
    name = program.path[0]
    lines = [f"# fish completion for {name}; made by docs/completions/generate.py"]
    if program.rest != COMMANDS:
        lines.append(f"complete -c {name} -f")
    for level in program.walk():
        condition = _fish_condition(level, program)
        for command in level.commands:
            lines.append(f"complete -c {name}{condition} -a {command.path[-1]} -d {_quote(command.help)}")
        for option in level.options:
            flags = "".join(
                f" -l {flag[2:]}" if flag[:2] == "--" else f" -s {flag[1]}" for flag in option.flags
            )
            value = " -x" if option.takes and not _is_path(option) else " -r -F" if option.takes else ""
            words = f" -a {_quote(' '.join(option.values))}" if option.values else ""
            lines.append(f"complete -c {name}{condition}{flags}{value}{words} -d {_quote(option.help)}")
        if level.rest:
            words = " -F" if level.rest == FILES else " -a '(__fish_complete_subcommand)'"
            lines.append(f"complete -c {name}{condition}{words}")
    return "\n".join([*lines, ""])


def _fish_condition(level: Level, program: Level) -> str:
    tests = [f"__fish_seen_subcommand_from {word}" for word in level.path[1:]]
    if level.commands:
        names = " ".join(command.path[-1] for command in level.commands)
        tests.append(f"not __fish_seen_subcommand_from {names}")
    return f" -n {_quote('; and '.join(tests))}" if tests else ""


def _is_path(option: Option) -> bool:
    return option.takes.lower() in ("file", "folder", "path", "bind_address", "allowed_providers")


def _quote(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def main() -> None:
    """Writes all six files."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for program in (from_parser(make_parser(), ("replug",)), agent()):
        name = program.path[0]
        for path, text in (
            (f"bash/{name}", bash(program)),
            (f"zsh/_{name}", zsh(program)),
            (f"fish/{name}.fish", fish(program)),
        ):
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(text)


if __name__ == "__main__":
    main()
