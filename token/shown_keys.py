"""Which keys a token offers: what it shows before login, what after, and what turned out not to sign."""

from __future__ import annotations

from collections.abc import Callable

from replug.token.errors import Verdict, WorkerRefusedError
from replug.token.keys import TokenKey


class OtherKeysError(Exception):
    """The token shows none of the keys it had, but others: it is not what it was."""


class ShownKeys:
    """The known keys of a token. Those that it hides until login stay as they were when last seen."""

    def __init__(self, changed: Callable[[], None]) -> None:
        """`changed` is called when other keys are offered than before."""
        self._changed = changed
        self.offered: dict[bytes, TokenKey] = {}
        """By public key blob, in the token's order."""
        self._visible: set[bytes] = set()
        self._usable_without_login: set[bytes] = set()
        self._useless: set[bytes] = set()

    def saw_without_login(self, keys: dict[bytes, TokenKey]) -> None:
        """These were shown before login.

        Raises OtherKeysError if they have nothing in common with those before, after which they are what the
        token has; WorkerRefusedError if there are none any more, which a fresh worker may see otherwise.
        """
        now = set(keys)
        if self._visible and not now:
            raise WorkerRefusedError(Verdict.FAILED, "the token shows none of its keys")
        if self._visible and not self._visible & now:
            self._visible = now
            self._offer(keys)
            raise OtherKeysError
        # The private half is visible too, so perhaps it can be used (a PIV key of slot 9e).
        self._usable_without_login = {blob for blob, key in keys.items() if key.signs}
        gone, unknown = self._visible - now, now - self.offered.keys() - self._useless
        self._visible = now
        still_there = {blob: key for blob, key in self.offered.items() if blob not in gone}
        self._offer(still_there | {blob: keys[blob] for blob in keys if blob in unknown})

    def saw_logged_in(self, keys: dict[bytes, TokenKey]) -> None:
        """These were shown after login, or where none is required: only what can sign is offered."""
        self._offer({blob: key for blob, key in keys.items() if key.signs})
        self._useless = self._visible - self.offered.keys()

    def lacks_some_of(self, keys: dict[bytes, TokenKey]) -> bool:
        """Whether a key that is offered is not among `keys`, or does not sign there."""
        return any(blob not in keys or not keys[blob].signs for blob in self.offered)

    def may_sign_without_login(self, blob: bytes) -> bool:
        """Whether its private half was visible before login."""
        return blob in self._usable_without_login

    def _offer(self, keys: dict[bytes, TokenKey]) -> None:
        if keys != self.offered or [*keys] != [*self.offered]:
            self.offered = keys
            self._changed()

    def forget_useless(self) -> None:
        """What did not sign may do so when the token is back: it may be another program's doing."""
        self._useless.clear()
