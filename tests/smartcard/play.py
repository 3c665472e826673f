"""A virtual card in a reader, to play with by hand: `.venv/bin/python tests/smartcard/play.py`.

It says what to set in another shell, so that programs there use this reader, and takes orders: try `help`.
"""

from __future__ import annotations

import cmd
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from rigs.pcscd import OPENSC, YKCS11, Pcscd, home_with_pcscd
from rigs.piv_card import PIN, Card


class Play(cmd.Cmd):
    """The orders; each method's first line is its help."""

    prompt = "card> "

    def __init__(self, pcscd: Pcscd) -> None:
        super().__init__()
        self._pcscd = pcscd
        self._cards = [Card(), Card(serial=5004321)]
        self._pcscd.slot.insert(self._cards[0])
        self.intro = (
            f"A card with the PIN {PIN} is in the reader. In another shell:\n"
            f"  export PCSCLITE_CSOCK_NAME={pcscd.socket}\n"
            f"  ssh-add -s {OPENSC}   # or {YKCS11}\n"
        )

    def onecmd(self, line: str) -> bool:
        """Carries out an order; one that does not fit is no reason to end."""
        try:
            return super().onecmd(line)
        except AssertionError as error:
            print(error)
            return False

    def do_remove(self, _: str) -> None:
        """Pull the card out."""
        self._pcscd.slot.remove()

    def do_insert(self, _: str) -> None:
        """Put the card back."""
        self._pcscd.slot.insert(self._cards[0])

    def do_other(self, _: str) -> None:
        """Put the other card in, instead of the one that is there."""
        self._cards.reverse()
        if self._pcscd.slot.card:
            self._pcscd.slot.remove()
        self._pcscd.slot.insert(self._cards[0])

    def do_blinking(self, _: str) -> None:
        """From now on signatures wait for a touch; or no longer."""
        self._cards[0].needs_touch = not self._cards[0].needs_touch
        print("signatures wait for a touch" if self._cards[0].needs_touch else "no touch is needed")

    def do_touch(self, _: str) -> None:
        """Touch the card."""
        self._cards[0].touch()

    def do_restart(self, _: str) -> None:
        """Restart pcscd."""
        self._pcscd.restart()

    def do_status(self, _: str) -> None:
        """What has been done to the card."""
        card = self._cards[0]
        where = "in the reader" if self._pcscd.slot.card is card else "out"
        print(
            f"card {card.serial} is {where}: {card.signatures} signatures, {card.verifies} PINs sent,"
            f" {card.wrong_pins} of them wrong, {card.tries_left} tries left"
        )

    def do_quit(self, _: str) -> bool:
        """End all this; so does the end of input."""
        return True

    do_EOF = do_quit  # noqa: N815 - the name that cmd wants


def main() -> None:
    """Plays until told to quit."""
    with home_with_pcscd() as (_, pcscd):
        Play(pcscd).cmdloop()


if __name__ == "__main__":
    main()
