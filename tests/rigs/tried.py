"""What a token that is tried with the user's journey (`tests/tokens/`) has to offer; one class for each.

`rigs/tried_softhsm.py` and its neighbours have the classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from rigs.machine import Machine

WRONG_PIN = "654321"


class TriedToken(ABC):
    """A token on a machine of its own: `home`. It is known to p11-kit there, and its PIN is good."""

    title: str
    """What the table calls it."""
    packages: tuple[str, ...]
    """The Debian packages whose versions the table names."""
    module: Path
    """What `ssh-add -s` is given."""
    label = "work"
    pin = "123456"
    unlocking: str | None = None
    """What the advice says when the PIN is locked, as a pattern; None if this token never locks it."""
    plugged = False
    """Whether a user can plug it in, so that this is advice when it is gone."""
    stays = ""
    """Why it cannot be gone while the agent runs."""
    found_again = ""
    """Why it is listed a moment after it is back, and not at once."""
    confuses_breaks = ""
    """Why it may ask for a PIN again that is right, if it was interrupted in the middle of a login."""
    keys_made_elsewhere = ""
    """Why `replug keygen` makes no key on it."""
    bare_module: Path | None = None
    """A module that cannot be added by its path, because it wants arguments that only p11-kit gives it."""

    home: Machine
    publics: Mapping[str, Path]
    """The .pub files of the keys that can sign."""

    @property
    def uri(self) -> str:
        """Its URI, without a module."""
        return f"pkcs11:token={quote(self.label)}"

    @property
    @abstractmethod
    def wrong_pins(self) -> int:
        """How many wrong PINs have arrived at it; at least since the last right one."""

    @abstractmethod
    def take_away(self) -> None:
        """It is gone: pulled, or the service behind the module has been killed."""

    @abstractmethod
    def bring_back(self) -> None:
        """It is back, with the same keys."""

    def interrupt(self) -> None:
        """It is gone for a moment, in the middle of whatever it does."""
        self.take_away()
        self.bring_back()

    def unlock(self) -> None:
        """Another program unlocks the PIN, in the way that `unlocking` names; it is the same PIN."""
        raise NotImplementedError

    def try_pin(self, pin: str) -> str:
        """Another program logs in; the error's CKR name, or nothing."""
        done = self.home.run(
            "pkcs11-tool", "--module", self.module, "--token-label", self.label, "--login", "--pin", pin,
            "--list-objects",
        )  # fmt: skip
        if done.status == 0:
            return ""
        return done.err.partition("C_Login failed: rv = ")[2].split(" ")[0] or done.err

    def close(self) -> None:
        """Ends all that runs for it."""
        self.home.remove()

    def read_publics(self, names: tuple[str, ...]) -> dict[str, Path]:
        """The .pub files of its keys by `ssh-keygen -D`, in the order it lists them."""
        lines = self.home.do("ssh-keygen", "-D", self.module).splitlines()
        kinds = [" ".join(line.split()[:2]) for line in lines]
        assert len(kinds) == len(names), lines
        return {
            name: self.home.write(f"{name}.pub", f"{kind} {name}\n", 0o644)
            for name, kind in zip(names, kinds, strict=True)
        }
