"""Running a program as a person does: its output, its exit status, and answers typed at its prompts."""

from __future__ import annotations

import fcntl
import os
import select
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Done:
    """What a program that ended left behind."""

    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """Standard output's lines, sorted: SoftHSM finds a token's objects in no fixed order."""
        return sorted(self.out.splitlines())


def run(
    *argv: str | Path,
    env: Mapping[str, str],
    text: str | bytes = "",
    typing: Sequence[tuple[str, str]] = (),
    cwd: Path | None = None,
    timeout: float = 60,
) -> Done:
    """Runs `argv` to its end, with `text` on standard input.

    With `typing`, pairs of a prompt and the answer to it, the program has a terminal of its own instead:
    each answer is typed when its prompt has appeared. Standard output and error stay apart from it.
    """
    command = [str(argument) for argument in argv]
    if typing:
        return _run_on_terminal(command, env, typing, cwd, timeout)
    stdin = text.encode() if isinstance(text, str) else text
    process = subprocess.run(
        command, env=env, input=stdin, capture_output=True, cwd=cwd, timeout=timeout, start_new_session=True
    )
    return Done(process.returncode, process.stdout.decode(), process.stderr.decode())


def _run_on_terminal(
    command: list[str],
    env: Mapping[str, str],
    typing: Sequence[tuple[str, str]],
    cwd: Path | None,
    timeout: float,
) -> Done:
    screen, keyboard = os.openpty()
    process = subprocess.Popen(
        command,
        env=env,
        stdin=keyboard,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(keyboard)
    try:
        for prompt, answer in typing:
            _read_until(screen, prompt, timeout)
            os.write(screen, answer.encode() + b"\n")
        out, err = process.communicate(timeout=timeout)
    except BaseException:
        process.kill()
        process.communicate()
        raise
    finally:
        os.close(screen)
    return Done(process.returncode, out.decode(), err.decode())


def _read_until(screen: int, prompt: str, timeout: float) -> None:
    seen = b""
    end = time.monotonic() + timeout
    while prompt.encode() not in seen:
        ready, _, _ = select.select([screen], [], [], max(0, end - time.monotonic()))
        assert ready, f"no prompt {prompt!r}, but {seen!r}"
        try:
            seen += os.read(screen, 4096)
        except OSError as error:  # EIO: the program ended
            raise AssertionError(f"no prompt {prompt!r}, but {seen!r}") from error


def eventually(condition: Callable[[], object], what: str, within: float = 10) -> None:
    """Waits until `condition()` is true, at most `within` seconds; for what nobody announces."""
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, f"not within {within} s: {what}"
        time.sleep(0.01)
