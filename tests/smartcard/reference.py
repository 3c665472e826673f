"""What a fresh pkcs11-tool needs for a signature, at any moment of a test, on a card that is like the test's.

The card has a pcscd of its own, so that neither disturbs the other: only the machine is the same.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from rigs.home import Home
from rigs.pcscd import home_with_pcscd
from rigs.piv_card import PIN, Card
from rigs.terminal import Done


def sign_with_pkcs11_tool(home: Home, module: Path) -> Done:
    """A signature by the key in slot 9a, in `home`."""
    digest = home.write("digest", hashlib.sha256(b"data").digest())
    return home.run(
        "pkcs11-tool", "--module", module, "--login", "--pin", PIN, "--sign", "--id", "01",
        "--mechanism", "ECDSA", "--input-file", digest, "--output-file", "/dev/null",
    )  # fmt: skip


class Reference:
    """pkcs11-tool in `home`, which takes turns with nobody."""

    def __init__(self, home: Home, module: Path) -> None:
        self._home = home
        self._module = module
        self._runs = ThreadPoolExecutor(1)

    def begin(self) -> Future[float]:
        """Has it sign beside what the caller does meanwhile; how many seconds it took."""
        return self._runs.submit(self.sign)

    def sign(self) -> float:
        """Has it sign; how many seconds it took."""
        begin = time.monotonic()
        done = sign_with_pkcs11_tool(self._home, self._module)
        assert done.status == 0, done
        return time.monotonic() - begin


@contextmanager
def reference(module: Path, latency: float) -> Iterator[Reference]:
    """One with a card of which each command takes `latency` seconds."""
    with home_with_pcscd() as (home, pcscd):
        card = Card()
        card.latency = latency
        pcscd.slot.insert(card)
        pcscd.await_present()
        yield Reference(home, module)
