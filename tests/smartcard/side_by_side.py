"""A card is pulled out and put back, and `ssh` is run again: with OpenSSH's agent, then with replug.

The card has a key that wants the PIN once and another that wants it for every signature, as most YubiKeys
that were set up for more than one purpose; the key used is the first. It is a card in a reader that stays.
"""

from __future__ import annotations

import signal
import sys
import time
from contextlib import closing
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from rigs.agent import PIN_PROMPT
from rigs.home import Home
from rigs.pcscd import OPENSC, NotStartedError, Pcscd, home_with_pcscd
from rigs.pcscd_inside import DRIVER, PCSCD
from rigs.piv_card import PIN, Card
from rigs.piv_keys import Algorithm, Slot
from rigs.shell import Shell, UnexpectedError, say
from rigs.sshd import USER, Server

BREATH = 2
"""Seconds until the person is back at the keyboard; agents may look after cards once in a second."""
LOGIN = "ssh -F host.ssh_config host 'echo Hello, $LOGNAME'"
WORKS = rf"^Hello, {USER}\n$"


def compare(home: Home, pcscd: Pcscd) -> None:
    """Prints what both do, as it is typed; UnexpectedError if it is not as we say."""
    card = Card(keys={Slot.AUTHENTICATION: Algorithm.P256, Slot.SIGNATURE: Algorithm.P256})
    pcscd.slot.insert(card)
    pcscd.await_present()
    Server(home).authorize(card.keys[Slot.AUTHENTICATION].write_public(home, "card"))

    say("A smart card (a virtual one) with two keys; one of them wants the PIN for every signature.")
    for agent, status, seen in (("ssh-agent", 255, "agent refused operation"), ("replug-agent", 0, WORKS)):
        with closing(Shell(home)) as shell:
            say(f"With {agent}:")
            shell.run(f"eval $({agent} -s)", expect=r"^Agent pid \d+")
            shell.run(f"ssh-add -s {OPENSC}", answer=(PIN_PROMPT, PIN), expect=f"Card added: {OPENSC}")
            shell.run(LOGIN, expect=WORKS)
            say("Now the card is pulled out, and put back.")
            pcscd.slot.remove()
            pcscd.await_empty()
            pcscd.slot.insert(card)
            pcscd.await_present()
            time.sleep(BREATH)
            shell.run(LOGIN, status=status, expect=seen)
            shell.run(f"eval $({agent} -k)", expect=r"^Agent pid \d+ killed")


def main() -> int:
    """Compares them in a home of their own, where there can be a card; the exit status."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    needed = {"pcscd": PCSCD, "vsmartcard-vpcd": DRIVER, "opensc-pkcs11": OPENSC}
    missing = [package for package, path in needed.items() if not path.exists()]
    if missing:
        say(f"Not shown, for want of {', '.join(missing)}: a card that is pulled out and put back.")
        return 0
    try:
        with home_with_pcscd() as (home, pcscd):
            compare(home, pcscd)
    except NotStartedError as error:
        say(f"Not shown: a card that is pulled out and put back. {error}")
    except UnexpectedError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
