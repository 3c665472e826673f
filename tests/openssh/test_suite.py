"""OpenSSH's own regression scripts, from Debian's package openssh-tests, run with the agent under test."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from rigs.home import Home
from rigs.root import may_be_root
from rigs.softhsm import MODULE, PIN, Token
from rigs.sshd import USER
from rigs.terminal import eventually

# Each runs hundreds of programs: on a busy machine that takes minutes.
pytestmark = pytest.mark.timeout(600)

REGRESS = Path("/usr/lib/openssh/regress")
AS_USER = Path(__file__).parent.parent / "rigs" / "as_user.sh"
REPOSITORY = Path(__file__).parent.parent.parent
TESTER, TESTER_UID = "tester", 59999
# The suite's types of keys and signatures that the agent does not hold or make: DSA, and those of browsers.
FOREIGN_TYPES = "^ssh-dss|^webauthn-sk-"
WITH_AN_AGENT = ("agent", "agent-restrict", "agent-subprocess", "agent-timeout", "cert-file", "sshsig")
ON_A_TOKEN = ("agent-pkcs11",)
BY_A_USER = ("agent-getpeereid", "agent-ptrace")
# What later releases than Debian 12's have.
NEWER_WITH_AN_AGENT, NEWER_ON_A_TOKEN = ("pubkey-priority",), ("agent-pkcs11-cert", "agent-pkcs11-restrict")
# One is tested by itself, one only names a variable, and one runs the others.
OTHERS = ("hostkey-agent", "sshcfgparse", "test-exec")


def there(*names: str) -> list[str]:
    """Those of the scripts that this release has."""
    return [name for name in names if (REGRESS / f"{name}.sh").exists()]


@dataclass
class Suite:
    """A copy of the suite's folder, and the agent under test as one executable file in it."""

    home: Home
    folder: Path

    def run(self, name: str, *prefix: str | Path, user: str = USER, **env: str) -> str:
        """Runs one script to its end and returns its output; it has to pass, and not by skipping."""
        script = self.folder / f"{name}.sh"
        assert script.exists(), "OpenSSH's suite has no such script"
        settings = {
            "TEST_SSH_SSHAGENT": str(self.folder / "agent-under-test"),
            "TEST_SHELL": "sh",
            "BUILDDIR": str(self.folder),
            "TEST_SSH_SSH": "ssh",
            "TEST_SSH_OPENSSL": "openssl",
            "TEST_SSH_UNSAFE_PERMISSIONS": "1",
            "SUDO": "",
            "USER": user,
            "LOGNAME": user,
        }
        done = subprocess.run(
            [*prefix, "sh", "./test-exec.sh", self.folder, script],
            cwd=self.folder,
            env=self.home.env | settings | env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        logs = "".join(path.read_text(errors="replace") for path in self.folder.glob("failed-*.log"))[
            -20_000:
        ]
        assert done.returncode == 0, done.stdout + logs[-20_000:]
        assert done.stdout.splitlines()[-1].startswith("ok "), done.stdout
        assert "skip" not in done.stdout.lower(), done.stdout
        eventually(lambda: not self._sockets(), "the end of the script's agents, which it does not await")
        return done.stdout

    def _sockets(self) -> list[Path]:
        return [path for path in self.home.folder.rglob("*") if path.is_socket()]

    def edit(self, name: str, old: str, new: str) -> None:
        """Changes a script of the copy; `old` has to be in it."""
        script = self.folder / name
        text = script.read_text()
        assert old in text
        script.write_text(text.replace(old, new))


@pytest.fixture
def suite(request: pytest.FixtureRequest, home: Home) -> Suite:
    folder = home.folder / "suite"
    shutil.copytree(REGRESS, folder, ignore=shutil.ignore_patterns("unittests", "fuzz-harness"))
    program = request.config.getoption("agent")
    home.write("suite/agent-under-test", f'#!/bin/sh\nexec {program} "$@"\n', 0o755)
    suite = Suite(home, folder)
    suite.edit("test-exec.sh", "$SSH -Q key-plain |", f"$SSH -Q key-plain | grep -Ev '{FOREIGN_TYPES}' |")
    if newer := there(*NEWER_WITH_AN_AGENT):
        _edit_for_later_releases(suite, *newer)
    suite.edit("hostkey-agent.sh", "ssh -Q key-sig |", f"ssh -Q key-sig | grep -Ev '{FOREIGN_TYPES}' |")
    return suite


def _edit_for_later_releases(suite: Suite, priority: str) -> None:
    # It lists the key files that its author has at home, too, as of those types that they have there.
    for kind in ("rsa RSA", "ecdsa ECDSA", "ecdsa_sk ECDSA-SK", "ed25519 ED25519"):
        suite.edit(f"{priority}.sh", f"$HOME/.ssh/id_{kind}\n", "")
    for kind in ("ed25519_sk", "mldsa44_ed25519"):
        suite.edit(f"{priority}.sh", f"$HOME/.ssh/id_{kind} \n", "")
    suite.edit(
        f"{priority}.sh", "<  $OBJ/prio_implicit.out >", "<$OBJ/prio_implicit.out | grep -v /.ssh/id_ >"
    )
    # A signal reaches the agent by way of the process that was started, which takes a moment.
    emptied = "for _ in $(seq 100); do ${SSHADD} -l >/dev/null 2>&1 || break; sleep 0.1; done"
    suite.edit("agent.sh", "kill -s USR1 $SSH_AGENT_PID\n", f"kill -s USR1 $SSH_AGENT_PID && {emptied}\n")


def test_every_script_that_has_an_agent_is_run_here() -> None:
    """The next one is noticed."""
    uses = ("SSHAGENT", "SSH_AUTH_SOCK", "start_ssh_agent")
    found = {path.stem for path in REGRESS.glob("*.sh") if any(word in path.read_text() for word in uses)}
    older = {*WITH_AN_AGENT, *ON_A_TOKEN, *BY_A_USER, *OTHERS}
    newer = {*NEWER_WITH_AN_AGENT, *NEWER_ON_A_TOKEN}
    assert found - newer == older


@pytest.mark.parametrize("name", [*WITH_AN_AGENT, *there(*NEWER_WITH_AN_AGENT)])
def test_scripts(name: str, suite: Suite) -> None:
    suite.run(name)

    # No type is left out: each has a key that the script may use.
    asked = subprocess.run(["ssh", "-Q", "key-plain"], capture_output=True, text=True, check=True).stdout
    for kind in asked.split():
        assert (suite.folder / kind).exists() or re.search(FOREIGN_TYPES, kind), kind


def test_hostkey_agent(suite: Suite) -> None:
    said = suite.run("hostkey-agent", TEST_SSH_QUIET="no")

    for kind in ("sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"):
        assert f"key type {kind}" in said


@pytest.mark.parametrize("name", [*ON_A_TOKEN, *there(*NEWER_ON_A_TOKEN)])
def test_scripts_with_a_token(name: str, suite: Suite) -> None:
    # Debian installs SoftHSM where the script does not look on every architecture.
    for edited in ("agent-pkcs11.sh", "test-exec.sh"):
        if "/usr/local/lib/softhsm/libsofthsm2.so" in (suite.folder / edited).read_text():
            suite.edit(edited, "/usr/local/lib/softhsm/libsofthsm2.so", str(MODULE.resolve()))

    said = suite.run(name, TEST_SSH_QUIET="no", TEST_SSH_TRACE="yes")
    assert f"sing token library {MODULE.resolve()}" in said


def test_sshsig_with_keys_on_a_token(suite: Suite, token: Token) -> None:
    """`ssh-add KEY` puts the key on the token, and adds the token.

    Without the script's certificates: `ssh-add -s` cannot add those before OpenSSH 9.6; and without FIDO.
    """
    suite.edit("sshsig.sh", 'SIGNKEYS="$SIGNKEYS ${t}-cert.pub"', "")
    suite.edit("test-exec.sh", FOREIGN_TYPES, f"{FOREIGN_TYPES}|^sk-")
    suite.home.write("suite/askpass", f"#!/bin/sh\necho {PIN}\n", 0o755)
    ssh_add = suite.home.write("suite/ssh-add", SSH_ADD, 0o755)

    suite.run("sshsig", TEST_SSH_SSHADD=str(ssh_add))


SSH_ADD = f"""#!{sys.executable}
import os, subprocess, sys
from cryptography.hazmat.primitives.serialization import (
    Encoding, NoEncryption, PrivateFormat, load_ssh_private_key)

if sys.argv[1:] and not sys.argv[1].startswith("-"):
    key = load_ssh_private_key(open(sys.argv[1], "rb").read(), None)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    name = os.path.basename(sys.argv[1])
    subprocess.run(
        ["softhsm2-util", "--import", "/dev/stdin", "--token", "work", "--label", name,
         "--id", name.encode().hex(), "--pin", "{PIN}", "--force"],
        input=pem, check=True)
    askpass = os.path.join(os.path.dirname(sys.argv[0]), "askpass")
    os.environ |= {{"SSH_ASKPASS": askpass, "SSH_ASKPASS_REQUIRE": "force"}}
    sys.argv[1:] = ["-s", "{MODULE}"]
os.execvp("ssh-add", ["ssh-add", *sys.argv[1:]])
"""


@pytest.mark.parametrize("name", BY_A_USER)
def test_scripts_for_an_ordinary_user_with_sudo(name: str, suite: Suite) -> None:
    """As root they would skip themselves: so they run as a user that exists in a mount namespace only."""
    if os.getuid() != 0:
        if not may_be_root():
            pytest.skip("needs root, or sudo without a password")
        suite.run(name, SUDO="sudo")
        return
    for path in [suite.home.folder, *suite.home.folder.rglob("*")]:
        os.chown(path, TESTER_UID, TESTER_UID, follow_symlinks=False)
    folder = suite.home.folder / "accounts"
    folder.mkdir(0o755)
    suite.run(
        name,
        "unshare", "--mount",
        "sh", AS_USER, TESTER, str(TESTER_UID), folder, REPOSITORY, sys.base_prefix, "--",
        user=TESTER,
        SUDO="sudo",
    )  # fmt: skip
