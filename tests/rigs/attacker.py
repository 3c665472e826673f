"""A program of the same user that reads the memory of all others, as far as the kernel lets it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from rigs.terminal import eventually
from rigs.user_manager import UserManager

_SOURCE = Path(__file__).parents[1] / "attacks" / "reader.c"


def build(folder: Path) -> Path:
    """Compiles the program into `folder` and returns its path."""
    program = folder / "reader"
    subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, _SOURCE], check=True)
    return program


class Attacker:
    """It runs from now on as the session's user, without privileges, until the session ends.

    It opens the memory of each process as soon as there is one, and keeps that open.
    """

    def __init__(self, session: UserManager, folder: Path, built: Path) -> None:
        """`folder` is the home as the tests see it; the session has it at another path."""
        self._session = session
        self._folder = folder / "attacker"
        self._inside = session.folder / "attacker"
        session.run("mkdir", self._inside)
        program = self._folder / "reader"
        program.write_bytes(built.read_bytes())
        program.chmod(0o755)
        self._program = self._inside / "reader"
        session.start(self._program, "watch", self._inside)
        self._prove_itself()

    def found(self, secrets: Mapping[str, bytes]) -> dict[str, str]:
        """The names of the secrets it can read now, each with how and in which process."""
        (self._folder / "found").unlink(missing_ok=True)
        order = self._folder / "search.new"
        order.write_text("".join(f"{name} {secret.hex()}\n" for name, secret in secrets.items()))
        order.rename(self._folder / "search")
        eventually((self._folder / "found").exists, "the attacker has searched", within=60)
        lines = [line.split() for line in (self._folder / "found").read_text().splitlines()]
        return {name: f"{how}, in process {pid}" for how, pid, name in lines}

    def _prove_itself(self) -> None:
        """It finds what it must: in a program that keeps nothing secret, and in one that refuses too late."""
        open_, late = b"an-open-secret-of-nobody", b"a-secret-that-came-later"
        keeps = "import sys; secret = sys.stdin.buffer.read(24); print('ready', flush=True); sys.stdin.read()"
        python = self._session.start(sys.executable, "-I", "-c", keeps, given=open_)
        victim = self._session.start(self._program, "victim", given=late)
        for process in (python, victim):
            assert process.stdout
            assert process.stdout.readline() == b"ready\n"
        found = self.found({"open": open_, "late": late})
        assert found.keys() == {"open", "late"}
        assert found["late"].startswith("kept")
