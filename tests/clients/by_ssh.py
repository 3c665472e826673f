"""Programs that run OpenSSH's ssh."""

from __future__ import annotations

import json
import shlex
import subprocess
from base64 import b64decode
from pathlib import Path

from clients.client import Client
from clients.user import Visit
from rigs.terminal import Done


class BySsh(Client):
    by_ssh = True


class Git(BySsh):
    title = "git: clone, a signed commit, push"
    packages = ("git",)

    def bring(self, visit: Visit) -> str:
        there, here = visit.home.folder / "there.git", visit.home.folder / "here"
        self._configure(visit)
        self._git(visit, "init", "-q", "--bare", there)
        self._git(visit, "clone", "-q", f"host:{there}", here)
        name = visit.home.write("here/document", visit.user.document.read_text()).name
        self._git(visit, "-C", here, "add", name)
        # Its signature is no login, so a key for certain hosts makes none.
        signing = () if visit.is_restricted else ("-S",)
        self._git(visit, "-C", here, "commit", "-q", *signing, "-m", "brought")
        self._git(visit, "-C", here, "push", "-q", "origin", "HEAD:main")
        if signing:
            self._git(visit, "-C", there, "verify-commit", "main")
        brought = self._git(visit, "-C", there, "show", "main:document")
        visit.run("rm", "-r", here, there)
        return brought.out

    def _git(self, visit: Visit, *arguments: str | Path) -> Done:
        return visit.run("git", *arguments, env={"GIT_SSH_COMMAND": shlex.join(visit.ssh)})

    def _configure(self, visit: Visit) -> None:
        allowed = visit.home.write("allowed_signers", f"me@example.com {visit.public.read_text()}")
        visit.home.write(
            ".gitconfig",
            f"""
            [user]
                name = Me
                email = me@example.com
                signingkey = {visit.public}
            [gpg]
                format = ssh
            [gpg "ssh"]
                allowedSignersFile = {allowed}
            """,
        )


class Ansible(BySsh):
    title = "ansible: ping, slurp"
    packages = ("ansible-core",)

    def bring(self, visit: Visit) -> str:
        assert self._module(visit, "ping") == {"changed": False, "ping": "pong"}
        content = self._module(visit, "slurp", "-a", f"src={visit.user.document}")["content"]
        return b64decode(str(content)).decode()

    def _module(self, visit: Visit, *module: str) -> dict[str, object]:
        """Runs one on the host; what it returns."""
        # No connection is kept for the next visit, which has another key.
        arguments = shlex.join([*visit.ssh[1:], "-o", "ControlPath=none"])
        done = visit.run(
            "ansible", "-i", "host,", "host", "-o", "-m", *module,
            "-e", f"ansible_python_interpreter=/usr/bin/python3 ansible_ssh_common_args='{arguments}'",
            env={"ANSIBLE_SSH_ARGS": "", "ANSIBLE_PIPELINING": "1", "ANSIBLE_NOCOLOR": "1"},
        )  # fmt: skip
        assert done.out.startswith("host | SUCCESS => "), done
        result: dict[str, object] = json.loads(done.out.partition(" => ")[2])
        return result


class Sshfs(BySsh):
    title = "sshfs"
    packages = ("sshfs",)

    def bring(self, visit: Visit) -> str:
        here = visit.home.folder / "mounted"
        here.mkdir(exist_ok=True)
        visit.run(
            "sshfs", f"host:{visit.user.document.parent}", here, "-o", f"ssh_command={shlex.join(visit.ssh)}"
        )
        try:
            return (here / visit.user.document.name).read_text()
        finally:
            subprocess.run(["umount", here], check=True)


class Rsync(BySsh):
    title = "rsync"
    packages = ("rsync",)

    def bring(self, visit: Visit) -> str:
        copy = visit.home.folder / "copy"
        visit.run("rsync", "-e", shlex.join(visit.ssh), f"host:{visit.user.document}", copy)
        text = copy.read_text()
        copy.unlink()
        return text


class Keychain(BySsh):
    title = "keychain, which takes over the agent at SSH_AUTH_SOCK"
    packages = ("keychain",)

    def bring(self, visit: Visit) -> str:
        login = shlex.join([*visit.ssh, "host", visit.command])
        script = f'eval "$(keychain --quiet --noask --inherit any --eval)" && {login}'
        return visit.run("bash", "-c", script).out
