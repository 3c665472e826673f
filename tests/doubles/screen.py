"""A terminal and the person in front of it, for prompts that are asked there."""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
import termios

from replug.token.prompts.dialog import readable
from replug.token.prompts.place import Terminal
from replug.token.prompts.terminals import Terminals
from replug.token.worker.forking import ForkServer


class Screen:
    """A pseudo-terminal: what is shown on it and what is typed at it."""

    def __init__(self, fork_server: ForkServer) -> None:
        self._fork_server = fork_server
        self._master, self.keyboard = os.openpty()
        os.set_blocking(self._master, False)
        self.path = os.ttyname(self.keyboard)
        self.shown = ""
        self._program: subprocess.Popen[bytes] | None = None

    @property
    def program(self) -> int:
        """The process id of a program in the foreground here, which waits."""
        if self._program is None:
            self._program = subprocess.Popen(
                ["/bin/sleep", "600"],
                start_new_session=True,
                preexec_fn=lambda: fcntl.ioctl(self.keyboard, termios.TIOCSCTTY, 0),
            )
        return self._program.pid

    @property
    def terminal(self) -> Terminal:
        return Terminal(self.path, os.fstat(self.keyboard).st_rdev, self.program)

    @property
    def terminals(self) -> Terminals:
        """What uses it for a prompter."""
        return Terminals(self._fork_server)

    @property
    def mode(self) -> list:
        return termios.tcgetattr(self.keyboard)

    def size(self, rows: int, columns: int) -> None:
        termios.tcsetwinsize(self.keyboard, (rows, columns))

    def set_single_keys(self, vmin: int = 1) -> None:
        """As an editor does that starts here."""
        mode = self.mode
        mode[6][termios.VMIN] = vmin
        mode[3] &= ~termios.ICANON
        termios.tcsetattr(self.keyboard, termios.TCSANOW, mode)

    async def shows(self, text: str) -> None:
        """Wait until the text is there, in any of what was shown so far."""
        async with asyncio.timeout(15):
            while text not in self.shown:
                await readable(self._master)
                self.shown += os.read(self._master, 4096).decode().replace("\r\n", "\n")

    def type(self, keys: str | bytes) -> None:
        os.write(self._master, keys.encode() if isinstance(keys, str) else keys)

    def hang_up(self) -> None:
        """Close the window."""
        os.close(self.keyboard)
        os.close(self._master)
        self._master = self.keyboard = -1

    def close(self) -> None:
        if self._master >= 0:
            self.hang_up()
        if self._program is not None:
            self._program.kill()
            self._program.wait()
