"""`make demo`: replug's main job, done before your eyes in a shell on a terminal of its own.

A SoftHSM token is made in a temporary folder; replug-agent, ssh-add, ssh, sshd and ssh-keygen are the real
programs. Then a virtual card is pulled out and put back, with OpenSSH's agent and with this one. It ends with
0 only if every command did what it should, and leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from rigs.agent import PIN_PROMPT, descendants
from rigs.home import Home
from rigs.shell import PATIENCE, Shell, UnexpectedError, say
from rigs.softhsm import MODULE, PIN, SO_PIN
from rigs.sshd import USER, account_is_locked
from rigs.unpacked import NotAllowedError, among_them

COMPARISON = Path(__file__).with_name("smartcard") / "side_by_side.py"
PR_SET_CHILD_SUBREAPER = 36

PERMANENT = """\
To keep it:
  pipx install .
  replug setup                                                     # from the next login on
  export SSH_AUTH_SOCK="$XDG_RUNTIME_DIR/replug/agent.sock"        # in this shell already
"""


@contextlib.contextmanager
def sshd(home: Home) -> Iterator[None]:
    """An sshd of our own on the loopback, and an ssh_config in which it is called `demo`."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", home.folder / "host_key"], check=True
    )
    host_key = (home.folder / "host_key.pub").read_text()
    home.write("known_hosts", f"[127.0.0.1]:{port} {host_key}")
    config = home.write(
        "sshd_config",
        f"""ListenAddress 127.0.0.1
Port {port}
HostKey {home.folder}/host_key
AuthorizedKeysFile {home.folder}/authorized_keys
AuthenticationMethods publickey
PermitRootLogin yes
StrictModes no
UsePAM {"yes" if account_is_locked() else "no"}
PidFile none
""",
    )
    home.write(
        "ssh_config",
        f"""Host demo
HostName 127.0.0.1
Port {port}
User {USER}
UserKnownHostsFile {home.folder}/known_hosts
GlobalKnownHostsFile none
IdentityFile none
BatchMode yes
""",
    )
    program = shutil.which("sshd", path=home.env["PATH"])
    if program is None:
        raise UnexpectedError("there is no sshd here")
    log = home.folder / "sshd.log"
    server = subprocess.Popen([program, "-D", "-f", config, "-E", log], stdin=subprocess.DEVNULL)
    try:
        end = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
                break
            if server.poll() is not None or time.monotonic() > end:
                raise UnexpectedError(f"sshd does not listen: {log.read_text()}")
            time.sleep(0.02)
        yield
    finally:
        server.terminate()
        server.wait()


def demonstrate(home: Home, cleanup: contextlib.ExitStack) -> None:
    """The session, from an empty folder to a verified signature."""
    shell = Shell(home)
    cleanup.callback(shell.close)

    say("A token. This one is software; a YubiKey or an HSM is used in the same way.")
    shell.run(f"softhsm2-util --init-token --free --label work --pin {PIN} --so-pin {SO_PIN}")

    say("The agent, started as you start ssh-agent.")
    shell.run("eval $(replug-agent -s)", expect=r"^Agent pid \d+")

    say("A key, made on the token.")
    shell.run(
        f"replug keygen 'pkcs11:token=work?module-path={MODULE}' --label my-key",
        answer=("PIN: ", PIN),
        expect=r"\necdsa-sha2-nistp256 \S+ my-key\n",
    )

    say("The token's keys, added with ssh-add.")
    shell.run(f"ssh-add -s {MODULE}", answer=(PIN_PROMPT, PIN), expect=f"Card added: {MODULE}")
    shell.run("ssh-add -l", expect=r"^256 SHA256:\S+ my-key \(ECDSA\)\n$")
    shell.run("replug status", expect=r'"work".* ready')

    say("A login, to an sshd of our own on the loopback that knows only this key.")
    shell.run("ssh-add -L | tee authorized_keys my-key.pub", expect=r"^ecdsa-sha2-nistp256 \S+ my-key\n$")
    cleanup.enter_context(sshd(home))
    shell.run(
        "ssh -F ssh_config demo 'echo \"Hello, $LOGNAME, from the other side.\"'",
        expect=rf"^Hello, {re.escape(USER)}, from the other side\.\n$",
    )

    say("A file, signed with the key on the token and verified with its public half.")
    shell.run("echo 'I owe you a coffee.' > letter")
    shell.run("ssh-keygen -Y sign -f my-key.pub -n file letter")
    shell.run('echo "me@example.com $(cat my-key.pub)" > allowed_signers')
    shell.run(
        "ssh-keygen -Y verify -f allowed_signers -I me@example.com -n file -s letter.sig < letter",
        expect='^Good "file" signature for me@example.com with ECDSA key SHA256:',
    )

    shell.run("eval $(replug-agent -k)", expect=r"^Agent pid \d+ killed")


def compare(unpacked: Path) -> None:
    """The card that comes and goes, where there can be one, with packages that are only unpacked."""
    try:
        command = [*among_them(unpacked), sys.executable, COMPARISON]
    except NotAllowedError as error:
        say(f"Not shown: a card that is pulled out and put back. {error}")
        return
    # In a session of its own, lest Ctrl-C end it twice: it has to clean up.
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True) as comparison:
        try:
            status = comparison.wait()
        except BaseException:
            comparison.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                comparison.wait(PATIENCE)
            comparison.kill()
            raise
    if status != 0:
        raise UnexpectedError("the comparison on a card failed")


def end_all() -> None:
    """Ends everything we started; what detached itself, as the agent did, came back to us as its reaper."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        end = time.monotonic() + 5
        while running := descendants(os.getpid()):
            for process in running:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, sign)
            if time.monotonic() > end:
                break
            time.sleep(0.05)


def main(unpacked: Path) -> int:
    """Runs the demonstration, with the packages in the folder `unpacked`; the exit status."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.default_int_handler)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        with contextlib.ExitStack() as cleanup:
            home = Home()
            cleanup.callback(home.remove)
            cleanup.callback(end_all)
            demonstrate(home, cleanup)
            compare(unpacked)
    except UnexpectedError as error:
        print(f"\nmake demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nmake demo: stopped; everything is cleaned up", file=sys.stderr)
        return 130
    print(f"\n{PERMANENT}", end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
