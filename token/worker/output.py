"""What a module writes to its standard output and error, as lines of the log that say whose they are.

The log must not be the module's: it gets few lines, short ones, and no way to begin one itself. It is always
read on, as a module that cannot write would stand still, but no faster than the agent has time for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os

log = logging.getLogger(__name__)

_LONGEST_LINE = 300  # bytes
_LINES_AT_ONCE = 20
_SECONDS_PER_LINE = 3.0
_MOST_LINES = 500
_APART = 0.05  # seconds between looks
_LOOK = 64 * 1024  # bytes; as much as a pipe holds
_SILENCE = 60.0  # seconds between notes of what was left out
_MOST_PIPES = 4
"""A process that a module leaves behind may keep one open for ever."""


class _Pipe:
    """The reading end of one worker's output."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.begun = b""
        """The beginning of a line that has no end yet."""


class ModuleOutput:
    """The output of the workers of the module at `path`."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._pipes: list[_Pipe] = []
        self._lines = 0
        """How many were logged."""
        self._allowed = float(_LINES_AT_ONCE)
        self._counted = 0.0
        self._left_out = 0
        self._noted: float | None = None

    def new_pipe(self) -> int:
        """The end for a worker to write to, which the caller closes. Raises OSError."""
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(writing, True)  # a module need not know what to do otherwise
        pipe = _Pipe(reading)
        self._pipes.append(pipe)
        for oldest in self._pipes[:-_MOST_PIPES]:
            self._close(oldest)
        self._watch(pipe)
        return writing

    def close(self) -> None:
        """Read no more."""
        for pipe in list(self._pipes):
            self._close(pipe)

    def _watch(self, pipe: _Pipe) -> None:
        if pipe in self._pipes:
            asyncio.get_running_loop().add_reader(pipe.descriptor, self._readable, pipe)

    def _readable(self, pipe: _Pipe) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(pipe.descriptor)
        try:
            data = os.read(pipe.descriptor, _LOOK)
        except BlockingIOError:
            data = None
        if data == b"":
            self._take(pipe, b"\n" if pipe.begun else b"")
            self._close(pipe)
            return
        self._take(pipe, data or b"")
        loop.call_later(_APART, self._watch, pipe)

    def _take(self, pipe: _Pipe, data: bytes) -> None:
        *lines, rest = (pipe.begun + data).split(b"\n", self._room())
        self._left_out += rest.count(b"\n")
        pipe.begun = rest[rest.rfind(b"\n") + 1 :][: _LONGEST_LINE + 1]
        for line in filter(None, map(bytes.strip, lines)):
            self._lines += 1
            self._allowed -= 1
            log.info("module wrote", extra={"path": self._path, "line": _text(line)})
        self._note_what_was_left_out()

    def _room(self) -> int:
        """How many lines may be logged now."""
        now = asyncio.get_running_loop().time()
        self._allowed = min(_LINES_AT_ONCE, self._allowed + (now - self._counted) / _SECONDS_PER_LINE)
        self._counted = now
        return max(0, min(int(self._allowed), _MOST_LINES - self._lines))

    def _note_what_was_left_out(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._left_out and (self._noted is None or now - self._noted > _SILENCE):
            log.info("module wrote more than is logged", extra={"path": self._path, "lines": self._left_out})
            self._noted, self._left_out = now, 0

    def _close(self, pipe: _Pipe) -> None:
        self._pipes.remove(pipe)
        with contextlib.suppress(RuntimeError):  # no loop any more
            asyncio.get_running_loop().remove_reader(pipe.descriptor)
        os.close(pipe.descriptor)


def _text(line: bytes) -> str:
    cut = line if len(line) <= _LONGEST_LINE else line[:_LONGEST_LINE] + b"..."
    return cut.decode(errors="replace")
