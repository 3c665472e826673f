"""FIDO authenticators: OpenSSH's sk-dummy from Debian's openssh-tests, and ours in front of it; helpers."""

from __future__ import annotations

import subprocess
from pathlib import Path

from rigs.agent import Agent
from rigs.home import Home
from rigs.terminal import Done

SK_DUMMY = Path("/usr/lib/openssh/regress/misc/sk-dummy/sk-dummy.so")
KINDS = ("ed25519-sk", "ecdsa-sk")
PIN = "2468"
_SOURCE = Path(__file__).parent.parent / "modules" / "sk_touch.c"


def make_sk_key(home: Home, name: str, kind: str = "ed25519-sk", *options: str) -> Path:
    """Makes a FIDO key in sk-dummy; its comment is its name. The file, beside it a .pub."""
    path = home.folder / name
    done = home.run(
        "ssh-keygen", "-q", "-t", kind, "-w", SK_DUMMY, "-N", "", "-C", name, *options, "-f", path
    )
    assert done.status == 0, done
    return path


class Authenticator:
    """A library that wants PIN, touch and plug, as the test says; keys of sk-dummy are in it too."""

    def __init__(self, home: Home) -> None:
        self.folder = home.folder / "authenticator"
        self.folder.mkdir()
        self.library = self.folder / "sk_touch.so"
        subprocess.run(
            ["gcc", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", f'-DFOLDER="{self.folder}"',
             f'-DSK_DUMMY="{SK_DUMMY}"', "-o", self.library, _SOURCE, "-ldl"],
            check=True,
        )  # fmt: skip

    def has(self, name: str, content: str = "") -> None:
        """Make one of its files."""
        (self.folder / name).write_text(content)

    def has_no(self, name: str) -> None:
        """Remove one of its files."""
        (self.folder / name).unlink()

    @property
    def calls(self) -> list[str]:
        """The PINs of all signatures so far; `none` without one."""
        path = self.folder / "calls"
        return path.read_text().split() if path.exists() else []


def helper_that(home: Home, does: str) -> dict[str, str]:
    """The environment that has a shell script for ssh-sk-helper."""
    path = home.write("sk-helper", f"#!/bin/sh\n{does}\n", 0o700)
    return {"SSH_SK_HELPER": str(path)}


def answer_of(*contents: int) -> str:
    """A shell command that sends an answer of these bytes."""
    size = len(contents).to_bytes(4, "big")
    octal = "".join(f"\\{byte:03o}" for byte in (*size, *contents))
    return f"printf '{octal}'"


def add(agent: Agent, key: Path, provider: Path | str = SK_DUMMY, *options: str) -> Done:
    """`ssh-add -S provider key`."""
    return agent.ssh_add("-S", provider, *options, key)
