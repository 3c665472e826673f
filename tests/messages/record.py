"""Record what OpenSSH's own programs say to each other: run `python tests/messages/record.py` to do it anew.

`record.py new` adds, with OpenSSH 10.6 or later, what older ones do not have, and leaves the rest as it is.

Stands between the real `ssh-add`, `ssh-keygen` and `ssh` and a real `ssh-agent`, and writes the messages, as
they came over the socket but without the length, to `requests/` and `responses/`. Everything happens in a
temporary folder with keys made for the occasion. Needs Debian's openssh-client, openssh-server, openssh-tests
(a FIDO authenticator of software) and softhsm2; logs in to an sshd of its own as the user who runs it.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

FIXTURES = Path(__file__).parent
SOFTHSM = "/usr/lib/softhsm/libsofthsm2.so"
SK_DUMMY = "/usr/lib/openssh/regress/misc/sk-dummy/sk-dummy.so"
PIN = "1234"
KEY_TYPES = {
    "rsa": ("-t", "rsa", "-b", "2048"),
    "ecdsa-nistp256": ("-t", "ecdsa", "-b", "256"),
    "ecdsa-nistp384": ("-t", "ecdsa", "-b", "384"),
    "ecdsa-nistp521": ("-t", "ecdsa", "-b", "521"),
    "ed25519": ("-t", "ed25519"),
    "sk-ecdsa-nistp256": ("-t", "ecdsa-sk", "-w", SK_DUMMY),
    "sk-ed25519": ("-t", "ed25519-sk", "-w", SK_DUMMY),
}
NEW_TYPE = "mldsa44-ed25519"
HOST_KEYS = ("host-ed25519", "host-ecdsa-nistp256", "host-rsa")
REQUESTS = {
    "remove-all-rsa1": 9, "request-identities": 11, "sign": 13, "add": 17, "remove": 18, "remove-all": 19,
    "add-smartcard": 20, "remove-smartcard": 21, "lock": 22, "unlock": 23, "add-constrained": 25,
    "add-smartcard-constrained": 26, "extension": 27,
}  # fmt: skip


class Recorder:
    """The two programs' go-between, and the folder all of it happens in."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.exchanges: list[tuple[bytes, bytes]] = []
        self._upstream = str(home / "agent")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(home / "proxy"))
        self._listener.listen()
        (home / "askpass").write_text(f"#!/bin/sh\necho {PIN}\n")
        (home / "askpass").chmod(0o700)
        self.environment = {
            "HOME": str(home),
            "PATH": os.environ["PATH"],
            "SSH_AUTH_SOCK": str(home / "proxy"),
            "SSH_ASKPASS": str(home / "askpass"),
            "SSH_ASKPASS_REQUIRE": "force",
            "SOFTHSM2_CONF": str(home / "softhsm2.conf"),
        }

    def __enter__(self) -> Recorder:
        self._agent = subprocess.Popen(
            ["ssh-agent", "-D", "-a", self._upstream],
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._agent.stdout is not None
        self._agent.stdout.readline()  # printed when it listens
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._agent.terminate()
        self._agent.wait()

    def _serve(self) -> None:
        while True:
            client, _ = self._listener.accept()
            threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as agent:
            agent.connect(self._upstream)
            requests, responses = client.makefile("rb"), agent.makefile("rb")
            while size := requests.read(4):
                request = requests.read(int.from_bytes(size, "big"))
                agent.sendall(size + request)
                size = responses.read(4)
                response = responses.read(int.from_bytes(size, "big"))
                self.exchanges.append((request, response))
                client.sendall(size + response)

    def run(self, *command: str, failing: bool = False) -> None:
        """Run a program through the go-between, with the exchanges of the last one forgotten."""
        self.exchanges.clear()
        result = subprocess.run(
            command,
            cwd=self.home,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        print("$", *command, "->", result.returncode)
        assert (result.returncode != 0) == failing, result.stderr

    def keep(self, kind: str, name: str = "", *, which: int = 0, response: str = "") -> None:
        """Write the last program's `which`-th request of this kind, and its response if that is named."""
        matching = [exchange for exchange in self.exchanges if exchange[0][0] == REQUESTS[kind]]
        stem = f"{kind}-{name}" if name else kind
        (FIXTURES / "requests" / f"{stem}.bin").write_bytes(matching[which][0])
        if response:
            (FIXTURES / "responses" / f"{response}.bin").write_bytes(matching[which][1])


def make_keys(recorder: Recorder) -> None:
    run = recorder.run
    for name in ("ca", *HOST_KEYS):
        options = KEY_TYPES["ed25519" if name == "ca" else name.removeprefix("host-")]
        run("ssh-keygen", "-q", "-N", "", "-C", name, "-f", name, *options)
    run("ssh-keygen", "-q", "-s", "ca", "-h", "-I", "the host", "-n", "localhost", "host-ed25519.pub")
    for name, options in KEY_TYPES.items():
        run("ssh-keygen", "-q", "-N", "", "-C", f"{name} key", "-f", name, *options)
        run("ssh-keygen", "-q", "-s", "ca", "-I", f"{name} id", "-z", "7", "-n", "alice,bob", "-V",
            "20200101Z:20400101Z", "-O", "source-address=127.0.0.0/8", f"{name}.pub")  # fmt: skip


def record_adding(recorder: Recorder) -> None:
    for name in KEY_TYPES:
        # A certificate beside a key is added with it, as a second request.
        provider = ("-S", SK_DUMMY) if name.startswith("sk-") else ()
        kind = "add-constrained" if provider else "add"
        recorder.run("ssh-add", *provider, name)
        recorder.keep(kind, name, response="success")
        recorder.keep(kind, f"{name}-cert", which=1)
    recorder.run("ssh-add", "-l")
    recorder.keep("request-identities", response="identities-answer")


def record_constraints(recorder: Recorder) -> None:
    host_key = (recorder.home / "host-ed25519.pub").read_text()
    ca = (recorder.home / "ca.pub").read_text()
    (recorder.home / "known").write_text(f"bastion {host_key}@cert-authority *.example.org {ca}")
    restricted = ("-H", "known", "-h", "bastion", "-h", "bastion>alice@inner.example.org")
    for name, options in {
        "lifetime": ("-t", "600"),
        "confirm": ("-c",),
        "destination": restricted,
        "all": ("-t", "1h", "-c", *restricted),
    }.items():
        recorder.run("ssh-add", "-q", *options, "ed25519")
        recorder.keep("add-constrained", name)


def record_signing(recorder: Recorder) -> None:
    (recorder.home / "file").write_text("signed\n")
    for name in KEY_TYPES:
        if not name.startswith("sk-"):
            recorder.run("ssh-keygen", "-Y", "sign", "-n", "test", "-f", f"{name}.pub", "file")
            recorder.keep("sign", name, response=f"sign-{name}")
    recorder.run("ssh-keygen", "-Y", "sign", "-n", "test", "-f", "ed25519-cert.pub", "file")
    recorder.keep("sign", "ed25519-cert", response="sign-ed25519-cert")


def record_removing(recorder: Recorder) -> None:
    recorder.run("ssh-add", "-d", "rsa.pub")
    recorder.keep("remove")
    recorder.run("ssh-add", "-d", "rsa.pub", failing=True)
    recorder.keep("remove", response="failure")
    recorder.run("ssh-add", "-x")
    recorder.keep("lock")
    recorder.run("ssh-add", "-X")
    recorder.keep("unlock")
    recorder.run("ssh-add", "-D")
    recorder.keep("remove-all")
    recorder.keep("remove-all-rsa1")
    recorder.run("ssh-add", "-l", failing=True)
    recorder.keep("request-identities", response="identities-answer-empty")


def record_logins(recorder: Recorder) -> None:
    home = recorder.home
    public = {name: (home / f"{name}.pub").read_text() for name in ("rsa", "ed25519", "ca", *HOST_KEYS)}
    (home / "authorized_keys").write_text(public["rsa"] + public["ed25519"])
    hosts = "".join(f"localhost {public[name]}" for name in HOST_KEYS)
    (home / "known_hosts").write_text(f"{hosts}@cert-authority localhost {public['ca']}")
    recorder.run("ssh-add", "-q", "rsa", "ed25519")

    for name in HOST_KEYS:
        login(recorder, f"HostKey {home}/{name}", "-i", "ed25519.pub", "true")
        recorder.keep("extension", f"session-bind-{name}")
    host_key = f"HostKey {home}/host-ed25519\n"
    certified = f"{host_key}HostCertificate {home}/host-ed25519-cert.pub"
    login(recorder, certified, "-i", "ed25519.pub", "true")
    recorder.keep("extension", "session-bind-host-certificate")
    recorder.keep("sign", "login", response="sign-login")
    login(recorder, certified, "-A", "-i", "ed25519.pub", "ssh-add -l")
    recorder.keep("extension", "session-bind-forwarding", which=-1)

    for name, algorithm in {"sha1": "ssh-rsa", "sha256": "rsa-sha2-256", "sha512": "rsa-sha2-512"}.items():
        accept = f"PubkeyAcceptedAlgorithms={algorithm}"
        login(recorder, host_key + accept, "-o", accept, "-i", "rsa.pub", "true")
        recorder.keep("sign", f"rsa-{name}", response=f"sign-rsa-{name}")


def record_certifying(recorder: Recorder) -> None:
    """An agent that holds a CA's key."""
    recorder.run("ssh-add", "-q", "ca")
    certify = ("ssh-keygen", "-q", "-U", "-s", "ca.pub", "-z", "7")
    user = ("-I", "alice@bastion", "-n", "root,www", "-V", "20200101Z:20400101Z")
    for name in KEY_TYPES:
        recorder.run(*certify, *user, "-O", "source-address=127.0.0.0/8", f"{name}.pub")
        recorder.keep("sign", f"certificate-{name}")
    recorder.run(*certify, "-I", "anybody", "ed25519.pub")
    recorder.keep("sign", "certificate-anybody")
    recorder.run(*certify, "-h", "-I", "a host", "-n", "localhost", "host-ed25519.pub")
    recorder.keep("sign", "certificate-host")


def record_host_keys(recorder: Recorder) -> None:
    """An agent that holds sshd's host keys (HostKeyAgent): a key exchange, and a proof to UpdateHostKeys."""
    home = recorder.home
    public = {name: (home / f"{name}.pub").read_text() for name in HOST_KEYS}
    (home / "known_hosts").write_text(f"localhost {public['host-ed25519']}")
    recorder.run("ssh-add", "-q", "ed25519", "host-ed25519", "host-ecdsa-nistp256")
    served = "".join(f"HostKey {home}/{name}.pub\n" for name in HOST_KEYS[:2])
    update = ("-o", "UpdateHostKeys=yes", "-i", "ed25519.pub", "true")
    login(recorder, f"HostKeyAgent {home}/proxy\n{served}", *update)
    recorder.keep("sign", "key-exchange")
    recorder.keep("sign", "host-key-proof", which=-1)


def login(recorder: Recorder, server_options: str, *arguments: str) -> None:
    home = recorder.home
    (home / "sshd_config").write_text(
        f"AuthorizedKeysFile {home}/authorized_keys\nStrictModes no\nUsePAM no\nPidFile none\n"
        f"PermitRootLogin yes\n{server_options}\n"
    )
    options = {
        "ProxyCommand": f"/usr/sbin/sshd -i -f {home}/sshd_config",
        "BatchMode": "yes",
        "UserKnownHostsFile": f"{home}/known_hosts",
        "IdentitiesOnly": "yes",
        "CertificateFile": "none",
    }
    flags = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    recorder.run("ssh", "-F", "none", *flags, *arguments[:-1], "localhost", arguments[-1])


def record_smartcard(recorder: Recorder) -> None:
    (recorder.home / "tokens").mkdir()
    (recorder.home / "softhsm2.conf").write_text(f"directories.tokendir = {recorder.home}/tokens\n")
    recorder.run("softhsm2-util", "--init-token", "--free", "--label", "token", "--pin", PIN, "--so-pin", PIN)
    recorder.run("ssh-keygen", "-q", "-N", "", "-m", "pkcs8", "-f", "p8", *KEY_TYPES["ecdsa-nistp256"])
    recorder.run(
        "softhsm2-util", "--import", "p8", "--token", "token", "--label", "a key", "--id", "01", "--pin", PIN
    )
    recorder.run("ssh-add", "-s", SOFTHSM)
    recorder.keep("add-smartcard")
    recorder.run("ssh-add", "-l")
    recorder.keep("request-identities", response="identities-answer-smartcard")
    recorder.run("ssh-add", "-e", SOFTHSM)
    recorder.keep("remove-smartcard")
    recorder.run("ssh-add", "-t", "600", "-c", "-s", SOFTHSM)
    recorder.keep("add-smartcard-constrained")


def record_new_type(recorder: Recorder) -> None:
    home, run = recorder.home, recorder.run
    for name in ("ca", NEW_TYPE, f"host-{NEW_TYPE}"):
        run("ssh-keygen", "-q", "-N", "", "-C", f"{name} key", "-f", name, "-t", NEW_TYPE)
    certify = ("ssh-keygen", "-q", "-z", "7", "-V", "20200101Z:20400101Z", "-O", "source-address=127.0.0.0/8")
    run(*certify, "-s", "ca", "-I", f"{NEW_TYPE} id", "-n", "alice,bob", f"{NEW_TYPE}.pub")
    run("ssh-add", "-N", NEW_TYPE)  # else with a lifetime, that of the certificate
    recorder.keep("add", NEW_TYPE)
    recorder.keep("add", f"{NEW_TYPE}-cert", which=1)
    (home / "file").write_text("signed\n")
    run("ssh-keygen", "-Y", "sign", "-n", "test", "-f", f"{NEW_TYPE}.pub", "file")
    recorder.keep("sign", NEW_TYPE, response=f"sign-{NEW_TYPE}")
    (home / "authorized_keys").write_text((home / f"{NEW_TYPE}.pub").read_text())
    (home / "known_hosts").write_text(f"localhost {(home / f'host-{NEW_TYPE}.pub').read_text()}")
    login(recorder, f"HostKey {home}/host-{NEW_TYPE}", "-i", f"{NEW_TYPE}.pub", "true")
    recorder.keep("extension", f"session-bind-host-{NEW_TYPE}")
    run("ssh-add", "-q", "ca")
    run(*certify, "-U", "-s", "ca.pub", "-I", "alice@bastion", "-n", "root,www", f"{NEW_TYPE}.pub")
    recorder.keep("sign", f"certificate-{NEW_TYPE}")


def main() -> None:
    if sys.argv[1:] == ["new"]:
        with tempfile.TemporaryDirectory() as folder, Recorder(Path(folder)) as recorder:
            record_new_type(recorder)
        return
    for folder in ("requests", "responses"):
        shutil.rmtree(FIXTURES / folder, ignore_errors=True)
        (FIXTURES / folder).mkdir()
    with tempfile.TemporaryDirectory() as folder, Recorder(Path(folder)) as recorder:
        make_keys(recorder)
        record_adding(recorder)
        record_signing(recorder)
        record_constraints(recorder)
        record_removing(recorder)
        record_logins(recorder)
        record_smartcard(recorder)
        record_certifying(recorder)
        record_host_keys(recorder)


if __name__ == "__main__":
    main()
