"""A real sshd for one test, which ssh starts at the far end of a pipe: no port, no daemon."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rigs.agent import Agent
from rigs.home import Home
from rigs.key_files import make_key, public_of
from rigs.terminal import Done, eventually

USER = pwd.getpwuid(os.getuid()).pw_name


class Server:
    """A host called `name` with its own key and configuration, on which you log in as yourself."""

    def __init__(self, home: Home, *settings: str, name: str = "host", kind: str = "ed25519") -> None:
        """`kind`: its host key's."""
        self.home = home
        self.name = name
        self._authorized = home.write(f"{name}.authorized_keys", "")
        host_key = make_key(home, f"{name}.key", kind)
        self.host_key = public_of(host_key)
        self.known_hosts = home.write(f"{name}.known_hosts", f"{name} {self.host_key.read_text()}")
        config = [
            f"HostKey {host_key}",
            f"AuthorizedKeysFile {self._authorized}",
            "AuthenticationMethods publickey",
            "PubkeyAcceptedAlgorithms +ssh-rsa",
            "PermitRootLogin yes",
            "StrictModes no",
            f"UsePAM {'yes' if account_is_locked() else 'no'}",
            "Subsystem sftp internal-sftp",
            "LogLevel VERBOSE",
            *settings,
        ]
        self._config = home.write(f"{name}.sshd_config", "\n".join(config) + "\n")
        self._log = home.write(f"{name}.log", "")
        sshd = shutil.which("sshd", path=home.env["PATH"])
        assert sshd
        self._command = [sshd, "-i", "-f", str(self._config), "-E", str(self._log)]
        ssh_config = [
            f"Host {name}",
            f"User {USER}",
            f"ProxyCommand {' '.join(self._command)}",
            f"UserKnownHostsFile {self.known_hosts}",
            "GlobalKnownHostsFile none",
            "BatchMode yes",
            "IdentityFile none",
            "PubkeyAcceptedAlgorithms +ssh-rsa",
        ]
        self.client_config = home.write(f"{name}.ssh_config", "\n".join(ssh_config) + "\n")

    @property
    def log(self) -> str:
        """What sshd wrote to its log so far."""
        return self._log.read_text()

    def authorize(self, *publics: Path) -> None:
        """Lets the owners of these .pub files in, and nobody else."""
        self._authorized.write_text("".join(public.read_text() for public in publics))

    def certify_host(self) -> Path:
        """Gives it a certificate for its name from now on, and returns the .pub file of the CA."""
        ca = self.home.folder / f"{self.name}.ca"
        assert self.home.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", ca).status == 0
        done = self.home.run("ssh-keygen", "-q", "-s", ca, "-I", "id", "-h", "-n", self.name, self.host_key)
        assert done.status == 0, done
        certificate = self.host_key.with_name(f"{self.host_key.stem}-cert.pub")
        self._config.write_text(f"{self._config.read_text()}HostCertificate {certificate}\n")
        return ca.with_name(f"{ca.name}.pub")

    def login(self, agent: Agent, *options: str | Path, command: str = "echo in $LOGNAME") -> Done:
        """Runs `command` on the host by ssh, with the keys of `agent`."""
        return agent.run(*self.ssh(*options, command=command))

    def ssh(self, *options: str | Path, command: str) -> list[str]:
        """ssh's command line to run `command` there; `shlex.join` makes it a command for another host."""
        return ["ssh", "-F", str(self.client_config), *map(str, options), self.name, command]

    @contextmanager
    def listening(self, address: str = "127.0.0.1") -> Iterator[int]:
        """A TCP port of this machine on which it answers, for clients that cannot start it themselves."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.create_server((address, 0), family=family) as listener:
            accepting = threading.Thread(target=self._accept, args=(listener,))
            accepting.start()
            try:
                yield listener.getsockname()[1]
            finally:
                listener.shutdown(socket.SHUT_RDWR)  # which ends accept()
                accepting.join()

    @contextmanager
    def daemon(self) -> Iterator[tuple[str, ...]]:
        """Options of ssh for a daemon, which remembers from where logins fail (PerSourcePenalties)."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [*self._command, "-D", "-p", str(port), "-o", "ListenAddress=127.0.0.1"]
        command.remove("-i")
        with subprocess.Popen(command, stdin=subprocess.DEVNULL) as sshd:
            try:
                eventually(lambda: f"listening on 127.0.0.1 port {port}" in self.log, "sshd listens")
                address = {
                    "ProxyCommand": "none",
                    "HostName": "127.0.0.1",
                    "Port": port,
                    "HostKeyAlias": self.name,
                }
                yield tuple(f"-o{name}={value}" for name, value in address.items())
            finally:
                sshd.terminate()

    def _accept(self, listener: socket.socket) -> None:
        serving = []
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                break
            with client:
                serving.append(subprocess.Popen(self._command, stdin=client, stdout=client))
        for sshd in serving:
            try:
                sshd.wait(10)
            except subprocess.TimeoutExpired:
                sshd.kill()
                sshd.wait()


def only(public: Path) -> tuple[str, ...]:
    """ssh's options to offer this one key, of those in the agent."""
    return ("-o", "IdentitiesOnly=yes", "-i", str(public))


def account_is_locked() -> bool:
    """Whether our account has a locked password, as root's on Ubuntu: without PAM sshd refuses those."""
    try:
        shadow = Path("/etc/shadow").read_text()
    except PermissionError:  # an ordinary user: sshd, run by them, cannot read it either
        return False
    return any(line.startswith(f"{USER}:!") for line in shadow.splitlines())
