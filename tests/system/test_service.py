"""The agent as the unit runs it: in its sandbox, with modules, cards, and those who may use it."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from rigs.agent import PIN_PROMPT
from rigs.home import Home
from rigs.pcscd import OPENSC, YKCS11, Pcscd
from rigs.piv_card import PIN, Card
from rigs.softhsm import Token
from rigs.terminal import Done, eventually
from rigs.udev import YUBIKEY, Udev
from rigs.user_manager import HOME, REPOSITORY, UserManager

BY_IO_URING = REPOSITORY / "tests/rigs/by_io_uring.py"
SOCKET, SERVICE = "replug-agent.socket", "replug-agent.service"
DROP_INS = f".config/systemd/user/{SERVICE}.d"
NO_IDENTITIES = Done(1, "The agent has no identities.\n", "")
LogIn = Callable[..., UserManager]


@pytest.fixture
def set_up(logged_in: LogIn) -> LogIn:
    """Logs in and sets replug up."""

    def log_in_and_set_up(within: Sequence[str] = ()) -> UserManager:
        session = logged_in(within)
        assert session.replug("setup").status == 0
        return session

    return log_in_and_set_up


@pytest.fixture
def session(set_up: LogIn) -> UserManager:
    return set_up()


def turned_away(done: Done) -> bool:
    """Whether ssh-add could connect and got no answer; it may notice when it reads, or by SIGPIPE."""
    return done.out == "" and done.status in (1, 128 + signal.SIGPIPE)


def sign_with_all(session: UserManager) -> None:
    """Signs with every key the agent lists, and lets ssh-add verify."""
    lines = session.ssh_add("-L").out.splitlines()
    assert lines
    for line in lines:
        session.run("tee", "listed.pub", text=line + "\n")
        assert session.ssh_add("-T", "listed.pub") == Done(0, "", "")


def test_softhsm_with_its_tokens_in_the_home(home: Home, set_up: LogIn) -> None:
    token = Token(home)
    token.add("p256")
    token.add("rsa2048")
    conf = home.write("softhsm2-home.conf", f"directories.tokendir = {HOME}/tokens\n", 0o644)
    home.env["SOFTHSM2_CONF"] = str(HOME / conf.name)
    session = set_up()
    assert session.ssh_add("-s", token.module, typing=[(PIN_PROMPT, token.pin)]).status == 0
    sign_with_all(session)
    status = 'Serving 2 keys on token "work"'
    eventually(lambda: session.show(SERVICE, "StatusText") == status, status, 30)


@pytest.mark.parametrize("module", [OPENSC, YKCS11], ids=["opensc", "ykcs11"])
def test_a_smart_card(module: Path, home: Home, set_up: LogIn) -> None:
    with closing(Pcscd(home)) as pcscd:
        pcscd.slot.insert(Card())
        pcscd.await_present()
        session = set_up()
        assert session.ssh_add("-s", module, typing=[(PIN_PROMPT, PIN)]).status == 0
        sign_with_all(session)


def has_vsock() -> bool:
    """Whether this machine's kernel has sockets that lead to the host of a virtual machine."""
    try:
        socket.socket(socket.AF_VSOCK).close()
    except OSError:
        return False
    return True


def test_what_the_service_may_and_may_not_do(home: Home, set_up: LogIn) -> None:
    attempts = {
        "namespaces": "unshare --user true",
        "setuid": "cp /bin/true %t/program && chmod u+s %t/program",
        "io_uring": f"{sys.executable} -I {BY_IO_URING} %t/other",
        "priority": "chrt --fifo 1 true",
        "runtime": "touch %t/written",
        "vsock": f"{sys.executable} -I %h/vsock.py",
    }
    home.write("vsock.py", "import socket\nsocket.socket(socket.AF_VSOCK)\n", 0o644)
    (home.folder / DROP_INS).mkdir(parents=True)
    tried = "".join(f"ExecStartPre=sh -c '{one} && touch %t/{name}.can'\n" for name, one in attempts.items())
    home.write(f"{DROP_INS}/attempts.conf", "[Service]\n" + tried.replace("=sh", "=-sh"), 0o644)
    session = set_up()
    assert session.ssh_add("-l") == NO_IDENTITIES
    done = session.run("sh", "-c", "cd $XDG_RUNTIME_DIR && ls *.can")
    assert done.lines == ["runtime.can", *(["vsock.can"] if has_vsock() else [])]


def test_slow_keys_have_what_others_leave_of_the_processor(session: UserManager, home: Home) -> None:
    """Their process lives as long as one signature: with this key longer than it takes to look."""
    p, q, e = 2**9689 - 1, 2**4423 - 1, 65537  # Mersenne primes
    d = pow(e, -1, (p - 1) * (q - 1))
    public = rsa.RSAPublicNumbers(e, p * q)
    numbers = rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), public)
    key = numbers.private_key(unsafe_skip_rsa_key_validation=True)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    session.run("tee", "slow", text=pem)
    session.run("sh", "-c", "chmod 600 slow && ssh-keygen -y -f slow >slow.pub")
    assert session.ssh_add("-q", "slow").status == 0

    def niceness() -> set[int]:
        found = set()
        for pid in session.processes():
            with suppress(ProcessLookupError, FileNotFoundError):
                if Path(f"/proc/{pid}/comm").read_text() == "replug-agent\n":
                    found.add(os.getpriority(os.PRIO_PROCESS, pid))
        return found

    assert niceness() == {0}
    agent = {"SSH_AUTH_SOCK": session.environment()["SSH_AUTH_SOCK"]}
    session.start("timeout", "60", "sh", "-c", "while ssh-add -T slow.pub; do :; done", env=agent)
    eventually(lambda: niceness() == {0, 10}, "the process of slow keys leaves room to others", 60)


def test_it_takes_no_user_namespace(session: UserManager) -> None:
    """It would belong to the user, whose programs could read what the agent refuses them."""
    assert session.ssh_add("-l") == NO_IDENTITIES
    own = os.readlink("/proc/self/ns/user")
    main = session.show(SERVICE, "MainPID")
    found = session.run("sh", "-c", f"readlink /proc/{main}/ns/user", as_root=True)
    assert found == Done(0, own + "\n", "")


def test_in_a_user_namespace_it_says_what_that_means(home: Home, set_up: LogIn) -> None:
    """The unit of 0.1.0 stays in place when the program is upgraded, and a user may have added the line."""
    (home.folder / DROP_INS).mkdir(parents=True)
    home.write(f"{DROP_INS}/users.conf", "[Service]\nPrivateUsers=yes\n", 0o644)
    session = set_up()
    agent = {"SSH_AUTH_SOCK": session.environment()["SSH_AUTH_SOCK"]}
    assert session.ssh_add("-l") == NO_IDENTITIES
    assert "other programs of yours can read PINs and keys" in session.replug("status", env=agent).out
    assert "fail memory: other programs of yours can read" in session.replug("doctor", env=agent).out
    (home.folder / DROP_INS / "users.conf").unlink()
    assert session.systemctl("daemon-reload").status == 0
    assert session.systemctl("stop", SERVICE).status == 0
    assert session.ssh_add("-l") == NO_IDENTITIES
    assert "other programs of yours" not in session.replug("status", env=agent).out
    assert "ok   memory: no other program of yours can read" in session.replug("doctor", env=agent).out


def test_it_learns_where_a_program_wants_to_be_asked(home: Home, set_up: LogIn) -> None:
    lines = (
        "import sys; from replug.token.prompts.environment import environment_of; "
        "print(environment_of(int(sys.argv[1])).get(sys.argv[2]))"
    )
    (home.folder / DROP_INS).mkdir(parents=True)
    ask = f"'{sys.executable}' -I -c '{lines}'"
    home.write(
        f"{DROP_INS}/ask.conf",
        "[Service]\n"
        f'ExecStartPre=sh -c "{ask} $$PPID SHELL >%t/seen"\n'
        f'ExecStartPre=sh -c "{ask} 999999999 SHELL >%t/gone"\n',
        0o644,
    )
    session = set_up()
    assert session.ssh_add("-l") == NO_IDENTITIES
    seen = {name: session.run("cat", session.runtime / name).out for name in ("seen", "gone")}
    assert seen == {"seen": "/bin/sh\n", "gone": "None\n"}


def test_a_prompt_reaches_a_desktop_that_came_after_the_agent(home: Home, set_up: LogIn) -> None:
    """X11's socket is in /tmp, Wayland's and D-Bus's in the runtime folder."""
    token = Token(home)
    token.add("p256")
    display = home.folder / "tmp" / "display"
    home.write(
        "askpass",
        f"#!{sys.executable} -I\n"
        "import os, socket\n"
        f"for path in ({str(display)!r}, os.environ['XDG_RUNTIME_DIR'] + '/bus'):\n"
        "    socket.socket(socket.AF_UNIX).connect(path)\n"
        f"print({token.pin!r})\n",
        0o755,
    )
    session = set_up()
    session.systemctl("set-environment", f"SSH_ASKPASS={HOME}/askpass", "DISPLAY=:7")
    assert session.ssh_add("-s", token.module, typing=[(PIN_PROMPT, "")]).status == 0
    with socket.socket(socket.AF_UNIX) as desktop:
        desktop.bind(str(display))
        desktop.listen()
        display.chmod(0o666)
        session.run("cp", "p256.pub", "listed.pub")
        assert session.ssh_add("-T", "listed.pub") == Done(0, "", "")


def test_udevs_events_arrive(home: Home, set_up: LogIn, request: pytest.FixtureRequest) -> None:
    lines = ("from pyudev import Context, Monitor; monitor = Monitor.from_netlink(Context()); "
             "monitor.start(); device = monitor.poll(20); print(device and device.action)")  # fmt: skip
    (home.folder / DROP_INS).mkdir(parents=True)
    wait = f"[Service]\nExecStartPre=sh -c \"'{sys.executable}' -I -c '{lines}' >%t/event\"\n"
    home.write(f"{DROP_INS}/wait.conf", wait, 0o644)
    with closing(Udev(home, request.config.getoption("agent"))) as udev:
        session = set_up(udev.enter)
        udev.listener()  # the service manager
        session.systemctl("start", "--no-block", SERVICE)
        eventually(lambda: len(udev.listeners()) == 2, "the program listens")
        udev.send(YUBIKEY.event("add"))
        eventually(lambda: session.show(SERVICE, "ActiveState") == "active", "it goes on", 30)
        assert session.run("cat", session.runtime / "event").out == "add\n"
        eventually(lambda: len(udev.listeners()) == 2, "the agent listens")
        session.log_out()


def test_root_may_use_it_and_a_third_user_may_not(session: UserManager) -> None:
    """Even where file modes let them."""
    agent = {"SSH_AUTH_SOCK": session.environment()["SSH_AUTH_SOCK"]}
    third = ("setpriv", "--reuid=7", "--clear-groups")
    assert session.run("ssh-add", "-l", env=agent, as_root=True) == NO_IDENTITIES
    assert session.run(*third, "ssh-add", "-l", env=agent, as_root=True).status == 2
    session.run("chmod", "0666", agent["SSH_AUTH_SOCK"])
    session.run("chmod", "0711", session.runtime, session.runtime / "replug")
    assert turned_away(session.run(*third, "ssh-add", "-l", env=agent, as_root=True))
    assert session.ssh_add("-l") == NO_IDENTITIES


def test_it_has_sockets_for_some_of_the_keys_from_the_login_on(session: UserManager, home: Home) -> None:
    """Within its sandbox; and they go with it."""
    paths = [session.runtime / "replug" / "dev.sock", HOME / "views" / "home.sock"]
    home.write(
        ".config/replug/config.toml",
        'modules = []\n[[socket]]\npath = "$XDG_RUNTIME_DIR/replug/dev.sock"\nkeys = "*"\n'
        '[[socket]]\npath = "~/views/home.sock"\nkeys = "*"\n',
        0o644,
    )
    assert session.systemctl("add-wants", "default.target", SERVICE).status == 0
    session.log_out()
    session.log_in()

    def there() -> list[Done]:
        return [session.run("ssh-add", "-l", env={"SSH_AUTH_SOCK": str(path)}) for path in paths]

    assert there() == [NO_IDENTITIES] * 2
    assert session.systemctl("stop", SERVICE).status == 0
    assert [done.status for done in there()] == [2, 2]
    assert not (home.folder / "views" / "home.sock").exists()


def test_a_broken_configuration_turns_clients_away_and_can_be_mended(
    session: UserManager, home: Home
) -> None:
    """However often it is tried: the socket stays, or the session had no agent after the mending either."""
    configuration = home.write(".config/replug/config.toml", "nonsense\n", 0o644)
    for _ in range(8):
        assert turned_away(session.ssh_add("-l"))
    configuration.unlink()
    assert session.ssh_add("-l") == NO_IDENTITIES
    assert session.show(SOCKET, "ActiveState") == "active"


def test_a_reload_that_is_refused_fails_and_it_is_said_which_settings_hold(
    session: UserManager, home: Home
) -> None:
    agent = {"SSH_AUTH_SOCK": session.environment()["SSH_AUTH_SOCK"]}
    configuration = home.write(
        ".config/replug/config.toml", 'modules = []\nforget_pin_on = ["removal"]\n', 0o644
    )
    assert session.ssh_add("-l") == NO_IDENTITIES
    configuration.write_text("modules = []\nforget_pin_on = 3\n")
    found = session.replug("doctor", env=agent).out
    assert "warn config: " not in found
    done = session.systemctl("reload", SERVICE)
    assert done.status == 1
    assert "Job for replug-agent.service failed" in done.err
    done = session.replug("reload", env=agent)
    assert done.status == 1
    refused, holds = done.err.splitlines()
    assert "config.toml:2: forget_pin_on must be " in refused
    assert re.fullmatch(r"replug: the settings read at [\d:]{8} remain in force", holds)

    said = session.replug("status", env=agent).out
    assert re.search(
        r"^  config.toml is refused since [\d:]{8}: .*config.toml:2: forget_pin_on must be", said, re.M
    )
    assert re.search(
        r"^  the settings read at .* remain in force; PINs are forgotten on: removal$", said, re.M
    )
    found = session.replug("doctor", env=agent).out
    assert re.search(r"^fail config: the running agent has the settings that it read at .*, and has refused"
                     r" the file since .*; fix: correct the file; replug reload$", found, re.M)  # fmt: skip
    # The line for systemctl is sent every two seconds at most.
    eventually(lambda: "is refused" in session.show(SERVICE, "StatusText"), "systemctl status says so")

    configuration.write_text('modules = []\nforget_pin_on = ["suspend"]\n')
    assert "has refused the file since" in session.replug("doctor", env=agent).out
    assert session.systemctl("reload", SERVICE) == Done(0, "", "")
    assert "refused" not in session.replug("status", env=agent).out
    configuration.write_text('modules = []\nforget_pin_on = ["removal"]\n')
    found = session.replug("doctor", env=agent).out
    assert "warn config: " in found
    assert "was changed after the agent had read it; fix: replug reload" in found


def test_all_that_others_may_change_is_named_in_one_line(session: UserManager, home: Home) -> None:
    configuration = home.write(".config/replug/config.toml", "modules = []\n", 0o666)
    for name in (".config", ".config/replug"):
        (home.folder / name).chmod(0o777)
    assert turned_away(session.ssh_add("-l"))
    agent = {"SSH_AUTH_SOCK": session.environment()["SSH_AUTH_SOCK"]}
    found = session.replug("doctor", env=agent).out
    cure = f"chmod go-w {HOME}/.config/replug/config.toml {HOME}/.config/replug {HOME}/.config"
    assert re.search(rf"^fail config: .*; fix: {re.escape(cure)}$", found, re.M)
    assert session.run("sh", "-c", cure).status == 0
    assert session.ssh_add("-l") == NO_IDENTITIES
    assert configuration.stat().st_mode & 0o777 == 0o644


def test_stopping_it_leaves_the_socket(session: UserManager) -> None:
    assert session.ssh_add("-l") == NO_IDENTITIES
    assert session.systemctl("stop", SERVICE).status == 0
    assert session.show(SERVICE, "Result") == "success"
    assert session.ssh_add("-l") == NO_IDENTITIES
