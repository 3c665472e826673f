"""Making, finding and removing the agent's socket."""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import socket
import stat
import string
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rigs.home import Home

from replug.agent.clients import listener
from replug.agent.clients.listener import Listener, ListenerError

HOUR = 60 * 60


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name, which is somebody's home."""
    home = Home()
    yield home.folder
    home.remove()


def mode(path: str | Path) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


def connects(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(path) == 0


def host_hash() -> str:
    """OpenSSH's hash of this host's name."""
    alphabet = string.ascii_lowercase + string.ascii_uppercase + string.digits
    digest = hashlib.sha512(socket.gethostname().encode()).digest()
    return "".join(alphabet[byte % 62] for byte in digest)[:10]


def test_a_chosen_path(folder: Path) -> None:
    before = os.umask(0o022)
    listening = listener.listen_at(f"{folder}/agent")
    assert os.umask(before) == 0o022
    assert listening.path == f"{folder}/agent"
    assert mode(folder / "agent") == 0o600
    assert not listening.socket.get_inheritable()
    with listening.socket:
        assert connects(f"{folder}/agent")


def test_an_existing_file_is_kept(folder: Path) -> None:
    (folder / "agent").write_text("mine")
    with pytest.raises(ListenerError, match=r"cannot listen on '.*/agent': Address already in use"):
        listener.listen_at(f"{folder}/agent")
    assert (folder / "agent").read_text() == "mine"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", "No such file or directory"),
        ("/nonexistent/agent", "No such file or directory"),
        ("/tmp/" + "a" * 103, "AF_UNIX path too long"),
    ],
)
def test_an_impossible_path(path: str, reason: str) -> None:
    with pytest.raises(ListenerError, match=f"'{path}': {reason}"):
        listener.listen_at(path)


def test_the_longest_path(folder: Path) -> None:
    path = f"{folder}/".ljust(107, "a")
    with listener.listen_at(path).socket:
        assert connects(path)


def test_a_short_way_to_a_long_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = folder / ("d" * 100)
    deep.mkdir()
    monkeypatch.chdir(deep)
    listening = listener.listen_at("agent")
    with listening.socket:
        assert connects("agent")
        monkeypatch.chdir("/")
        listening.remove()
        assert list(deep.iterdir()) == []


def test_the_home(folder: Path) -> None:
    first = listener.listen_in(listener.socket_folder(str(folder)))
    second = listener.listen_in(listener.socket_folder(str(folder)))
    with first.socket, second.socket:
        assert first.path is not None
        assert second.path is not None
        assert first.path != second.path
        pattern = rf"{folder}/\.ssh/agent/s\.{host_hash()}\.agent\.[a-zA-Z0-9]{{10}}"
        assert re.fullmatch(pattern, first.path)
        assert mode(first.path) == 0o600
        assert mode(folder / ".ssh") == mode(folder / ".ssh" / "agent") == 0o700
        assert connects(first.path)


def test_an_unusable_home(folder: Path) -> None:
    (folder / ".ssh").write_text("a file")
    with pytest.raises(ListenerError, match=r"/\.ssh/agent': Not a directory"):
        listener.listen_in(listener.socket_folder(str(folder)))


def test_the_temporary_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", f"{folder}/tmp")
    listening = listener.listen_in_temporary_folder(listener.temporary_folder())
    assert listening.path is not None
    with listening.socket:
        assert re.fullmatch(rf"{folder}/tmp/ssh-[a-zA-Z0-9]{{12}}/agent\.{os.getpid()}", listening.path)
        assert mode(Path(listening.path).parent) == 0o700
        assert mode(listening.path) == 0o600
        listening.remove()
    assert list((folder / "tmp").iterdir()) == []


def test_a_temporary_folder_that_is_too_deep_is_left_empty(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = folder / ("d" * 100)
    deep.mkdir()
    monkeypatch.setenv("TMPDIR", str(deep))
    with pytest.raises(ListenerError, match="AF_UNIX path too long"):
        listener.listen_in_temporary_folder(listener.temporary_folder())
    assert list(deep.iterdir()) == []


def test_without_tmpdir(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TMPDIR", raising=False)
    listening = listener.listen_in_temporary_folder(listener.temporary_folder())
    listening.socket.close()
    listening.remove()
    assert listening.path is not None
    assert listening.path.startswith("/tmp/ssh-")


def test_removal(folder: Path) -> None:
    listening = listener.listen_at(f"{folder}/agent")
    listening.socket.close()
    listening.remove()
    assert not (folder / "agent").exists()
    listening.remove()  # twice is no error


def test_another_programs_socket_is_not_removed(folder: Path) -> None:
    mine = listener.listen_at(f"{folder}/agent")
    with mine.socket:
        os.unlink(f"{folder}/agent")
        with listener.listen_at(f"{folder}/agent").socket:
            mine.remove()
            assert connects(f"{folder}/agent")


def test_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    assert listener.home_folder() == "/somewhere"
    monkeypatch.setenv("HOME", "")
    assert listener.home_folder() == pwd.getpwuid(os.getuid()).pw_dir
    monkeypatch.delenv("HOME")
    assert listener.home_folder() == pwd.getpwuid(os.getuid()).pw_dir
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)
    with pytest.raises(ListenerError, match="set HOME"):
        listener.home_folder()


class TestStaleSockets:
    """`remove_stale` among sockets of every kind."""

    @pytest.fixture
    def agents(self, folder: Path) -> Path:
        agents = folder / ".ssh" / "agent"
        agents.mkdir(parents=True)
        return agents

    @staticmethod
    def dead(path: Path, age: float) -> None:
        with listener.listen_at(str(path)).socket:
            pass
        os.utime(path, times=(time.time() - age,) * 2)

    def test_only_old_dead_sockets_of_this_host_go(self, folder: Path, agents: Path) -> None:
        ours = f"s.{host_hash()}."
        self.dead(agents / f"{ours}agent.old", HOUR + 60)
        self.dead(agents / f"{ours}agent.young", HOUR - 60)
        self.dead(agents / "s.otherhost..agent.old", HOUR + 60)
        self.dead(folder / "target", HOUR + 60)
        (agents / f"{ours}agent.link").symlink_to(folder / "target")
        (agents / f"{ours}agent.file").touch()
        os.utime(agents / f"{ours}agent.file", times=(0, 0))
        with listener.listen_at(f"{agents}/{ours}agent.live").socket as live:
            os.utime(f"{agents}/{ours}agent.live", times=(0, 0))

            listener.remove_stale(listener.socket_folder(str(folder)), any_host=False)

            others = {"s.otherhost..agent.old"}
            kept = {f"{ours}agent.{name}" for name in ("young", "link", "file", "live")}
            assert {path.name for path in agents.iterdir()} == kept | others

            listener.remove_stale(listener.socket_folder(str(folder)), any_host=True)

            assert {path.name for path in agents.iterdir()} == kept
            live.accept()[0].close()

    def test_a_busy_agents_socket_stays(self, folder: Path, agents: Path) -> None:
        path = agents / f"s.{host_hash()}.agent.busy"
        with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as client:
            busy.bind(str(path))
            busy.listen(0)
            client.connect(str(path))  # the backlog is full now
            os.utime(path, times=(0, 0))
            listener.remove_stale(listener.socket_folder(str(folder)), any_host=False)
            assert path.exists()

    def test_what_is_no_folder(self) -> None:
        with pytest.raises(ListenerError, match=r"cannot clean up '/dev/null/agent': Not a directory"):
            listener.remove_stale("/dev/null/agent", any_host=False)

    def test_without_the_folder(self, folder: Path) -> None:
        listener.remove_stale(listener.socket_folder(str(folder)), any_host=False)
        assert not (folder / ".ssh").exists()


class TestActivation:
    """`take_activated`, with whatever a service manager may pass."""

    TAKE = """
import os, sys
from replug.agent.clients.listener import ListenerError, take_activated
os.environ["LISTEN_PID"] = str(os.getpid())
try:
    taken = take_activated()
except ListenerError as error:
    sys.exit(str(error))
left = [name for name in os.environ if name.startswith("LISTEN_")]
print(taken.socket.fileno(), taken.path, taken.socket.get_inheritable(), left)
"""

    def take(self, passed: int, count: str = "1") -> tuple[str, str]:
        done = subprocess.run(
            [sys.executable, "-c", self.TAKE],
            env=os.environ | {"LISTEN_FDS": count, "LISTEN_FDNAMES": "agent"},
            preexec_fn=lambda: os.dup2(passed, 3),
            pass_fds=[3],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout, done.stderr

    def test_a_listening_socket(self, folder: Path) -> None:
        with listener.listen_at(f"{folder}/agent").socket as passed:
            assert self.take(passed.fileno()) == ("3 None False []\n", "")

    @pytest.mark.parametrize("count", ["0", "2", "", "one"])
    def test_any_other_number_of_sockets(self, count: str, folder: Path) -> None:
        with listener.listen_at(f"{folder}/agent").socket as passed:
            words = f"LISTEN_FDS is {count!r}; the agent takes exactly one socket\n"
            assert self.take(passed.fileno(), count) == ("", words)

    def test_a_socket_that_does_not_listen(self) -> None:
        with socket.socket(socket.AF_UNIX) as passed:
            words = "fd 3 of LISTEN_FDS is not a listening Unix stream socket\n"
            assert self.take(passed.fileno()) == ("", words)

    def test_a_network_socket(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as passed:
            words = "fd 3 of LISTEN_FDS is not a listening Unix stream socket\n"
            assert self.take(passed.fileno()) == ("", words)

    def test_a_sequential_packet_socket(self, folder: Path) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as passed:
            passed.bind(f"{folder}/agent")
            passed.listen()
            words = "fd 3 of LISTEN_FDS is not a listening Unix stream socket\n"
            assert self.take(passed.fileno()) == ("", words)

    def test_no_socket_at_all(self, folder: Path) -> None:
        with open(folder / "softhsm2.conf") as passed:
            words = "LISTEN_FDS is set, but fd 3: Socket operation on non-socket\n"
            assert self.take(passed.fileno()) == ("", words)

    def test_another_processs_socket(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LISTEN_FDS", "1")
        monkeypatch.setenv("LISTEN_PID", "1")
        with pytest.raises(ListenerError, match=f"LISTEN_PID is '1', but this is process {os.getpid()}"):
            listener.take_activated()

    @pytest.mark.parametrize("name", ["LISTEN_FDS", "LISTEN_PID"])
    def test_half_an_announcement_is_none(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("LISTEN_FDS", raising=False)
        monkeypatch.delenv("LISTEN_PID", raising=False)
        monkeypatch.setenv(name, "1")
        assert listener.take_activated() is None

    def test_the_service_managers_socket_is_not_removed(self, folder: Path) -> None:
        made = listener.listen_at(f"{folder}/agent")
        Listener(made.socket).remove()
        with made.socket:
            assert connects(f"{folder}/agent")
