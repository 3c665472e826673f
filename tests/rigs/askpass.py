"""The program that asks a person for a PIN, played by a file."""

from __future__ import annotations

import os

from rigs.home import Home


class Askpass:
    """An SSH_ASKPASS program that answers with the content of a file and records its questions."""

    def __init__(self, home: Home) -> None:
        self._answer = home.folder / "answer"
        self._first = home.folder / "first-answers"
        self._questions = home.write("questions", "")
        program = home.write(
            "askpass",
            f'#!/bin/sh\necho "$1" >>{self._questions}\n'
            f"if [ -s {self._first} ]; then head -n 1 {self._first}; exec sed -i 1d {self._first}; fi\n"
            f"cat {self._answer}\n",
            0o700,
        )
        self.env = {"SSH_ASKPASS": str(program), "SSH_ASKPASS_REQUIRE": "force"}

    def answers(self, pin: str | None) -> None:
        """What to answer from now on; None: cancel."""
        self._answer.unlink(missing_ok=True)
        if pin is not None:
            self._answer.write_text(pin + "\n")

    def answers_first(self, *pins: str) -> None:
        """What to answer to the next questions, before what `answers` was told."""
        self._first.write_text("".join(f"{pin}\n" for pin in pins))

    def answers_when_told(self) -> None:
        """The next question stands until `answer`."""
        self._answer.unlink(missing_ok=True)
        os.mkfifo(self._answer)

    def answer(self, pin: str) -> None:
        """Answers the question that stands."""
        self._answer.write_text(pin + "\n")

    @property
    def text(self) -> str:
        """All questions so far."""
        return self._questions.read_text()

    @property
    def questions(self) -> list[str]:
        """The first line of each question so far; every one of ours begins with the words PIN for."""
        return [line for line in self.text.splitlines() if line.startswith("PIN for")]
