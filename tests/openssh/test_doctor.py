"""`replug doctor`, with real agents, sockets, modules and settings that are wrong."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from pathlib import Path

import pytest
from rigs.agent import OPENSSH, Agent, StartAgent
from rigs.doctor import REPLUG, Diagnosis
from rigs.home import Home
from rigs.key_files import make_key
from rigs.softhsm import MODULE, PIN, Token
from rigs.sshd import Server
from rigs.terminal import eventually

SSH_ASKPASS = Path("/usr/bin/ssh-askpass")  # OpenSSH's default, which a machine may have or not

# SSH_AUTH_SOCK.


def test_the_agent_answers(home: Home, agent: Agent) -> None:
    found = Diagnosis(home, env=agent.env)
    assert found["agent"].reason == f"replug-agent (pid {agent.process.pid}) answers at {agent.socket}"
    assert (found["agent"].outcome, found["keys"].outcome) == ("ok", "warn")


def test_the_agent_cannot_be_asked(home: Home, agent: Agent) -> None:
    assert agent.alive()
    agent.control.unlink()
    found = Diagnosis(home, env=agent.env)["agent"]
    assert found.outcome == "fail"
    assert found.reason.startswith(f"replug-agent answers at {agent.socket}, but not at its control socket")


def test_no_socket_is_named(home: Home) -> None:
    found = Diagnosis(home)["agent"]
    assert (found.outcome, found.reason) == ("fail", "SSH_AUTH_SOCK is not set")
    assert "replug-agent" in found.fix


def test_the_systemd_socket_is_offered_where_there_is_one(home: Home) -> None:
    folder = home.folder / "run" / "replug"
    folder.mkdir()
    home.run(
        "python3", "-c", f"import socket; socket.socket(socket.AF_UNIX).bind({str(folder / 'agent.sock')!r})"
    )
    assert Diagnosis(home)["agent"].fix == 'export SSH_AUTH_SOCK="$XDG_RUNTIME_DIR/replug/agent.sock"'


def test_the_socket_is_gone(home: Home) -> None:
    found = Diagnosis(home, env={"SSH_AUTH_SOCK": "/nowhere/agent"})["agent"]
    assert (found.outcome, found.reason) == ("fail", "/nowhere/agent does not exist")


def test_the_agent_is_dead(home: Home) -> None:
    """Killed, it leaves its socket behind."""
    agent = Agent(OPENSSH, home)
    agent.process.kill()
    agent.process.wait()
    agent.stop()
    assert agent.socket.is_socket()
    found = Diagnosis(home, env=agent.env)["agent"]
    assert (found.outcome, found.reason) == (
        "fail", f"{agent.socket} is a stale socket: no agent listens there"
    )  # fmt: skip


def test_another_agent_answers(home: Home, start_agent: StartAgent) -> None:
    other = start_agent(program=OPENSSH)
    found = Diagnosis(home, env=other.env)["agent"]
    assert (found.outcome, found.reason) == (
        "fail", f"SSH_AUTH_SOCK is {other.socket}, where OpenSSH's ssh-agent answers"
    )  # fmt: skip


def test_gpg_agent_answers(home: Home) -> None:
    folder = home.folder / "gnupg"
    folder.mkdir(mode=0o700)
    env = {"GNUPGHOME": str(folder)}
    started = subprocess.Popen(
        ["gpg-agent", "--daemon", "--no-detach", "--enable-ssh-support"],
        env=home.env | env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        path = home.run("gpgconf", "--list-dirs", "agent-ssh-socket", env=env).out.strip()
        eventually(Path(path).is_socket, "gpg-agent listens")
        found = Diagnosis(home, env={"SSH_AUTH_SOCK": path})["agent"]
    finally:
        started.kill()
        started.wait()
    assert (found.outcome, found.reason) == (
        "fail", f"SSH_AUTH_SOCK is {path}, where GnuPG's gpg-agent answers"
    )  # fmt: skip


def test_another_program_listens(home: Home) -> None:
    path = home.folder / "echo.sock"
    program = (
        "import socket, sys\n"
        "server = socket.socket(socket.AF_UNIX); server.bind(sys.argv[1]); server.listen()\n"
        "print(flush=True)\n"
        "client = server.accept()[0]; client.send(b'220 mail ready')\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        ["python3", "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        process.stdout.readline()
        found = Diagnosis(home, env={"SSH_AUTH_SOCK": str(path)})["agent"]
    assert (found.outcome, found.reason) == (
        "fail",
        f"the program that listens at {path} is not an ssh agent",
    )


def test_the_agent_does_not_start(home: Home) -> None:
    """systemd listens at the agent's socket, and closes connections without an answer."""
    path = home.folder / "replug" / "agent.sock"
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        closing = threading.Thread(target=lambda: server.accept()[0].close())
        closing.start()
        environment = {"SSH_AUTH_SOCK": str(path), "XDG_RUNTIME_DIR": str(home.folder)}
        found = Diagnosis(home, env=environment)["agent"]
        closing.join()
    assert (found.outcome, found.reason, found.fix) == (
        "fail",
        f"{path} is closed without an answer: no agent starts there",
        "correct what replug logs shows; systemctl --user restart replug-agent.socket",
    )


def test_its_output_is_read_in_part(home: Home) -> None:
    done = home.run("sh", "-c", f"({REPLUG} doctor; echo $? >status) | true")
    assert (done.status, done.err) == (0, "")
    assert (home.folder / "status").read_text() == "141\n"


def test_a_forwarded_agent_answers(home: Home, agent: Agent, server: Server) -> None:
    key = home.folder / "key"
    assert home.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).status == 0
    server.authorize(key.with_suffix(".pub"))
    done = server.login(agent, "-A", "-i", key, command=f"{REPLUG} doctor")
    [line] = [line for line in done.out.splitlines() if " agent: " in line]
    assert "where an agent forwarded from another machine, by sshd answers" in line


# ssh's configuration.


def test_ssh_is_sent_to_another_agent(home: Home, agent: Agent) -> None:
    (home.folder / ".ssh").mkdir(exist_ok=True)
    home.write(".ssh/config", "Include more\nHost here\n  IdentityAgent SSH_AUTH_SOCK\n")
    home.write(
        ".ssh/more", 'Host work *.work\n\tIdentityAgent="~/other.sock"\nHost own\n  identityagent none\n'
    )
    found = Diagnosis(home, env=agent.env).all("ssh-config")
    assert [one.outcome for one in found] == ["warn", "warn"]
    assert found[0].reason == (
        f"for work *.work, ssh uses ~/other.sock instead of SSH_AUTH_SOCK ({home.folder}/.ssh/more:2)"
    )
    assert found[1].reason.startswith("for own, ssh uses no agent (")


@pytest.mark.parametrize(
    "value", ["SSH_AUTH_SOCK", "$SSH_AUTH_SOCK", "${SSH_AUTH_SOCK}", "~/{name}", "%d/{name}"]
)
def test_ssh_may_be_sent_to_this_agent(home: Home, agent: Agent, value: str) -> None:
    (home.folder / ".ssh").mkdir(exist_ok=True)
    home.write(".ssh/config", f"IdentityAgent {value.replace('{name}', agent.socket.name)}\n")
    assert Diagnosis(home, env=agent.env).all("ssh-config") == []


def test_sockets_for_some_of_the_keys_are_no_other_agents(home: Home, start_agent: StartAgent) -> None:
    narrow, usual = home.folder / "narrow.sock", home.folder / "run/replug.sock"
    home.configure(
        f'modules = []\n[[socket]]\npath = "{narrow}"\nkeys = "mistyped*"\n[[key]]\nmatch = ["a", "here"]\n'
    )
    agent = start_agent()
    assert agent.ssh_add(make_key(home, "here")).status == 0
    for end in ("", ".control"):
        os.link(f"{agent.socket}{end}", f"{usual}{end}")
    (home.folder / ".ssh").mkdir(exist_ok=True)
    home.write(".ssh/config", "IdentityAgent ~/narrow.sock\n")
    assert Diagnosis(home, env=agent.env).all("ssh-config") == []
    found = Diagnosis(home, env={"SSH_AUTH_SOCK": str(narrow)})["agent"]
    assert (found.outcome, found.fix) == ("warn", f"export SSH_AUTH_SOCK={usual}")
    assert found.reason.startswith(f"SSH_AUTH_SOCK is {narrow}, a [[socket]] for some of the keys")
    [named] = Diagnosis(home, env=agent.env).all("named")
    assert named.reason == "no key that is listed now is named by a [[socket]] with keys = mistyped*"


# Keys and modules.


@pytest.fixture
def token(home: Home) -> Token:
    return Token(home)


def test_too_many_keys(home: Home, token: Token, agent: Agent) -> None:
    for number in range(6):
        token.add("ed25519", f"key{number}")
        if number == 4:
            assert agent.add_provider(MODULE, PIN).status == 0
            assert Diagnosis(home, env=agent.env)["keys"].outcome == "ok"
    assert agent.add_provider(MODULE, PIN).status == 0
    found = Diagnosis(home, env=agent.env)["keys"]
    assert found.outcome == "warn"
    assert "6 keys" in found.reason
    assert "Too many authentication failures" in found.reason
    assert "[[key]]" in found.fix
    home.configure('modules = []\n[[key]]\nmatch = "key0"\nhosts = "host"')
    found = Diagnosis(home, env=agent.env)["keys"]
    assert (found.outcome, found.reason) == (
        "ok",
        "the agent offers 6 keys, 5 of them to hosts without a rule",
    )
    home.configure('modules = []\n[[key]]\nmatch = "key0"\nconfirm = true')
    assert Diagnosis(home, env=agent.env)["keys"].outcome == "warn"


def test_a_locked_agent(home: Home, agent: Agent) -> None:
    agent.ssh_add("-x", typing=[("Enter lock password: ", "x"), ("Again: ", "x")])
    assert Diagnosis(home, env=agent.env)["keys"].fix == "ssh-add -X"


def test_a_module_outside_the_list(home: Home, start_agent: StartAgent) -> None:
    module = home.folder / "module.so"
    shutil.copy(MODULE, module)
    found = Diagnosis(home, module)["module"]
    assert found.outcome == "fail"
    assert found.reason == f"{module} is not in the list of allowed modules (/usr/lib*/*,/usr/local/lib*/*)"
    assert found.fix.startswith("replug-agent -P ")
    agent = start_agent("-P", f"{home.folder}/*")
    assert Diagnosis(home, module, env=agent.env)["module"].outcome == "ok"


def test_the_list_and_the_modules_are_those_of_the_configuration(home: Home) -> None:
    """With no agent that could be asked."""
    module = home.folder / "module.so"
    shutil.copy(MODULE, module)
    home.configure(f'allowed_modules = "/nowhere/*"\nmodules = "{module}"')
    found = Diagnosis(home)["module"]
    assert (found.outcome, found.reason) == (
        "fail", f"{module} is not in the list of allowed modules (/nowhere/*)"
    )  # fmt: skip
    home.configure(f'allowed_modules = "{home.folder}/*"\nmodules = "{module}"')
    assert Diagnosis(home)["module"].reason == f"{module} is allowed"


def test_modules_that_are_none(home: Home) -> None:
    text = home.write("text.so", "no module")
    found = Diagnosis(home, "/nowhere.so", text, "pkcs11:token", "pkcs11:?module-name=nowhere").all("module")
    assert [one.outcome for one in found] == ["fail"] * 4
    assert found[0].reason == "/nowhere.so: No such file or directory"
    assert found[1].reason == f"{text} is not a shared library"
    assert found[2].reason.startswith("pkcs11:token is not a PKCS#11 URI: ")
    assert "no module nowhere is installed" in found[3].reason


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("use_pin_caching = true;", "send a PIN again"),
        ("pin_cache_ignore_user_consent = true;", "require the PIN at every use"),
        ("connect_exclusive = true;", "locks all others out of the card"),
        ("disconnect_action = reset;", "resets the card"),
    ],
)
def test_settings_of_opensc_that_surprise(home: Home, setting: str, words: str) -> None:
    file = home.write("opensc.conf", "app default {\n  framework pkcs15 {\n    " + setting + "\n  }\n}\n")
    found = Diagnosis(home, env={"OPENSC_CONF": str(file)})["opensc"]
    assert found.outcome == "warn"
    assert words in found.reason
    file.write_text(f"app default {{\n  # {setting}\n}}\n")
    assert Diagnosis(home, env={"OPENSC_CONF": str(file)}).all("opensc") == []
    file.unlink()
    assert "No such file" in Diagnosis(home, env={"OPENSC_CONF": str(file)})["opensc"].reason


def test_a_configuration_that_makes_no_sense(home: Home) -> None:
    assert Diagnosis(home)["config"].outcome == "ok"
    home.write(".config/replug/config.toml", 'wait_for_tokken = "2s"\n')
    found = Diagnosis(home)["config"]
    assert found.outcome == "fail"
    assert "wait_for_tokken" in found.reason
    assert found.fix.endswith("config.toml")


# Prompts.


def test_each_error_of_the_configuration_is_a_finding(home: Home) -> None:
    home.configure("workers = 0\ntouch_timeout = 0")
    found = Diagnosis(home).all("config")
    assert [one.reason.partition(":")[2].partition(":")[0] for one in found] == ["1", "2"]


def test_no_way_to_ask(home: Home) -> None:
    found = Diagnosis(home)["prompt"]
    assert found.outcome == "fail"
    assert found.reason == (
        "no way to ask for a PIN here: there is no display (DISPLAY, WAYLAND_DISPLAY); "
        "the program has no terminal"
    )
    assert "ssh-add -s" in found.fix


def test_ways_to_ask(home: Home) -> None:
    askpass = str(home.write("askpass", "#!/bin/sh\n", 0o700))
    home.env["PATH"] = str(Path(REPLUG).parent)  # where no pinentry of the machine's is found
    found = Diagnosis(home, env={"DISPLAY": ":9", "SSH_ASKPASS": askpass})["prompt"]
    assert (found.outcome, found.reason) == ("ok", f"by {askpass} on display :9")
    found = Diagnosis(home, env={"SSH_ASKPASS": askpass, "SSH_ASKPASS_REQUIRE": "force"})["prompt"]
    assert (found.outcome, found.reason) == ("ok", f"by {askpass}")
    found = Diagnosis(home, env={"DISPLAY": ":9", "SSH_ASKPASS": "/nowhere"})["prompt"]
    assert (found.outcome, found.reason) == ("fail", "SSH_ASKPASS names /nowhere, which cannot be run")


def test_a_pinentry_with_windows_is_a_way_to_ask_and_one_without_is_none(home: Home) -> None:
    programs = home.folder / "programs"
    programs.mkdir()
    env = {"WAYLAND_DISPLAY": "wayland-9", "PATH": f"{programs}:{Path(REPLUG).parent}"}
    home.write("programs/pinentry-curses", "#!/bin/sh\n", 0o700)
    (programs / "pinentry").symlink_to("pinentry-curses")
    found = Diagnosis(home, env=env)["prompt"]
    if SSH_ASKPASS.exists():  # which ssh, too, uses without being told
        assert (found.outcome, found.reason) == ("ok", f"by {SSH_ASKPASS} on display wayland-9")
    else:
        assert found.outcome == "fail"
        assert "no pinentry with windows is installed" in found.reason
        assert "install pinentry-gnome3" in found.fix
    home.write("programs/pinentry-qt", "#!/bin/sh\n", 0o700)
    found = Diagnosis(home, env=env)["prompt"]
    assert (found.outcome, found.reason) == ("ok", f"by {programs}/pinentry-qt on display wayland-9")
    assert Diagnosis(home, env=env | {"SSH_ASKPASS_REQUIRE": "never"})["prompt"].outcome == "fail"


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ('prompt = "terminal"', "the program has no terminal"),
        ('prompt = "systemd"', "no password agent has made {home}/run/systemd/ask-password"),
        ('pinentry_program = "pinentry-mine"', "pinentry_program pinentry-mine cannot be run"),
    ],
)
def test_the_agent_would_ask_as_the_configuration_says(home: Home, setting: str, reason: str) -> None:
    """Doctor and agent are asked the same, where without the setting a dialog would appear."""
    programs = home.folder / "programs"
    programs.mkdir()
    home.write("programs/pinentry-qt", "#!/bin/sh\n", 0o700)
    env = {"DISPLAY": ":9", "PATH": f"{programs}:{Path(REPLUG).parent}"}
    assert Diagnosis(home, env=env)["prompt"].reason == f"by {programs}/pinentry-qt on display :9"
    home.configure(f"modules = []\n{setting}")
    found = Diagnosis(home, env=env)["prompt"]
    if SSH_ASKPASS.exists() and "pinentry" in setting:
        assert (found.outcome, found.reason) == ("ok", f"by {SSH_ASKPASS} on display :9")
    else:
        assert found.outcome == "fail"
        assert reason.format(home=home.folder) in found.reason


def test_a_terminal_alone_is_a_warning_on_a_display(home: Home) -> None:
    programs = home.folder / "programs"
    programs.mkdir()
    home.write("doctor.sh", f"#!/bin/sh\nPATH={programs} exec {REPLUG} doctor\n", 0o700)

    def line() -> str:
        shown = home.run(
            "script", "-qec", home.folder / "doctor.sh", "/dev/null",
            env={"DISPLAY": ":9", "TERM": "dumb", "SSH_ASKPASS_REQUIRE": "never"},
        )  # fmt: skip
        [line] = [line for line in shown.out.splitlines() if line[5:].startswith("prompt")]
        return line

    assert line().startswith("warn prompt     by the terminal /dev/pts/")
    home.configure('modules = []\nprompt = "terminal"')
    assert line().startswith("ok   prompt     by the terminal /dev/pts/")


def test_password_agents_are_a_way_to_ask(home: Home) -> None:
    (home.folder / "run" / "systemd" / "ask-password").mkdir(parents=True)
    found = Diagnosis(home)["prompt"]
    assert (found.outcome, found.reason) == ("ok", "by systemd's password agents")


def test_a_terminal_is_a_way_to_ask(home: Home) -> None:
    shown = home.run(
        "script", "-qec", f"{REPLUG} doctor", "/dev/null", env={"NO_COLOR": "1", "TERM": "xterm"}
    )
    [line] = [line for line in shown.out.splitlines() if line[5:].startswith("prompt")]
    assert line.split()[:5] == ["ok", "prompt", "by", "the", "terminal"]
    assert line.split()[5].startswith("/dev/pts/")
    assert "\x1b" not in shown.out


def test_everything_fits_80_columns_but_what_is_to_be_copied(home: Home) -> None:
    shown = home.run(
        "script",
        "-qec",
        f"stty cols 80; {REPLUG} doctor",
        "/dev/null",
        env={"TERM": "xterm", "NO_COLOR": "1"},
    ).out.splitlines()
    assert any(line.strip().startswith("\N{RIGHTWARDS ARROW} ") for line in shown)
    assert [line for line in shown if len(line) > 80 and "\N{RIGHTWARDS ARROW}" not in line] == []


# Containers.


def test_without_udev(home: Home) -> None:
    inside = home.run(
        "unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"]),
        "sh", "-c", f"mount -t tmpfs tmpfs /run && exec {REPLUG} doctor",
    )  # fmt: skip
    [line] = [line for line in inside.out.splitlines() if " udev: " in line]
    assert line.startswith("warn udev: no udev here (/run/udev/control is missing, as in a container)")


def test_with_udev(home: Home) -> None:
    inside = home.run(
        "unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"]),
        "sh", "-c",
        f"mount -t tmpfs tmpfs /run && mkdir /run/udev && touch /run/udev/control && exec {REPLUG} doctor",
    )  # fmt: skip
    assert "ok   udev: reports tokens that are plugged in or out" in inside.out.splitlines()
