"""The shells' completions, in the real shells: a tab is pressed, and the command line is looked at."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from replug.agent.process import arguments

COMPLETIONS = Path(__file__).parents[2] / "docs" / "completions"
PATIENCE = 30  # seconds


def press(argv: list[str], setup: str, typed: str, folder: Path) -> str:
    """The command line after `typed`, tabs and all, in an interactive shell in `folder`.

    The line is not run but shown, by turning it into an echo.
    """
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(folder)
        environment = {"PATH": os.environ["PATH"], "TERM": "dumb", "HOME": str(folder), "LANG": "C.UTF-8"}
        os.execvpe(argv[0], argv, environment)
    try:
        os.write(terminal, f"{setup}; echo rea''dy\n".encode())
        read_until(terminal, lambda shown: "\nready" in shown)
        os.write(terminal, f"{typed}\x01echo '<' \x05 '>'\n".encode())
        shown = read_until(terminal, lambda shown: bool(re.search(r"\n< .* >", shown)))
        found = re.search(r"\n< (.*?) +>", shown)
        assert found
        return found[1]
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(terminal)


def read_until(terminal: int, over: Callable[[str], bool]) -> str:
    shown, end = "", time.monotonic() + PATIENCE
    while not over(shown):
        ready, _, _ = select.select([terminal], [], [], max(0, end - time.monotonic()))
        assert ready, f"nothing more after {shown!r}"
        shown += os.read(terminal, 4096).decode(errors="replace").replace("\r", "")
    return shown


LINES = [
    ("replug sta\t", "replug status"),
    ("replug status --j\t", "replug status --json"),
    ("replug logs --fol\t", "replug logs --follow"),
    ("replug doctor modu\t", "replug doctor module.so"),
    ("replug-agent -E sha2\t", "replug-agent -E sha256"),
    ("replug-agent -O allow\t", "replug-agent -O allow-remote-pkcs11"),
]


@pytest.mark.parametrize(("typed", "line"), LINES)
def test_bash(tmp_path: Path, typed: str, line: str) -> None:
    (tmp_path / "module.so").touch()
    setup = f". {COMPLETIONS}/bash/replug; . {COMPLETIONS}/bash/replug-agent"
    assert press(["bash", "--norc", "-i"], setup, typed, tmp_path) == line


@pytest.mark.parametrize(("typed", "line"), LINES)
def test_zsh(tmp_path: Path, typed: str, line: str) -> None:
    (tmp_path / "module.so").touch()
    setup = f"bindkey -e; fpath=({COMPLETIONS}/zsh $fpath); autoload -Uz compinit; compinit -u -D"
    assert press(["zsh", "-f", "-i"], setup, typed, tmp_path) == line


@pytest.mark.parametrize(("typed", "line"), LINES)
def test_fish(tmp_path: Path, typed: str, line: str) -> None:
    (tmp_path / "module.so").touch()
    done = subprocess.run(
        ["fish", "--no-config", "-c", f"source {COMPLETIONS}/fish/replug.fish;"
         f" source {COMPLETIONS}/fish/replug-agent.fish; complete -C '{typed.strip()}'"],
        cwd=tmp_path, env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TERM": "dumb"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    offered = [offer.split("\t")[0] for offer in done.stdout.splitlines()]
    assert line.split()[-1] in offered, done


def test_they_are_made_of_the_programs_as_they_are(tmp_path: Path) -> None:
    """If this fails: make completions."""
    subprocess.run([sys.executable, COMPLETIONS / "generate.py", tmp_path], check=True)
    made = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    assert len(made) == 6
    for path, text in made.items():
        assert (COMPLETIONS / path).read_text() == text, f"{path} is out of date: make completions"


def test_the_agents_options_are_all_there() -> None:
    flags = set(arguments._FLAGS.replace(":", ""))
    text = (COMPLETIONS / "fish" / "replug-agent.fish").read_text()
    assert set(re.findall(r" -s (\w)", text)) == flags


def test_they_are_installed() -> None:
    root = COMPLETIONS.parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text())
    installed = {name for names in project["tool"]["setuptools"]["data-files"].values() for name in names}
    completions = {str(path.relative_to(root)) for path in COMPLETIONS.glob("*/*")}
    pages = {str(path.relative_to(root)) for path in COMPLETIONS.parent.glob("*.[1-9]")}
    assert installed == completions | pages
