"""`replug keygen` with a PIV card, on which no module makes keys with the user's PIN."""

from __future__ import annotations

import sys
from pathlib import Path

from rigs.home import Home
from rigs.pcscd import Pcscd
from rigs.piv_card import Card

REPLUG = Path(sys.executable).with_name("replug")


def test_the_right_tool_is_named_and_the_card_left_alone(home: Home, pcscd: Pcscd, module: Path) -> None:
    card = Card(keys={})
    pcscd.slot.insert(card)
    pcscd.await_present()

    done = home.run(REPLUG, "keygen", f"pkcs11:?module-path={module}")

    assert (done.status, done.out) == (1, "")
    assert "keys are not made with the PIN on this kind of token, but with its own tool" in done.err
    assert "ykman piv keys generate -a ECCP256 9a public.pem" in done.err
    assert (card.verifies, card.tries_left) == (0, 3)
