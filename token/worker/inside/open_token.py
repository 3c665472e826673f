"""A token with a session on it, in the worker: one session, which sees what is public, and logs in."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from pkcs11 import Mechanism, PKCS11Error, SlotFlag, TokenFlag

from replug.token.errors import Verdict
from replug.token.worker.inside.calls import calling
from replug.token.worker.inside.cryptoki import CallError, Cryptoki, User
from replug.token.worker.inside.loop import RefusedError
from replug.token.worker.inside.objects import FoundKey, PrivateObject, TokenObjects, Values

_ALREADY_LOGGED_IN = "CKR_USER_ALREADY_LOGGED_IN"


class OpenToken:
    """A token with a session on it, and the keys that the session has shown."""

    def __init__(
        self, token: Any, cryptoki: Cryptoki, progress: Callable[[], None], *, writing: bool = False
    ) -> None:
        """`token` is python-pkcs11's; `progress` is called for each object that is read.

        With `writing` objects can be made in the session.
        """
        self._progress = progress
        self.slot = slot = token.slot
        self.slot_id: int = slot.slot_id
        self.removable = SlotFlag.REMOVABLE_DEVICE in slot.flags
        """Whether the slot is one that tokens can be removed from."""
        self._cryptoki = cryptoki
        with calling("C_OpenSession"):
            self.session = token.open(rw=writing)
        self._handle: int = self.session.handle
        self._logged_in = False
        self._needs_login = TokenFlag.LOGIN_REQUIRED in token.flags
        self._keys: dict[str, FoundKey] = {}
        self._objects = TokenObjects(self, _mechanisms(slot))

    def find(self, most: int, wanted: Values) -> list[int]:
        """C_FindObjects."""
        return self._cryptoki.find(self._handle, most, wanted)

    def read(self, handle: int, types: tuple[int, ...]) -> Values:
        """C_GetAttributeValue."""
        self._progress()
        return self._cryptoki.read(self._handle, handle, types)

    def find_keys(self) -> list[FoundKey]:
        """The keys on the token, which may have changed since the last time."""
        found = self._objects.find_keys()
        self._keys = {key.reference: key for key in found}
        return found

    def find_one(self) -> list[FoundKey]:
        """Any one of the public keys, if the token shows one."""
        found = self._objects.find_one()
        self._keys |= {key.reference: key for key in found}
        return found

    def find_key(self, key_id: bytes) -> list[FoundKey]:
        """Those with this CKA_ID; the private ones only if they can be seen now."""
        found = self._objects.find_key(key_id, with_private=self._logged_in or not self._needs_login)
        self._keys |= {key.reference: key for key in found}
        return found

    def prove_alive(self) -> None:
        """Raise an error if the session has ended, or its first key is another one than before."""
        for key in self._keys.values():
            if self._objects.material(key.handle, key.record["kind"]) != key.record["material"]:
                raise RefusedError(Verdict.FAILED, "the session shows another key than before")
            return

    def require_presence(self) -> None:
        """Raise RefusedError if the token has left its slot; costs no command to a card.

        Nothing is asked about a slot that none can be removed from: over a network each call is a round trip.
        """
        if self.removable and self.slot_id not in self._cryptoki.slots_with_token():
            raise RefusedError(Verdict.TOKEN_ABSENT, "the token left its slot")

    def log_in(self, pin: bytearray | None) -> bool:
        """C_Login with the PIN, or None for the token's keypad; False if it was logged in already.

        Then the PIN has not been compared with the token's.
        """
        already = False
        try:
            self._cryptoki.log_in(self._handle, User.ORDINARY, pin)
        except CallError as error:
            already = error.name == _ALREADY_LOGGED_IN
            if not already:
                raise
        self._logged_in = True
        return not already

    def private(self, reference: str, key_id: bytes, candidate: int) -> tuple[PrivateObject, int]:
        """One of the private keys that may belong to this key, and how many there are."""
        if reference not in self._keys or not self._keys[reference].privates:
            found = self._objects.find_key(key_id, with_private=True) if key_id else self.find_keys()
            self._keys |= {key.reference: key for key in found}
        known = self._keys.get(reference)
        if known is None or not known.privates:
            raise RefusedError(Verdict.NOT_LOGGED_IN, "the private key is not visible")
        return known.privates[candidate], len(known.privates)

    def sign(
        self, private: PrivateObject, mechanism: Mechanism, data: bytes, size: int, pin: bytearray | None
    ) -> bytes:
        """C_SignInit, C_Login if the key wants it at every use (None is the keypad), C_Sign."""
        self._cryptoki.begin_signature(self._handle, mechanism, private.handle)
        if private.always_authenticate:
            self._cryptoki.log_in(self._handle, User.CONTEXT_SPECIFIC, pin)
        return self._cryptoki.sign(self._handle, data, size)

    def end(self) -> None:
        """C_Logout if it logged in, and C_CloseSession."""
        with contextlib.suppress(PKCS11Error):
            if self._logged_in:
                self._cryptoki.log_out(self._handle)
        with contextlib.suppress(PKCS11Error):
            self.session.close()


def _mechanisms(slot: Any) -> set[int]:
    """C_GetMechanismList; none if the module does not say."""
    try:
        return {int(mechanism) for mechanism in slot.get_mechanisms()}
    except PKCS11Error:
        return set()
