"""Sockets for some of the keys (`[[socket]]`): for containers, forwarding a part, an account per host."""

from __future__ import annotations

import json
import os
import shlex
import signal
import stat
import sys
from pathlib import Path

import pytest
from rigs.agent import LIST_REQUEST, OPENSSH, PIN_PROMPT, Agent, Connection, StartAgent, descendants
from rigs.askpass import Askpass
from rigs.home import Home
from rigs.key_files import make_key, public_of
from rigs.softhsm import Token
from rigs.sshd import USER, Server
from rigs.terminal import Done, eventually

from replug.agent.clients.listener import is_dead

REPLUG = Path(sys.executable).with_name("replug")
IN = f"in {USER}\n"


def table(path: str | Path, *keys: str, **settings: str) -> str:
    """A `[[socket]]`."""
    lines = ["[[socket]]", f'path = "{path}"', f"keys = {json.dumps(list(keys))}"]
    return "\n".join([*lines, *(f"{name} = {value}" for name, value in settings.items())])


def configure(home: Home, *tables: str) -> None:
    home.configure("\n".join(["modules = []", *tables]))


def reload(agent: Agent) -> None:
    done = agent.run(REPLUG, "reload")
    assert done.status == 0, (done, agent.log)


def sockets(agent: Agent) -> dict[str, str]:
    """Why each is not there."""
    status = json.loads(agent.run(REPLUG, "status", "--json").out)
    return {one["path"]: one["failed"] for one in status["sockets"]}


def at(home: Home, path: Path, *command: str | Path) -> Done:
    """Runs a client of the agent's socket at `path`."""
    return home.run(*command, env={"SSH_AUTH_SOCK": str(path)})


def comments(done: Done) -> list[str]:
    return [line.split()[2] for line in done.out.splitlines() if line.startswith("256 ")]


@pytest.fixture
def views(home: Home) -> Path:
    """The folder of the sockets, which is not there yet."""
    return home.folder / "run" / "views"


def test_an_account_for_each_host(home: Home, token: Token, views: Path, start_agent: StartAgent) -> None:
    """By IdentityAgent, where a server takes one try only; one key is on a token, the other in memory."""
    of_token = home.run("ssh-keygen", "-lf", token.public("p384")).out.split()[1]
    configure(home, table("$XDG_RUNTIME_DIR/views/work", of_token), table("~/run/views/home", "pri?ate"))
    agent = start_agent()
    private, servers = make_key(home, "private"), []
    assert agent.ssh_add(make_key(home, "other")).status == 0
    assert agent.ssh_add("-s", token.module, typing=[(PIN_PROMPT, token.pin)]).status == 0
    assert agent.ssh_add(private).status == 0
    for name, public in (("work", token.public("p384")), ("home", public_of(private))):
        server = Server(home, "MaxAuthTries 1", name=name)
        server.authorize(public)
        config = server.client_config
        config.write_text(f"{config.read_text()}IdentityAgent {views / name}\n")
        servers.append(server)
    assert [server.login(agent).out for server in servers] == [IN, IN], agent.log
    for name, server in (("work", servers[0]), ("home", servers[1])):
        assert f"over the socket {views / name}, as {USER}" in agent.log
        swapped = server.login(agent, "-o", f"IdentityAgent={views / ('home' if name == 'work' else 'work')}")
        assert "Permission denied" in swapped.err or "Too many authentication failures" in swapped.err
    assert len(comments(agent.ssh_add("-l"))) > 2


def test_a_part_of_the_keys_is_forwarded(home: Home, views: Path, start_agent: StartAgent) -> None:
    """By RemoteForward: from there some logins at one host, and nothing else, whatever is asked for."""
    outer, inner = Server(home, name="outer"), Server(home, name="inner")
    host = home.run("ssh-keygen", "-lf", inner.host_key).out.split()[1]
    configure(home, table(views / "sub", "deploy", hosts=f'"{host}"'), table(views / "any", "deploy"))
    agent = start_agent()
    deploy, own = make_key(home, "deploy"), make_key(home, "own")
    assert agent.ssh_add(deploy, own).status == 0
    for key in (deploy, own):
        key.unlink()
    outer.authorize(public_of(own), public_of(deploy))
    inner.authorize(public_of(deploy))
    far = home.folder / "far"

    def there(view: str, command: str) -> Done:
        """Runs it on the outer host, where the socket is forwarded to."""
        with_agent = f"export SSH_AUTH_SOCK={far}; {command}; rm -f {far}"
        return outer.login(agent, "-R", f"{far}:{views / view}", command=with_agent)

    def ssh(server: Server) -> str:
        return shlex.join(server.ssh(command="echo in $LOGNAME"))

    sign = f"echo text | ssh-keygen -Y sign -n file -f {public_of(deploy)}"
    assert there("sub", ssh(inner)).out == IN, agent.log
    assert "Permission denied" in there("sub", ssh(outer)).err
    assert there("sub", "ssh-add -l").out == "The agent has no identities.\n"
    assert "BEGIN" not in there("sub", sign).out
    done = there("any", f"ssh-add -l; ssh-add -D; ssh-add {public_of(own)}; {sign}; {ssh(outer)}")
    assert comments(done) == ["deploy"]
    assert "Failed to remove all identities" in done.err
    assert "BEGIN SSH SIGNATURE" in done.out
    assert IN in done.out
    assert comments(agent.ssh_add("-l")) == ["deploy", "own"]
    explained = " ".join(agent.run(REPLUG, "explain", "-n", "20").out.split())
    refused = "over this socket keys are listed and sign, and nothing else is done"
    assert f"(ssh-add -D). The agent refused: {refused} (socket {views / 'any'})." in explained


def test_a_container_has_the_keys_of_its_project(home: Home, views: Path, start_agent: StartAgent) -> None:
    """Where it has the socket in its own mount namespace, and sees nothing else of the home."""
    enter = ("unshare", "--mount", "--map-root-user")
    if home.run(*enter, "true").status != 0:
        pytest.skip("there are no mount namespaces for this user")
    configure(home, table(views / "project", "project-*"))
    agent = start_agent()
    key = make_key(home, "project-1")
    assert agent.ssh_add(key, make_key(home, "own")).status == 0
    script = f"""
        mount --bind {views} /mnt
        mount -t tmpfs none {home.folder}
        export SSH_AUTH_SOCK=/mnt/project
        ssh-add -L >{home.folder}/key.pub
        cat {home.folder}/key.pub
        echo text | ssh-keygen -Y sign -n file -f {home.folder}/key.pub
        ssh-add -d {home.folder}/key.pub
        [ ! -e {agent.socket} ]
    """
    done = home.run(*enter, "sh", "-c", script)
    assert done.status == 0, done
    assert done.out.splitlines()[0] == public_of(key).read_text().strip()
    assert "BEGIN SSH SIGNATURE" in done.out
    assert "Could not remove identity" in done.err
    assert comments(agent.ssh_add("-l")) == ["project-1", "own"]


def test_sockets_come_and_go_with_the_configuration(home: Home, views: Path, start_agent: StartAgent) -> None:
    configure(home, table(views / "a", "one"), table(views / "b", "two"))
    agent = start_agent()
    for name in ("one", "two"):
        assert agent.ssh_add(make_key(home, name)).status == 0
    assert stat.S_IMODE(views.stat().st_mode) == 0o700
    assert stat.S_IMODE((views / "a").stat().st_mode) == 0o600
    inode = (views / "a").stat().st_ino
    with (
        Connection(agent.socket, 30) as own,
        Connection(views / "a", 30) as a,
        Connection(views / "b", 30) as b,
    ):
        before = [one.ask(LIST_REQUEST) for one in (own, a, b)]
        configure(home, table(views / "a", "one", "t*"), table(views / "more" / "c", "*"))
        reload(agent)
        assert (views / "a").stat().st_ino == inode
        assert not (views / "b").exists()
        assert b.reply() == b""
        assert own.ask(LIST_REQUEST) == before[0]
        assert a.ask(LIST_REQUEST) == before[0] != before[1]
    assert comments(at(home, views / "more" / "c", "ssh-add", "-l")) == ["one", "two"]
    # One that was removed is made again.
    (views / "a").unlink()
    reload(agent)
    assert comments(at(home, views / "a", "ssh-add", "-l")) == ["one", "two"]
    configure(home)
    reload(agent)
    assert list(views.rglob("*")) == [views / "more"]
    assert agent.ssh_add("-l").status == 0


def test_a_crashed_agents_sockets_are_replaced_and_an_ended_ones_are_gone(
    home: Home, views: Path, request: pytest.FixtureRequest
) -> None:
    configure(home, table(views / "a", "*"))
    crashing = Agent(request.config.getoption("agent"), home)
    eventually((views / "a").exists, "the socket")
    for process in (crashing.process.pid, *descendants(crashing.process.pid)):
        os.kill(process, signal.SIGKILL)
    crashing.stop()
    eventually(lambda: is_dead(str(views / "a")), "the end of all that listen")
    agent = Agent(request.config.getoption("agent"), home)
    eventually(lambda: sockets(agent) == {str(views / "a"): ""}, "the socket")
    assert at(home, views / "a", "ssh-add", "-l").out == "The agent has no identities.\n"
    other = Agent(request.config.getoption("agent"), home)
    listens = f"replug-agent listens at {views / 'a'}"
    eventually(lambda: sockets(other) == {str(views / "a"): listens}, "that there is another")
    other.stop()
    assert (views / "a").exists()
    agent.stop()
    assert list(views.iterdir()) == []


def test_paths_that_are_not_ours_to_take(home: Home, views: Path, start_agent: StartAgent) -> None:
    """Each is refused in words, and nothing that is there is touched."""
    agent = start_agent()
    theirs = start_agent(program=OPENSSH)
    file = home.write("file", "text")
    shared = home.folder / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    paths = {
        agent.socket: "is this agent's own socket",
        Path(f"{agent.socket}.control"): "is this agent's own socket",
        theirs.socket: f"ssh-agent listens at {theirs.socket}",
        file: "is there, and is no socket",
        file / "below": f"{file}: Not a directory",
        shared / "open": f"other users can change what is in {shared}",
        shared / "new" / "below": f"other users can change what is in {shared}",
        Path("/proc/1/fd/s"): "/proc/1/fd",
        views / "good": "",
    }
    configure(home, *(table(path, "*") for path in paths))
    reload(agent)
    assert agent.control
    why = sockets(agent)
    for path, reason in paths.items():
        assert reason in why[str(path)], why
        assert bool(why[str(path)]) == bool(reason), why
    assert comments(at(home, views / "good", "ssh-add", "-l")) == []
    assert file.read_text() == "text"
    assert not (shared / "new").exists()
    assert theirs.ssh_add("-l").status == 1
    shown = agent.run(REPLUG, "status").out
    assert f"{views / 'good'} for *\n" in shown
    assert f"not there: {file} is there, and is no socket" in shown
    why_not = f"there is no socket {file}: {file} is there, and is no socket"
    assert (
        f"warn views: {why_not}; fix: remove it, or choose another path; replug reload\n"
        in agent.run(REPLUG, "doctor").out
    )
    configure(home, table("x" * 20, "*"), table("/" + "x" * 107, "*"), table("$HOME/x", "*"))
    refused = home.run(REPLUG, "config", "check").err
    assert "path must be an absolute path" in refused
    assert "path: has 108 bytes, and the address of a socket has 107 at most" in refused
    assert "other variables mean nothing here" in refused


def test_who_is_asked_is_told_the_socket(home: Home, views: Path, start_agent: StartAgent) -> None:
    """And a yes that is remembered for the agent's own socket is none for another."""
    home.configure(
        'modules = []\nconfirm_for = "10m"\nconfirm_for_forwarded = "10m"\nconfirm = ["other"]\n'
        + "\n".join([table(views / "a", "*"), table(views / "b", "*", confirm="true")])
    )
    askpass = Askpass(home)
    askpass.answers("yes")
    agent = start_agent(env=askpass.env)
    key = make_key(home, "key")
    assert agent.ssh_add(key).status == 0
    key.unlink()

    def sign(path: Path) -> int:
        done = home.run("ssh-keygen", "-Y", "sign", "-n", "file", "-f", public_of(key), text="text",
                        env={"SSH_AUTH_SOCK": str(path)})  # fmt: skip
        assert "BEGIN SSH SIGNATURE" in done.out, agent.log
        return askpass.text.count("Allow use of key key?")

    assert [sign(path) for path in (agent.socket, agent.socket)] == [1, 1]
    assert [sign(path) for path in (views / "a", views / "a", views / "b", agent.socket)] == [2, 2, 3, 3]
    assert f"SSHSIG signature, not a login\nover the socket {views / 'a'}\n" in askpass.text
    askpass.answers("no")
    server = Server(home)
    server.authorize(public_of(key))
    assert server.login(agent).out == IN
    assert server.login(agent, "-o", f"IdentityAgent={views / 'a'}").out == IN
    assert server.login(agent, "-o", f"IdentityAgent={views / 'b'}").out == ""
    assert f"over the socket {views / 'b'}" in agent.run(REPLUG, "explain").out.replace("\n", " ")
