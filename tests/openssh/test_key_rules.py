"""The right key for the right host, with the real ssh, sshd and git: twelve keys, of which sshd hears two."""

from __future__ import annotations

import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rigs.agent import Agent
from rigs.home import Home
from rigs.key_files import make_key, public_of
from rigs.own_account import with_own_known_hosts
from rigs.sshd import USER, Server, only
from rigs.terminal import Done, eventually

REPLUG = Path(sys.executable).with_name("replug")
KEYS = [f"key{number:02}" for number in range(1, 13)]
LAST = KEYS[-1]
IN = f"in {USER}\n"
TOO_MANY = "Too many authentication failures"


class Place:
    """A home with twelve keys in an agent, and a host that lets in the owner of the last one."""

    def __init__(self, program: Path) -> None:
        self.home = Home()
        (self.home.folder / ".ssh").mkdir(mode=0o700)
        self._program = with_own_known_hosts(self.home, program)
        self._replug = with_own_known_hosts(self.home, REPLUG)
        self.server = Server(self.home, "MaxAuthTries 2")
        self.keys = [make_key(self.home, name) for name in KEYS]
        self.server.authorize(public_of(self.keys[-1]))
        self.agent = self.start()

    def start(self) -> Agent:
        """An agent that has the keys, in their order."""
        self.agent = Agent(self._program, self.home)
        assert self.agent.ssh_add(*self.keys).status == 0, self.agent.log
        return self.agent

    def restart(self) -> None:
        """The next agent, as after a new login of the user."""
        self.agent.stop()
        self.start()

    def replug(self, *words: str) -> Done:
        done = self.agent.run(self._replug, *words)
        assert done.status == 0, done
        return done

    def rules(self, *tables: str) -> None:
        """Has the agent follow these rules and no others."""
        self.home.configure("\n".join(["modules = []", *tables]))
        self.replug("reload")

    def known(self, text: str | None = None) -> Path:
        """What ssh and the agent know of hosts; the server by its name, if nothing else is said."""
        return self.home.write(
            ".ssh/known_hosts", self.server.known_hosts.read_text() if text is None else text
        )

    def login(
        self, *options: str | Path, command: str = "echo in $LOGNAME", server: Server | None = None
    ) -> Done:
        known_hosts = f"UserKnownHostsFile={self.home.folder}/.ssh/known_hosts"
        return (server or self.server).login(self.agent, "-o", known_hosts, *options, command=command)

    def end(self) -> None:
        self.agent.stop()
        self.home.remove()


def rule(match: str, **settings: str) -> str:
    return "\n".join(
        ["[[key]]", f'match = "{match}"', *(f"{name} = {value}" for name, value in settings.items())]
    )


@pytest.fixture(scope="module")
def shared(request: pytest.FixtureRequest) -> Iterator[Place]:
    place = Place(request.config.getoption("agent"))
    yield place
    place.end()


@pytest.fixture
def place(shared: Place) -> Place:
    """The same for all tests, with no rules, no memory, and the host in known_hosts."""
    shared.known()
    shared.rules()
    shared.replug("forget", "--hosts")
    return shared


def test_with_a_rule_the_last_of_twelve_keys_logs_in_at_the_first_try(place: Place) -> None:
    assert TOO_MANY in place.login().err
    place.rules(rule(LAST, hosts='["host"]'))
    assert place.login().out == IN, place.agent.log


def test_a_key_that_was_accepted_once_is_offered_first_later(place: Place) -> None:
    """Also by an agent that is started later; and the user can have it forgotten."""
    assert TOO_MANY in place.login().err
    assert TOO_MANY in place.login().err
    assert 'many keys were listed, and none was used keys=12 destination="host ' in place.agent.log
    assert place.login(*only(public_of(place.keys[-1]))).out == IN
    assert place.login().out == IN, place.agent.log
    memory = place.home.folder / ".local/state/replug/destinations.json"
    eventually(memory.exists, "the file")
    assert stat.S_IMODE(memory.stat().st_mode) == 0o600
    place.restart()
    assert place.login().out == IN, place.agent.log

    shown = place.replug("status", "-v").out
    assert "Keys that hosts have accepted\n  host, last " in shown
    assert LAST in shown.partition("Keys that hosts")[2]
    assert place.replug("forget", "--hosts").out == "1 host forgotten.\n"
    assert not memory.exists()
    assert TOO_MANY in place.login().err


def test_a_key_that_was_used_by_choice_is_not_offered_first_where_an_earlier_one_is_accepted(
    place: Place,
) -> None:
    """Which of two accepted keys comes first decides whose account it is."""
    first, *_, last = place.keys
    place.server.authorize(public_of(first), public_of(last))
    try:
        for options in ((), only(public_of(last)), ()):
            assert place.login(*options).out == IN
        used = [line for line in place.agent.log.splitlines() if " signed " in line][-3:]
        assert [line.split("comment=")[1][:5] for line in used] == [KEYS[0], LAST, KEYS[0]]
    finally:
        place.server.authorize(public_of(last))


def test_only_direct_logins_are_ordered(place: Place) -> None:
    """What is forwarded, and what does not say where it logs in, sees all keys as ever."""
    place.rules(rule(LAST, hosts='["host"]'), rule("key0*", hosts='["elsewhere"]'))
    everything = place.agent.ssh_add("-L").out
    assert [line.split()[-1] for line in everything.splitlines()] == KEYS
    assert place.login("-A", command="ssh-add -L").out == everything
    socket = place.home.folder / "shared.sock"
    assert place.login("-M", "-S", socket, "-o", "ControlPersist=yes").out == IN
    try:
        assert place.login("-S", socket).out == IN
    finally:
        place.login("-S", socket, "-O", "exit")


@pytest.mark.parametrize("way", ["plain", "hashed", "accept-new", "many names", "certificate"])
def test_a_host_is_known_in_any_way_that_ssh_knows(place: Place, way: str) -> None:
    place.rules(rule(LAST, hosts='["host"]'), rule("key*", hosts='["elsewhere"]'))
    line = place.server.known_hosts.read_text()
    options: tuple[str, ...] = ()
    match way:
        case "hashed":
            known = place.known(line)
            assert place.home.run("ssh-keygen", "-H", "-f", known).status == 0
            assert known.read_text().startswith("|1|")
        case "accept-new":
            place.known("")
            options = ("-o", "StrictHostKeyChecking=accept-new")
        case "many names":
            place.known(f"a,b,c,10.0.0.7,{line}d {line.partition(' ')[2]}")
        case "certificate":
            place.known(f"@cert-authority host {place.server.certify_host().read_text()}")
    assert place.login(*options).out == IN, place.agent.log


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("hashed", [False, True], ids=["plain", "hashed"])
def test_other_ports_and_addresses(place: Place, address: str, hashed: bool) -> None:
    key = place.server.host_key.read_text()
    place.rules(rule(LAST, hosts=f'["{address}"]'), rule("key*", hosts='["elsewhere"]'))
    with place.server.listening(address) as port:
        known = place.known(f"[{address}]:{port} {key}")
        if hashed:
            assert place.home.run("ssh-keygen", "-H", "-f", known).status == 0
        options = ("-F", "none", "-o", f"UserKnownHostsFile={known}", "-o", "BatchMode=yes", "-i", "none")
        done = place.agent.run("ssh", *options, "-p", str(port), f"{USER}@{address}", "echo in $LOGNAME")
        assert done.out == IN, (done, place.agent.log)


def test_a_jump_host_and_what_is_behind_it_each_get_their_own_key(place: Place) -> None:
    place.rules(rule(LAST, hosts='["host"]'), rule("key06", hosts='["127.0.0.1"]'))
    behind = Server(place.home, "MaxAuthTries 2", name="behind")
    behind.authorize(public_of(place.keys[5]))
    with behind.listening() as port:
        place.known(
            place.server.known_hosts.read_text() + f"[127.0.0.1]:{port} {behind.host_key.read_text()}"
        )
        config = place.home.write(
            "jump.ssh_config",
            f"Host *\nUserKnownHostsFile {place.home.folder}/.ssh/known_hosts\n"
            "BatchMode yes\nIdentityFile none\n" + place.server.client_config.read_text(),
        )
        done = place.agent.run(
            "ssh", "-F", config, "-J", "host", "-p", str(port), f"{USER}@127.0.0.1", "echo in $LOGNAME"
        )
        assert done.out == IN, (done, place.agent.log)


def test_rules_that_would_leave_nothing_leave_everything(place: Place) -> None:
    place.server.authorize(public_of(place.keys[0]))
    place.rules(rule("*", hosts='["elsewhere"]'))
    assert place.login().out == IN
    assert "all keys are listed, as the rules would leave none" in place.agent.log
    place.server.authorize(public_of(place.keys[-1]))


def test_restricted_keys_sign_for_their_hosts_and_nothing_else(place: Place) -> None:
    place.rules(rule(LAST, hosts='["host"]', restrict="true"))
    assert place.login().out == IN
    text = place.home.write("text", "text")
    done = place.agent.run(
        "ssh-keygen", "-q", "-Y", "sign", "-n", "file", "-f", public_of(place.keys[-1]), text
    )
    assert "agent refused operation" in done.err
    assert "signs logins at host only, from this machine" in place.replug("explain").out.replace("\n", " ")
    other = Server(place.home, name="other")
    other.authorize(public_of(place.keys[-1]))
    place.known(other.known_hosts.read_text())
    assert place.login(*only(public_of(place.keys[-1])), server=other).status == 255
    place.rules(rule(LAST, hosts='["other"]', restrict="true"))
    assert place.login(*only(public_of(place.keys[-1])), server=other).out == IN


def test_explain_says_what_a_host_gets_to_see(place: Place) -> None:
    place.rules(
        rule(LAST, hosts='["host"]'),
        rule("key0*", hosts='["elsewhere"]'),
        rule("key10", hosts='["elsewhere"]'),
        rule("key10", hosts='["host"]', repositories='["work-org/*"]'),
    )
    shown = place.replug("explain", "host").out
    assert shown.startswith("host is listed 2 of 12 keys, in this order:\n")
    one, two, left_out = (shown.index(words) for words in (f" {LAST}\n", " key11\n", "Left out:\n"))
    assert one < two < left_out < shown.index(" key10\n") < shown.index("for other repositories, by [[key]]")
    assert f"for this host, by [[key]] match = {LAST}; hosts = host" in shown
    assert shown.endswith("What git is listed for a repository: replug explain --repository.\n")
    with_git = place.replug("explain", "host", "--repository", "/work-org/a.git").out
    assert with_git.startswith("host is listed 3 of 12 keys")
    assert with_git.index(" key10\n") < with_git.index(f" {LAST}\n")
    assert place.replug("explain", "git@host:work-org/a.git").out == with_git
    assert place.replug("explain", "host", "--repository", "ssh://git@host/work-org/a.git").out == with_git
    assert place.agent.run(REPLUG, "explain", "https://host/a").err == "replug: https:// is not ssh\n"
    assert place.agent.run(REPLUG, "explain", "").err == "replug: a host has no empty name\n"
    limited = make_key(place.home, "limited")
    known = place.home.folder / ".ssh/known_hosts"
    assert place.agent.ssh_add("-H", known, "-h", "host", limited).status == 0
    words = " limited\n      no rule says where it is for; only if its destinations permit (ssh-add -h)\n"
    assert words in place.replug("explain", "host").out
    assert place.agent.ssh_add("-d", limited).status == 0
    unknown = place.replug("explain", "elsewhere").out
    assert unknown.startswith("elsewhere is in no known_hosts file.")
    assert "elsewhere is listed 11 of 12 keys" in unknown
    assert f"match = {LAST}; hosts = host\n" in place.replug("status").out


class Accounts:
    """Two accounts at one host, each with a key, as git hosts have them: the key says who it is."""

    def __init__(self, place: Place, work: Path, own: Path) -> None:
        self._place = place
        home = place.home
        self._log = home.write("accounts", "")
        repositories = home.folder / "repositories"
        for name in ("work-org/repo.git", "me/dots.git"):
            done = home.run("git", "init", "-q", "--bare", "-b", "main", repositories / name)
            assert done.status == 0, done
        serve = home.write(
            "serve",
            f'echo "$1 $SSH_ORIGINAL_COMMAND" >>{self._log}\ncd {repositories}\n'
            """eval "exec $(echo "$SSH_ORIGINAL_COMMAND" | sed "s,'/,',")"\n""",
        )
        lines = [
            f'command="sh {serve} {account}",restrict {public_of(key).read_text()}'
            for account, key in (("work", work), ("own", own))
        ]
        place.server.authorize(home.write("accounts.pub", "".join(lines)))
        known_hosts = f"UserKnownHostsFile={home.folder}/.ssh/known_hosts"
        self._ssh = f"ssh -F {place.server.client_config} -o {known_hosts}"

    def git(self, *words: str | Path) -> None:
        settings = ("-c", f"core.sshCommand={self._ssh}", "-c", "user.name=me", "-c", "user.email=me@here")
        done = self._place.agent.run("git", *settings, *words)
        assert done.status == 0, (done, self._place.agent.log)

    def used(self) -> list[str]:
        """The accounts and services since the last question."""
        lines = self._log.read_text().splitlines()
        self._log.write_text("")
        return [" ".join(line.split()[:2]) for line in lines]


@pytest.mark.parametrize("form", ["host:{}", "ssh://host/{}"], ids=["scp", "url"])
def test_repositories_choose_the_account(place: Place, form: str, tmp_path: Path) -> None:
    """For git's clone, push and fetch; with all keys but the two left aside by their rules."""
    own, work = place.keys[2], place.keys[-1]
    accounts = Accounts(place, work, own)
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    try:
        place.rules(
            rule(own.name, hosts='["host"]'),
            rule(LAST, hosts='["host"]', repositories='["work-org/*"]'),
            rule("key*", hosts='["elsewhere"]'),
        )
        for path, account in (("work-org/repo.git", "work"), ("me/dots.git", "own")):
            clone = tmp_path / account
            accounts.git("clone", "-q", form.format(path), clone)
            accounts.git("-C", clone, "commit", "-q", "--allow-empty", "-m", "one")
            accounts.git("-C", clone, "push", "-q", "origin", "HEAD:main")
            accounts.git("-C", clone, "fetch", "-q")
            services = ("git-upload-pack", "git-receive-pack", "git-upload-pack")
            assert accounts.used() == [f"{account} {service}" for service in services]
    finally:
        shutil.rmtree(place.home.folder / "repositories")
        place.server.authorize(public_of(place.keys[-1]))


def test_without_rules_git_uses_the_first_key_that_is_accepted(place: Place) -> None:
    accounts = Accounts(place, place.keys[0], place.keys[1])
    try:
        for path in ("work-org/repo.git", "me/dots.git"):
            accounts.git("ls-remote", f"host:{path}")
        assert accounts.used() == ["work git-upload-pack"] * 2
    finally:
        shutil.rmtree(place.home.folder / "repositories")
        place.server.authorize(public_of(place.keys[-1]))
