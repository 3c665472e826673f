"""The compiled half of the benchmark: the load and the trivial agent it is measured against."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_SOURCES = Path(__file__).parent
_SLACK = 60.0
"""Seconds beyond its duration after which a load is taken to hang."""


@dataclass(frozen=True)
class Figures:
    """What a load saw; times in microseconds."""

    replies: int
    failures: int
    seconds: float
    p50: float
    p99: float
    p999: float
    max: float
    cpu: float
    """Of the load itself, over all replies."""

    @property
    def throughput(self) -> float:
        """Replies per second."""
        return self.replies / self.seconds


@dataclass(frozen=True)
class Programs:
    """The folder with the compiled programs."""

    folder: Path

    def load(
        self,
        socket: Path,
        request: bytes,
        *,
        seconds: float,
        clients: int = 1,
        reconnect: bool = False,
        rest: float = 0.0,
        count: int | None = None,
    ) -> Figures:
        """Sends `request` (a frame) for some seconds, or until `count` replies; see load.c."""
        load = self.start_load(
            socket,
            request,
            seconds=seconds,
            clients=clients,
            reconnect=reconnect,
            rest=rest,
            count=count,
        )
        return finished(load, seconds)

    def start_load(
        self,
        socket: Path,
        request: bytes,
        *,
        seconds: float,
        clients: int = 1,
        reconnect: bool = False,
        rest: float = 0.0,
        count: int | None = None,
    ) -> subprocess.Popen[bytes]:
        """The same in the background, for `finished`."""
        options = ["-r"] if reconnect else []
        options += ["-p", str(round(rest * 1e6))] if rest else []
        options += ["-m", str(count)] if count is not None else []
        process = subprocess.Popen(
            [self.folder / "load", *options, str(socket), str(clients), str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdin
        process.stdin.write(request)
        process.stdin.close()
        process.stdin = None  # for communicate()
        return process

    @contextmanager
    def trivial_agent(self, socket: Path, reply: bytes) -> Iterator[subprocess.Popen[bytes]]:
        """An agent that answers everything with `reply` (a frame)."""
        process = subprocess.Popen(
            [self.folder / "echo", str(socket)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdin
        assert process.stdout
        try:
            process.stdin.write(reply)
            process.stdin.close()
            assert process.stdout.readline() == b"listening\n"
            yield process
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def build(folder: Path) -> Programs:
    """Compiles them into `folder`."""
    for name in ("load", "echo"):
        subprocess.run(
            ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", folder / name, _SOURCES / f"{name}.c"],
            check=True,
        )
    return Programs(folder)


def finished(load: subprocess.Popen[bytes], seconds: float) -> Figures:
    """Waits for a load of so many seconds, and reads its figures."""
    try:
        out, _ = load.communicate(timeout=seconds + _SLACK)
    finally:
        load.kill()
        load.wait()
    assert load.returncode == 0, f"the load ended with {load.returncode}"
    values = dict(line.split() for line in out.decode().splitlines())
    return Figures(
        replies=int(values.pop("replies")),
        failures=int(values.pop("failures")),
        **{name: float(value) for name, value in values.items()},
    )
