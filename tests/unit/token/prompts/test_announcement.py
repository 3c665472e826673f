"""What is said on the terminal of a program that waits, and that nothing else happens there."""

from __future__ import annotations

import os
import select
import termios

import pytest
from doubles.screen import Screen
from doubles.stand_ins import run

from replug.token.prompts.announcement import announce
from replug.token.prompts.terminal_program import free_terminal

TEXT = "replug-agent: plug in it to go on"


@pytest.fixture
def program(screen: Screen) -> int:
    """The process id of a program in the foreground of the screen."""
    return screen.program


def said(screen: Screen, pid: int | None) -> str:
    """What has been written on the screen once it was announced."""

    async def main() -> None:
        await announce(TEXT, pid, screen.terminals)
        os.write(screen.keyboard, b"end")
        await screen.shows("end")

    run(main())
    return screen.shown.removesuffix("end")


def test_it_is_one_line_and_changes_nothing(screen: Screen, program: int) -> None:
    mode = screen.mode
    mode[3] &= ~termios.ECHO
    termios.tcsetattr(screen.keyboard, termios.TCSANOW, mode)
    screen.type("typed ahead\n")
    assert said(screen, program) == f"{TEXT}\n"
    assert screen.mode == mode
    assert os.read(screen.keyboard, 100) == b"typed ahead\n"


def test_a_mode_that_the_program_sets_meanwhile_stays(screen: Screen) -> None:
    with free_terminal(screen.terminal) as opened:
        screen.set_single_keys()
        opened.write_some(TEXT)
    assert not screen.mode[3] & termios.ICANON


def test_a_program_that_reads_single_keys_is_left_alone(screen: Screen, program: int) -> None:
    screen.set_single_keys()
    assert said(screen, program) == ""


def test_output_that_is_held_is_not_waited_for(screen: Screen, program: int) -> None:
    termios.tcflow(screen.keyboard, termios.TCOOFF)
    run(announce(TEXT, program, screen.terminals))
    assert not select.select([screen.keyboard], [], [], 0)[0]


@pytest.mark.parametrize("pid", [None, 2**22])
def test_a_program_that_is_not_known_has_no_terminal(pid: int | None, screen: Screen) -> None:
    assert said(screen, pid) == ""
