"""The worker process: loads one PKCS#11 module and does what the agent asks, one thing at a time.

It is the only process that runs vendor code, and it is disposable: it never tries to mend anything.
An error that is not a verdict is answered with FAILED, and the agent ends this process and starts
another.
"""

from __future__ import annotations

import bisect
import contextlib
import ctypes
import itertools
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pkcs11
from pkcs11 import CancelStrategy, Mechanism, PKCS11Error, SlotFlag
from pkcs11.types import PROTECTED_AUTH

from replug.protocol.secrets import wipe
from replug.token.errors import Verdict
from replug.token.identity import TokenFlag, TokenId, TokenInfo
from replug.token.worker.calls import calling
from replug.token.worker.elf import NotAModuleError, examined
from replug.token.worker.frames import MAX_HEADER, Header, encode
from replug.token.worker.loop import Progress, RefusedError, answer_requests
from replug.token.worker.objects import FoundKey, TolerantMapper, find_keys
from replug.token.worker.opensc import forbid_pin_caching

_KNOWN_FLAGS = sum(TokenFlag)
_MOST_SLOTS = 128
_PCSC_LIBRARY = "/libpcsclite.so"
_PAGE = MAX_HEADER // 2
"""Bytes of keys in one answer, which has other things to say as well."""

_VERDICTS: dict[type[PKCS11Error], Verdict] = {
    pkcs11.FunctionCancelled: Verdict.LOGIN_CANCELLED,
    pkcs11.MechanismInvalid: Verdict.MECHANISM,
    pkcs11.PinExpired: Verdict.PIN_UNUSABLE,
    pkcs11.PinIncorrect: Verdict.PIN_INCORRECT,
    pkcs11.PinInvalid: Verdict.PIN_UNUSABLE,
    pkcs11.PinLenRange: Verdict.PIN_UNUSABLE,
    pkcs11.PinLocked: Verdict.PIN_LOCKED,
    pkcs11.TokenNotPresent: Verdict.TOKEN_ABSENT,
    pkcs11.UserNotLoggedIn: Verdict.NOT_LOGGED_IN,
    pkcs11.UserPinNotInitialized: Verdict.PIN_NOT_SET,
}


class WipeablePin:
    """A PIN as python-pkcs11 takes it: it calls `encode()`, and gets our own buffer instead of a copy."""

    def __init__(self, buffer: bytearray) -> None:
        self._buffer = buffer

    def encode(self, _encoding: str) -> bytearray:
        """The PIN itself. Empty means the keypad, for a context-specific login."""
        return self._buffer


class OpenToken:
    """A token with a session on it, and the keys that session shows."""

    def __init__(self, slot: Any, progress: Callable[[], None]) -> None:
        self._progress = progress
        self.slot_id: int = slot.slot_id
        self._token = slot.get_token()
        self._session = self._new_session(None)
        self.keys: dict[str, FoundKey] = {}
        self.refresh()

    def log_in(self, pin: object) -> None:
        """C_Login with the PIN, or PROTECTED_AUTH; the library logs in only while it opens a session."""
        before, self._session = self._session, self._new_session(pin)
        before.close()
        self.refresh()

    def refresh(self) -> None:
        """Read the keys again: login makes private objects visible."""
        with calling("C_GetAttributeValue"):
            self.keys = {key.reference: key for key in find_keys(self._session, self._progress)}

    def _new_session(self, pin: object) -> Any:
        # By its default the library ends a failed signature with C_SignFinal: one more operation on the
        # private key, perhaps one more touch for the user.
        with calling("C_OpenSession" if pin is None else "C_OpenSession or C_Login"):
            return self._token.open(
                user_pin=pin,
                attribute_mapper=TolerantMapper(),
                cancel_strategy=CancelStrategy.CANCEL_WITH_INIT,
            )

    def page(self, begin: int) -> Header:
        """Some of the keys, from number `begin` on, and whether there are more."""
        records = [key.record for key in self.keys.values()][begin:]
        ends = list(itertools.accumulate(len(encode(record)) for record in records))
        count = max(1, bisect.bisect(ends, _PAGE))
        return {"keys": records[:count], "more": count < len(records)}


class Operations:
    """The operations; each takes the request's header and body and returns the reply's."""

    def __init__(self, progress: Callable[[], None]) -> None:
        """`progress` is called when a step of what takes long is done."""
        self._progress = progress
        self._library: Any = None
        self._open: dict[TokenId, OpenToken] = {}

    def load(self, header: Header, _body: bytearray) -> tuple[Header, bytes]:
        """Load and initialise the module at `path`."""
        path = header["path"]
        forbid_pin_caching()
        # p11-kit's proxy would load what the user's own files name, past the agent's list of allowed modules.
        os.environ["P11_KIT_NO_USER_CONFIG"] = "1"
        try:
            with examined(path):
                ctypes.CDLL(path).C_GetFunctionList  # noqa: B018 - the look-up is the question
        except (NotAModuleError, OSError, AttributeError) as error:
            raise RefusedError(Verdict.NOT_A_MODULE, str(error)) from error
        with calling("C_Initialize"):
            self._library = pkcs11.lib(path)
        return {
            "library": f"{self._library.manufacturer_id} {self._library.library_description}".strip(),
            "pcscd": _has_loaded(_PCSC_LIBRARY),
        }, b""

    def slots(self, _header: Header, _body: bytearray) -> tuple[Header, bytes]:
        """Every slot, whether a token is in it and can be removed (C_GetSlotList, C_GetSlotInfo)."""
        slots = [
            (slot.slot_id, SlotFlag.TOKEN_PRESENT in slot.flags, SlotFlag.REMOVABLE_DEVICE in slot.flags)
            for slot in self._slots()
        ]
        return {"slots": slots}, b""

    def scan(self, _header: Header, _body: bytearray) -> tuple[Header, bytes]:
        """Every initialised token in any slot; a slot that answers with an error has none."""
        return {"tokens": [_info_header(info) for _, info in self._tokens()]}, b""

    def open(self, header: Header, _body: bytearray) -> tuple[Header, bytes]:
        """Open a session on `token`, without login, unless it is open; its flags afresh and its keys."""
        identity = TokenId(**header["token"])
        slot, info, has_twin = self._find(identity)
        for owner, token in self._open.items():
            if (token.slot_id == slot.slot_id) != (owner == identity):
                # libykcs11 goes on showing the keys of the card that the session was opened on.
                raise RefusedError(Verdict.FAILED, "a session is open on a token that has left its slot")
        if identity in self._open:
            self._open[identity].refresh()
        else:
            self._open[identity] = OpenToken(slot, self._progress)
        self._require_presence(self._open[identity])
        return _info_header(info) | self._open[identity].page(0) | {"twin": has_twin}, b""

    def login(self, header: Header, body: bytearray) -> tuple[Header, bytes]:
        """C_Login on `token` with the PIN in the body, or with the token's keypad if `keypad`."""
        token = self._opened(header)
        token.log_in(PROTECTED_AUTH if header["keypad"] else WipeablePin(body))
        self._require_presence(token)
        return token.page(0), b""

    def more(self, header: Header, _body: bytearray) -> tuple[Header, bytes]:
        """The keys of `token` from number `begin` on, as they were when it was opened or logged in."""
        return self._opened(header).page(header["begin"]), b""

    def sign(self, header: Header, body: bytearray) -> tuple[Header, bytes]:
        """Sign with `key` of `token` by `mechanism`; the first `pin_length` bytes of the body are the PIN.

        The PIN is for keys with CKA_ALWAYS_AUTHENTICATE; without one those ask at the token's keypad.
        """
        token = self._opened(header)
        self._require_presence(token)
        private = token.keys[header["key"]].private
        if private is None:
            raise RefusedError(Verdict.NOT_LOGGED_IN, "the private key is not visible")
        pin, data = body[: header["pin_length"]], bytes(memoryview(body)[header["pin_length"] :])
        try:
            with calling("C_SignInit, C_Login or C_Sign" if pin else "C_SignInit or C_Sign"):
                signature = private.handle.sign(
                    data,
                    mechanism=Mechanism[header["mechanism"]],
                    pin=WipeablePin(pin) if private.always_authenticate else None,
                )
        finally:
            wipe(pin)
        return {}, signature

    def _tokens(self) -> list[tuple[Any, TokenInfo]]:
        found = []
        for slot in self._slots():
            self._progress()
            with contextlib.suppress(PKCS11Error):
                info = _info(slot.get_token())
                if TokenFlag.TOKEN_INITIALIZED in info.flags:
                    found.append((slot, info))
        return found

    def _slots(self) -> list[Any]:
        assert self._library is not None
        try:
            return list(self._library.get_slots()[:_MOST_SLOTS])
        except PKCS11Error:
            # A slot appeared between the library's two calls, or an empty one answers with an error.
            with calling("C_GetSlotList"):
                return list(self._library.get_slots(token_present=True)[:_MOST_SLOTS])

    def _find(self, identity: TokenId) -> tuple[Any, TokenInfo, bool]:
        """The first such token, and whether there is another."""
        found = [(slot, info) for slot, info in self._tokens() if info.identity == identity]
        if found:
            return *found[0], len(found) > 1
        raise RefusedError(Verdict.TOKEN_ABSENT, f"{identity} is in no slot")

    def _opened(self, header: Header) -> OpenToken:
        try:
            return self._open[TokenId(**header["token"])]
        except KeyError:
            raise RefusedError(Verdict.FAILED, "no session is open on this token") from None

    def _require_presence(self, token: OpenToken) -> None:
        # Costs no command to the card, and C_GetSlotList is the only call by which libykcs11 notices.
        for slot in self._slots():
            if slot.slot_id == token.slot_id and SlotFlag.TOKEN_PRESENT in slot.flags:
                return
        raise RefusedError(Verdict.TOKEN_ABSENT, "the token left its slot")


def _has_loaded(library: str) -> bool:
    """Whether this process has a shared library with such a name, by whatever way."""
    return library in Path("/proc/self/maps").read_text()


def _info(token: Any) -> TokenInfo:
    identity = TokenId(
        manufacturer=token.manufacturer_id,
        model=token.model,
        serial=token.serial.rstrip(b"\0 ").decode(errors="replace"),
        label=token.label,
    )
    flags = TokenFlag(int(token.flags) & _KNOWN_FLAGS)
    return TokenInfo(identity, flags, token.slot.slot_id, token.slot.slot_description)


def _info_header(info: TokenInfo) -> Header:
    return {
        "token": info.identity.fields,
        "flags": int(info.flags),
        "slot": info.slot,
        "reader": info.reader,
    }


def _verdict(error: Exception) -> Verdict:
    return next((verdict for kind, verdict in _VERDICTS.items() if isinstance(error, kind)), Verdict.FAILED)


def work(connection: socket.socket) -> NoReturn:
    """Do what is asked on `connection` until it is closed, and end the process."""
    # The library ends searches in destructors, which complain of a session that is gone.
    sys.unraisablehook = lambda _: None
    answer_requests(connection, Operations(Progress(connection)), _verdict)
