"""The process that uses a terminal for the agent: it opens it, asks or says something there, and restores it.

Whoever made the terminal can have any of these calls wait in the kernel for as long as they like. So they are
made here, where only those wait who are asked for. The process is forked like a worker: its memory never was
open to other programs. It ends with the conversation.
"""

from __future__ import annotations

import math
import os
import select
import socket
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from replug.protocol.secrets import wipe
from replug.token.errors import NobodyAskedError
from replug.token.prompts.place import Terminal
from replug.token.prompts.processes import Process
from replug.token.prompts.typed_line import Outcome, TypedLine
from replug.token.worker.frames import FrameReader, Header, encode

_LOCAL_FLAGS, _CONTROL_CHARACTERS = 3, 6  # indices into the result of tcgetattr
_KEYS = 64  # bytes that are read at once
_PAUSE = 0.02  # seconds until another program's write may be over


class WithdrawnError(Exception):
    """The agent waits no more."""


class Withdrawal:
    """The agent's end of the connection, which it closes when it waits no more; and the time to answer."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self._connection = connection
        self._end = time.monotonic() + seconds

    def wait(self, descriptor: int, events: int) -> None:
        """Wait for `events` of `descriptor`, as in poll(2). TimeoutError, WithdrawnError."""
        self._poll(self._end - time.monotonic(), (descriptor, events))
        if time.monotonic() >= self._end:
            raise TimeoutError

    def pause(self) -> None:
        """Wait a moment. WithdrawnError."""
        self._poll(_PAUSE)

    def _poll(self, seconds: float, *awaited: tuple[int, int]) -> None:
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        for descriptor, events in awaited:
            poll.register(descriptor, events)
        if self._connection.fileno() in dict(poll.poll(math.ceil(1000 * max(0, seconds)))):
            raise WithdrawnError


@contextmanager
def free_terminal(terminal: Terminal) -> Iterator[OpenTerminal]:
    """The terminal, opened, if no other program is using it; its mode is restored afterwards.

    Raises NobodyAskedError if it cannot be used. All this may take for ever.
    """
    path = terminal.path
    if not _in_foreground(terminal):
        raise NobodyAskedError(f"the program is not in the foreground of {path}")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise NobodyAskedError(f"{path} does not open: {error.strerror}") from error
    try:
        mode = termios.tcgetattr(descriptor)
        if os.fstat(descriptor).st_rdev != terminal.device:
            raise NobodyAskedError(f"{path} is another terminal by now")
        if not mode[_LOCAL_FLAGS] & termios.ICANON:
            raise NobodyAskedError(f"a program reads single keys on {path}")
        opened = OpenTerminal(descriptor, mode)
        try:
            yield opened
        finally:
            opened.restore()
    except termios.error as error:
        raise NobodyAskedError(f"{path} is no terminal: {error.args[-1]}") from error
    finally:
        os.close(descriptor)


def _in_foreground(terminal: Terminal) -> bool:
    """Whether the process that has this terminal may use it now: its group is the one in the foreground."""
    process = Process.read(terminal.process)
    if process is None or process.device != terminal.device:
        return False
    return process.group == process.foreground_group


class OpenTerminal:
    """A terminal to write to and read keys from."""

    def __init__(self, descriptor: int, mode: list[Any]) -> None:
        """`mode` is what tcgetattr returned; `restore` sets it again."""
        self.descriptor = descriptor
        self._mode = mode
        self._our_mode: list[Any] | None = None

    @property
    def control_characters(self) -> list[Any]:
        """By termios.VINTR and so on."""
        return self._mode[_CONTROL_CHARACTERS]  # type: ignore[no-any-return]

    def read_single_keys(self) -> None:
        """Receive keys one by one, without echo and without signals: ^C must end the question only.

        What was typed before the question is discarded.
        """
        mode = [*self._mode[:_CONTROL_CHARACTERS], list(self._mode[_CONTROL_CHARACTERS])]
        mode[_LOCAL_FLAGS] &= ~(
            termios.ICANON | termios.ECHO | termios.ECHONL | termios.ISIG | termios.IEXTEN
        )
        mode[_CONTROL_CHARACTERS][termios.VMIN], mode[_CONTROL_CHARACTERS][termios.VTIME] = 1, 0
        # TCSADRAIN and TCSAFLUSH wait for output, which ^S may be holding.
        termios.tcsetattr(self.descriptor, termios.TCSANOW, mode)
        termios.tcflush(self.descriptor, termios.TCIFLUSH)
        self._our_mode = termios.tcgetattr(self.descriptor)

    def restore(self) -> None:
        """Set the first mode again if we changed it, and no other program, such as a shell, did meanwhile."""
        with suppress(termios.error):  # it was closed
            if self._our_mode is not None and self._our_mode == termios.tcgetattr(self.descriptor):
                termios.tcsetattr(self.descriptor, termios.TCSANOW, self._mode)

    def write(self, text: str, withdrawal: Withdrawal) -> None:
        """Show `text`; OSError if the terminal is gone."""
        rest = text.encode()
        while rest:
            try:
                rest = rest[os.write(self.descriptor, rest) :]
            except BlockingIOError:
                withdrawal.wait(self.descriptor, select.POLLOUT)
                withdrawal.pause()  # while another program's write goes on, poll(2) does not wait

    def write_some(self, text: str) -> None:
        """Show as much of `text` as there is room for: ^S may be holding the output."""
        with suppress(OSError):
            os.write(self.descriptor, text.encode())

    def read(self, keys: bytearray, withdrawal: Withdrawal) -> int:
        """Fill `keys` with what is typed; returns the number of bytes, 0 if the terminal is gone."""
        while True:
            withdrawal.wait(self.descriptor, select.POLLIN)
            try:
                return os.readv(self.descriptor, [keys])
            except BlockingIOError:
                withdrawal.pause()
            except OSError:
                return 0


def work(connection: socket.socket) -> NoReturn:
    """Have the one conversation that is asked for on `connection`, answer there, and end the process."""
    # Where it is not the controlling terminal, no stty(1) stops whoever writes or reads in the background.
    os.setsid()
    task = _received(connection)
    try:
        answer, typed = _converse(Terminal(*task["terminal"]), task, connection)
    except NobodyAskedError as error:
        answer, typed = {"outcome": Outcome.UNUSABLE, "reason": error.reason}, bytearray()
    except WithdrawnError:
        os._exit(0)
    frame = encode(answer, typed)
    try:
        connection.sendall(frame)
    finally:
        wipe(frame)
        wipe(typed)
    os._exit(0)


def _received(connection: socket.socket) -> Header:
    frames = FrameReader()
    while True:
        with frames.writable() as space:
            count = connection.recv_into(space)
        if count == 0:
            os._exit(0)
        frames.received(count)
        if task := frames.take():
            return task[0]


def _converse(terminal: Terminal, task: Header, connection: socket.socket) -> tuple[Header, bytearray]:
    """What the agent is answered, and what was typed. NobodyAskedError, WithdrawnError."""
    withdrawal = Withdrawal(connection, task["seconds"])
    with free_terminal(terminal) as opened:
        match task["operation"]:
            case "ask":
                outcome, typed = _ask(opened, task, withdrawal)
            case "say":
                opened.write_some(task["text"])
                outcome, typed = Outcome.DONE, bytearray()
            case _:  # to find out whether it is free
                outcome, typed = Outcome.DONE, bytearray()
    return {"outcome": outcome}, typed


def _ask(opened: OpenTerminal, task: Header, withdrawal: Withdrawal) -> tuple[Outcome, bytearray]:
    """How the question ended, and the line that was typed as answer."""
    opened.read_single_keys()
    line = TypedLine(opened.control_characters, task["most"])
    end = "\n"
    try:
        opened.write(task["text"], withdrawal)
        while line.outcome is None:
            keys = bytearray(_KEYS)
            try:
                shown = line.take(keys, opened.read(keys, withdrawal))
            finally:
                wipe(keys)
            if task["echo"]:
                opened.write(shown, withdrawal)
    except TimeoutError:
        end = "\n(no answer in time)\n"
        line.outcome = Outcome.LATE
    except OSError:
        line.outcome = Outcome.LOST
    finally:
        if line.outcome is not Outcome.ENTERED:
            line.wipe()
        opened.write_some(end)
    return line.outcome, line.typed if line.outcome is Outcome.ENTERED else bytearray()
