"""When the user is asked before a signature: `confirm` in the configuration, and `ssh-add -c`."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Flag
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from replug.protocol.purpose import Purpose


class ConfirmWhen(Flag):
    """The requests that need a yes. Of two settings, `|` is the stricter."""

    NEVER = 0
    FORWARDED = 1
    """Those that come, or may come, from a program on another host."""
    OTHER = 2
    """Those for anything but a login at a host that is known by its key."""
    LOGIN = 4
    """Those that are neither."""
    AGAIN = 8
    """Also those that a remembered yes would answer."""
    ALWAYS = FORWARDED | OTHER | LOGIN
    EACH_TIME = ALWAYS | AGAIN
    """That of `ssh-add -c`, which no configuration relaxes."""

    def asks(self, purpose: Purpose) -> bool:
        """Whether a signature for `purpose` needs a yes."""
        kind = ConfirmWhen.LOGIN
        if purpose.forwarded:
            kind |= ConfirmWhen.FORWARDED
        if not purpose.is_login:
            kind |= ConfirmWhen.OTHER
        return bool(self & kind)

    @classmethod
    def of(cls, words: Iterable[str]) -> ConfirmWhen:
        """Return what asks in each of the cases that `words` name."""
        together = cls.NEVER
        for word in words:
            together |= WORDS[word]
        return together

    @property
    def words(self) -> list[str]:
        """The cases, as `of` reads them; without meaning for NEVER and what includes ALWAYS."""
        return [word for word, case in WORDS.items() if case in self]


WORDS = {"forwarded": ConfirmWhen.FORWARDED, "other": ConfirmWhen.OTHER}
"""The cases that `confirm` can name."""
