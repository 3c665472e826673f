"""An agent under test, and what a person does with it."""

from __future__ import annotations

import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rigs.home import Home
from rigs.terminal import Done, eventually

OPENSSH = Path("/usr/bin/ssh-agent")
PIN_PROMPT = "Enter passphrase for PKCS#11: "
LIST_REQUEST = b"\x00\x00\x00\x01\x0b"
FAILURE = b"\x05"


class Agent:
    """`program -D -a SOCKET` in a home, from the moment its socket answers until `stop()`."""

    def __init__(self, program: Path, home: Home, *options: str, env: dict[str, str] | None = None) -> None:
        self.home = home
        number = len(list(home.folder.glob("agent*.log")))
        self.socket = home.folder / f"agent{number}.sock"
        self._log = home.folder / f"agent{number}.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [program, "-D", "-a", self.socket, *options],
                env=home.env | (env or {}),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=home.folder,
                text=True,
            )
        assert self.process.stdout
        # The agent says where it listens once it does.
        line = self.process.stdout.readline()
        assert line.startswith("SSH_AUTH_SOCK="), f"{line!r}, and in its log: {self.log}"

    @property
    def env(self) -> dict[str, str]:
        """What a client needs in its environment."""
        return {"SSH_AUTH_SOCK": str(self.socket)}

    @property
    def pid(self) -> int:
        """The process that serves: the first that the one which was started has forked, if it has any."""
        started = _command(self.process.pid)
        forked = [pid for pid in descendants(self.process.pid) if _command(pid) == started]
        return min(forked, key=_age, default=self.process.pid)

    @property
    def processes(self) -> list[int]:
        """The process ids of the agent and of all that runs for it."""
        return [self.process.pid, *descendants(self.process.pid)]

    @property
    def log(self) -> str:
        """What the agent has written to standard error so far."""
        return self._log.read_text()

    def run(self, *argv: str | Path, text: str | bytes = "", typing: Sequence[tuple[str, str]] = ()) -> Done:
        """Runs a client of this agent."""
        return self.home.run(*argv, env=self.env, text=text, typing=typing)

    def ssh_add(self, *arguments: str | Path, typing: Sequence[tuple[str, str]] = ()) -> Done:
        """Runs ssh-add with this agent."""
        return self.run("ssh-add", *arguments, typing=typing)

    def add_provider(self, module: str | Path, pin: str) -> Done:
        """`ssh-add -s module`, with the PIN typed at its prompt."""
        return self.ssh_add("-s", module, typing=[(PIN_PROMPT, pin)])

    def connect(self, timeout: float = 30) -> Connection:
        """Opens a raw connection."""
        return Connection(self.socket, timeout)

    @property
    def control(self) -> Path:
        """Its control socket, which it makes while it answers its first clients."""
        path = Path(f"{self.socket}.control")

        def accepts() -> bool:
            with socket.socket(socket.AF_UNIX) as client:
                return client.connect_ex(str(path)) == 0

        eventually(accepts, "the control socket")
        return path

    def alive(self) -> bool:
        """Whether the agent runs and answers a listing."""
        with self.connect() as connection:
            return self.process.poll() is None and connection.ask(LIST_REQUEST)[:1] == b"\x0c"

    def children(self) -> list[int]:
        """The process ids of all that runs for the agent: workers, prompts."""
        serving = self.pid
        return [pid for pid in descendants(self.process.pid) if pid != serving]

    def stop(self) -> int:
        """Ends the agent as `ssh-agent -k` does, and returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=20)
        finally:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout
            self.process.stdout.close()


def openssh_release() -> tuple[int, int]:
    """Of the OpenSSH at hand: (9, 2) is Debian 12's."""
    said = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=True).stderr
    major, minor = said.removeprefix("OpenSSH_").partition("p")[0].split(".")
    return int(major), int(minor)


StartAgent = Callable[..., Agent]
"""What the fixture `start_agent` gives: `Agent` without its first two arguments, which it knows."""


class Connection:
    """A raw connection to an agent: whole frames, or whatever bytes a test wants to send."""

    def __init__(self, path: Path, timeout: float) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Blocking, to wait while the queue of connections is full: with a time-out that is EAGAIN at once.
        self.socket.connect(str(path))
        self.socket.settimeout(timeout)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def ask(self, frame: bytes) -> bytes:
        """Sends a frame and returns the contents of the reply, its type first; empty at the end."""
        self.socket.sendall(frame)
        return self.reply()

    def reply(self) -> bytes:
        """Reads one reply's contents; empty if the agent closed the connection instead."""
        try:
            head = self._read(4)
            return self._read(struct.unpack(">I", head)[0]) if head else b""
        except ConnectionResetError:
            return b""

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            if not piece:
                assert not data, "the agent closed in the middle of a reply"
                return b""
            data += piece
        return data


def frame(contents: bytes) -> bytes:
    """A message as it is on the wire (RFC 9987 section 3)."""
    return struct.pack(">I", len(contents)) + contents


def string(value: bytes) -> bytes:
    """An SSH string (RFC 4251 section 5)."""
    return struct.pack(">I", len(value)) + value


def sign_request(key: bytes, data: bytes = b"data", flags: int = 0) -> bytes:
    """A framed SSH_AGENTC_SIGN_REQUEST."""
    return frame(b"\x0d" + string(key) + string(data) + struct.pack(">I", flags))


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _age(pid: int) -> tuple[int, int]:
    """What is smaller for an older process."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]), pid
    except (FileNotFoundError, ProcessLookupError):
        return sys.maxsize, pid


def descendants(pid: int) -> list[int]:
    """The process ids of everything this process has started, and they, that still runs."""
    found = []
    # Not [0-9]*/stat, as glob would fail if a process ends meanwhile.
    for process in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (process / "stat").read_text().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(parent) == pid and state != "Z":
            child = int(process.name)
            found += [child, *descendants(child)]
    return found
