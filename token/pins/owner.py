"""The token that a PIN is for: one that a module shows, known by its identity and its keys."""

from __future__ import annotations

from typing import Protocol

from replug.token.identity import TokenId
from replug.token.names.load_arguments import passes_on


class Keys(Protocol):
    """What is known of a token's keys, kept up to date by others."""

    @property
    def known(self) -> set[bytes]:
        """Those that are this token's, by their blobs."""

    proven: bool
    """Whether the last look without login showed one that was known before it."""


class PinOwner:
    """A token at one module. Label and serial are easily copied, so a PIN is not for all that have them."""

    def __init__(self, module: str, token: TokenId, keys: Keys) -> None:
        """`module` is its canonical path."""
        self.module = module
        self.token = token
        self.keys = keys
        self.has_twin = False
        """Whether the module has shown another token with this identity."""

    def is_same_token(self, other: PinOwner) -> bool:
        """Whether a PIN for `other` is one for this: between local modules, a key in common is the proof.

        One module shows a token once: another one that is alike is a twin, though it may have the same keys.
        """
        if self is other or self.module == other.module:
            return self is other
        if passes_on(self.module) or passes_on(other.module):
            # Whatever answers there can show public keys that it has read elsewhere.
            return False
        alike = self.token.original == other.token.original
        return alike and not self.keys.known.isdisjoint(other.keys.known)

    def may_be_same_token(self, other: PinOwner) -> bool:
        """Whether what `other` has refused would be refused here: in doubt it would, as that costs no try."""
        if self.module != other.module and (passes_on(self.module) or passes_on(other.module)):
            return False
        mine, its = self.keys.known, other.keys.known
        if not mine.isdisjoint(its):
            return True
        # One module has others with its name: cards with zeros for a serial, all FIDO keys of a library.
        told_apart = self.module == other.module and mine and its
        return self.token.original == other.token.original and not told_apart

    @property
    def may_be_another(self) -> bool:
        """Whether what is open now may be the twin: it has not shown a key that was there before."""
        return self.has_twin and not self.keys.proven
