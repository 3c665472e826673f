"""Libraries with code of their own for agents, each in a program of ours that logs in."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

from clients.client import ENDS_AT_FIDO_KEY, PROVES_NO_HOST, READS_NO_FIDO_KEY, SOURCES, Login

_PYTHON = Path("/usr/bin/python3")
NODE_MODULES = Path(__file__).parents[2] / ".venv" / "clients" / "node_modules"
"""Where `make clients` has npm put what `sources/package-lock.json` names."""


class Libssh(Login):
    title = "libssh"
    packages = ("libssh-4",)
    cannot = PROVES_NO_HOST

    def prepare(self, folder: Path) -> None:
        self.argv = [folder / "login"]
        subprocess.run(["cc", "-o", *self.argv, SOURCES / "libssh_login.c", "-lssh"], check=True)


class Go(Login):
    title = "Go, x/crypto/ssh/agent"
    forwards = True
    packages = ("golang-golang-x-crypto-dev",)
    cannot = PROVES_NO_HOST

    def prepare(self, folder: Path) -> None:
        self.argv = [folder / "login"]
        env = {"GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOCACHE": str(folder / "cache")}
        subprocess.run(
            ["/usr/bin/go", "build", "-o", *self.argv, SOURCES / "login.go"], check=True, env=env, cwd=folder
        )


class NpmSsh2(Login):
    title = "npm: ssh2"
    forwards = True
    cannot = READS_NO_FIDO_KEY
    argv = ("env", f"NODE_PATH={NODE_MODULES}", "node", SOURCES / "login.js")

    def version(self) -> str:
        lines = (NODE_MODULES / "ssh2" / "package.json").read_text().splitlines()
        [version] = [line.split('"')[3] for line in lines if line.startswith('  "version"')]
        return f"ssh2 {version}"


class Paramiko(Login):
    title = "paramiko"
    forwards = True
    cannot = PROVES_NO_HOST
    argv = (sys.executable, SOURCES / "paramiko_login.py")

    def version(self) -> str:
        return f"paramiko {metadata.version('paramiko')}"


class Asyncssh(Login):
    title = "asyncssh"
    forwards = True
    cannot = PROVES_NO_HOST
    argv = (sys.executable, SOURCES / "asyncssh_login.py")

    def version(self) -> str:
        return f"asyncssh {metadata.version('asyncssh')}"


class Twisted(Login):
    title = "Twisted Conch"
    packages = ("python3-twisted",)
    cannot = ENDS_AT_FIDO_KEY
    argv = (_PYTHON, SOURCES / "twisted_login.py")
