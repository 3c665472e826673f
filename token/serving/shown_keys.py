"""Which keys of a token are offered: it may show some only after login, and some cannot sign."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from replug.token.errors import Verdict, WorkerRefusedError
from replug.token.keys import TokenKey


class OtherKeysError(Exception):
    """The token shows only keys that it did not have before: it is another token, or was reset."""


class ShownKeys:
    """The known keys of a token. Keys that it hides until login are remembered as last seen."""

    def __init__(self, changed: Callable[[], None]) -> None:
        """`changed` is called when other keys are offered than before."""
        self._changed = changed
        self.offered: dict[bytes, TokenKey] = {}
        """By public key blob, in the order they were first offered; some modules show another each time."""
        self._visible: set[bytes] = set()
        self._usable_without_login: set[bytes] = set()
        self._useless: set[bytes] = set()
        self.proven = False
        """Whether the last look without login showed a key that was known before it."""
        self.complete = False
        """Whether it is known which keys can sign: a session that was logged in has shown all of them."""
        self.were_read = False
        """Whether the token has been read; before, what is offered can only be what was recalled."""

    @property
    def known(self) -> set[bytes]:
        """The keys that are this token's: those it showed last, and those it hides until login."""
        return self._visible | self.offered.keys() | self._useless

    def are_others(self, keys: dict[bytes, TokenKey]) -> bool:
        """Whether a token that shows `keys` before login is another one than this."""
        return bool(self.known and keys) and self.known.isdisjoint(keys)

    @property
    def hidden(self) -> frozenset[bytes]:
        """The keys that are offered and not shown before login."""
        return frozenset(self.offered.keys() - self._visible)

    def recall(self, keys: Iterable[TokenKey], hidden: frozenset[bytes]) -> None:
        """Offer keys that the token had when it was last in, before it is read for the first time."""
        if not self.were_read:
            recalled = {key.blob: key for key in keys}
            self._visible = recalled.keys() - hidden
            self._offer(recalled)

    def saw_without_login(self, keys: dict[bytes, TokenKey]) -> None:
        """Note the keys shown before login.

        Raises OtherKeysError if none of them was shown before; they replace the earlier keys then. Raises
        WorkerRefusedError if no key is shown any longer: a fresh worker may see them.
        """
        now = set(keys)
        if not self.were_read:
            self._settle_recalled(keys)
        self.proven = not now.isdisjoint(self.known)
        if self._visible and not now:
            raise WorkerRefusedError(Verdict.FAILED, "the token shows none of its keys")
        if self.are_others(keys):
            self._visible = now
            self.complete = False
            self._offer(keys)
            raise OtherKeysError
        # The private half is visible too, so perhaps it can be used (a PIV key of slot 9e).
        self._usable_without_login = {blob for blob, key in keys.items() if key.signs}
        gone, unknown = self._visible - now, now - self.offered.keys() - self._useless
        self._visible = now
        still_there = {blob: key for blob, key in self.offered.items() if blob not in gone}
        self._offer(still_there | {blob: keys[blob] for blob in keys if blob in unknown})

    def saw_one(self, keys: dict[bytes, TokenKey]) -> None:
        """Note that a token of which nothing is known shows a key without login; no other was looked for."""
        self._visible = set(keys)

    def saw_again(self) -> None:
        """Note that a key that was known before is shown, without login; the others were not looked for."""
        self.proven = True

    @property
    def to_prove_with(self) -> TokenKey | None:
        """A key by which the token can be told from another; None if none is known that has an ID."""
        with_id = [blob for blob, key in self.offered.items() if key.key_id]
        with_id.sort(key=lambda blob: blob not in self._visible)
        return self.offered[with_id[0]] if with_id else None

    def saw_logged_in(self, keys: dict[bytes, TokenKey]) -> None:
        """Note the keys shown after login, or where none is required; those that can sign are offered."""
        self.complete = True
        self.were_read = True
        self._offer({blob: key for blob, key in keys.items() if key.signs})
        self._useless = (self._visible | keys.keys()) - self.offered.keys()

    def lacks_some_of(self, keys: dict[bytes, TokenKey]) -> bool:
        """Whether a key that is offered is not among `keys`, or does not sign there."""
        return any(blob not in keys or not keys[blob].signs for blob in self.offered)

    def may_sign_without_login(self, blob: bytes) -> bool:
        """Whether the private half was visible before login."""
        return blob in self._usable_without_login

    def _settle_recalled(self, keys: dict[bytes, TokenKey]) -> None:
        """Keep what the token shows, and if it is the same token also what it hides until login."""
        is_same = not keys or not self._visible or not self._visible.isdisjoint(keys)
        self.offered = {
            blob: keys.get(blob, key)
            for blob, key in self.offered.items()
            if blob in keys or (is_same and blob not in self._visible)
        }
        self._visible = set()
        self.were_read = True
        self._changed()

    def _offer(self, keys: dict[bytes, TokenKey]) -> None:
        if keys != self.offered:
            self.offered = {blob: keys[blob] for blob in self.offered if blob in keys} | keys
            self._changed()

    def may_have_changed(self) -> None:
        """Have the next login read everything, as another program may have made keys."""
        self.complete = False

    def left(self) -> None:
        """The token is out. What the last login showed stands until another one says otherwise.

        If that was no key that signs, there would be no other login: another program may have been the cause.
        """
        self.complete = False
        if not self.offered:
            self._useless.clear()
