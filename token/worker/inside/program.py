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
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

from pkcs11 import Mechanism, PKCS11Error, SlotFlag, _pkcs11

from replug.protocol.secrets import wipe
from replug.token.errors import Verdict
from replug.token.identity import TokenId, TokenInfo
from replug.token.names.load_arguments import passes_on
from replug.token.worker.frames import MAX_HEADER, Header, encode
from replug.token.worker.inside.calls import calling, value_name
from replug.token.worker.inside.cryptoki import Cryptoki
from replug.token.worker.inside.elf import NotAModuleError, examined
from replug.token.worker.inside.initialise import initialised
from replug.token.worker.inside.loop import Meaning, Progress, RefusedError, answer_requests
from replug.token.worker.inside.open_token import OpenToken
from replug.token.worker.inside.opensc import forbid_pin_caching
from replug.token.worker.inside.p11kit_settings import prepare_p11_kit
from replug.token.worker.inside.slots import header_of, info_of, slots_of, tokens_of

_MOST_DATA = 256 * 1024 * 1024
"""Bytes of memory for a module whose answers come from another program."""
_PCSC_LIBRARY = "libpcsclite.so.1"
_PAGE = MAX_HEADER // 2
"""Bytes of keys in one answer, which has other things to say as well."""

_VERDICTS = {
    "CKR_FUNCTION_CANCELED": Verdict.LOGIN_CANCELLED,
    "CKR_MECHANISM_INVALID": Verdict.MECHANISM,
    "CKR_PIN_EXPIRED": Verdict.PIN_UNUSABLE,
    "CKR_PIN_INCORRECT": Verdict.PIN_INCORRECT,
    "CKR_PIN_INVALID": Verdict.PIN_UNUSABLE,
    "CKR_PIN_LEN_RANGE": Verdict.PIN_UNUSABLE,
    "CKR_PIN_LOCKED": Verdict.PIN_LOCKED,
    "CKR_TOKEN_NOT_PRESENT": Verdict.TOKEN_ABSENT,
    "CKR_USER_NOT_LOGGED_IN": Verdict.NOT_LOGGED_IN,
    "CKR_USER_PIN_NOT_INITIALIZED": Verdict.PIN_NOT_SET,
}
_NEVER = float("-inf")
_FRESH = 0.2  # seconds
_SOON = 0.1
"""Seconds in which a worker that is not a spare gets its first request."""
_PATIENCE = 1.0
"""Seconds for an orderly end."""


class Operations:
    """The operations; each takes the request's header and body and returns the reply's."""

    def __init__(self, progress: Callable[[], None], *, writing: bool = False) -> None:
        """`progress` is called when a step of what takes long is done; `writing` is what sessions are for."""
        self._progress = progress
        self._writing = writing
        self._library: Any = None
        self._cryptoki: Cryptoki | None = None
        self._open: dict[TokenId, OpenToken] = {}
        self._scanned: tuple[list[tuple[Any, TokenInfo]], float] = ([], _NEVER)
        """The tokens of a scan and when it was, for a token that is opened at once."""
        self._pages: dict[TokenId, list[Header]] = {}
        """The keys that were found last, for those that ask for more of them."""

    def load(self, header: Header, _body: bytearray) -> tuple[Header, bytes]:
        """Load and initialise the module at `path`."""
        path = header["path"]
        forbid_pin_caching()
        prepare_p11_kit(header["server_address"])
        if passes_on(path):
            # The program at the other end says how long its answers are.
            resource.setrlimit(resource.RLIMIT_DATA, (_MOST_DATA, _MOST_DATA))
        try:
            with examined(path):
                module = ctypes.CDLL(path)
                module.C_GetFunctionList  # noqa: B018 - the look-up is the question
        except (NotAModuleError, OSError, AttributeError) as error:
            raise RefusedError(Verdict.NOT_A_MODULE, str(error)) from error
        with calling("C_Initialize"):
            self._library = initialised(path, header["init_reserved"])
        self._cryptoki = Cryptoki(module, self._library)
        return {
            "library": f"{self._library.manufacturer_id} {self._library.library_description}".strip(),
            "pcscd": _has_loaded(_PCSC_LIBRARY),
        }, b""

    def slots(self, _header: Header, _body: bytearray) -> tuple[Header, bytes]:
        """Every slot, whether a token is in it and can be removed (C_GetSlotList, C_GetSlotInfo)."""
        slots = [
            (slot.slot_id, SlotFlag.TOKEN_PRESENT in slot.flags, SlotFlag.REMOVABLE_DEVICE in slot.flags)
            for slot in slots_of(self._library)
        ]
        return {"slots": slots}, b""

    def scan(self, _header: Header, _body: bytearray) -> tuple[Header, bytes]:
        """Every initialised token in any slot; a slot that answers with an error has none."""
        tokens = tokens_of(self._library, self._progress)
        self._scanned = (tokens, time.monotonic())
        return {"tokens": [header_of(info) for _, info in tokens]}, b""

    def open(self, header: Header, _body: bytearray) -> tuple[Header, bytes]:
        """Open a session on `token`, without login, unless it is open; its flags afresh and its keys.

        With an `id` only the keys with this CKA_ID, and with None any one key. Of several tokens that are
        alike it is the one in `slot`; if that is None, the first.
        """
        identity = TokenId(**header["token"])
        found, info, has_twin = self._find(identity, header["slot"])
        for owner, token in self._open.items():
            if (token.slot_id == found.slot.slot_id) != (owner == identity):
                # libykcs11 goes on showing the keys of the card that the session was opened on.
                raise RefusedError(Verdict.FAILED, "a session is open on a token that has left its slot")
        if identity not in self._open:
            self._open[identity] = OpenToken(found, self._functions, self._progress, writing=self._writing)
        token = self._open[identity]
        self._pages[identity] = _records(token, header["id"])
        token.require_presence()
        return header_of(info) | self._page(identity, 0) | {"twin": has_twin}, b""

    def flags(self, header: Header, _body: bytearray) -> tuple[Header, bytes]:
        """The flags of the open `token` afresh, if it is still there and its session alive."""
        token = self.opened(header)
        token.require_presence()
        with calling("C_GetTokenInfo"):
            info = info_of(token.slot.get_token())
        if info.identity != TokenId(**header["token"]).original:
            raise RefusedError(Verdict.FAILED, "another token is in its slot")
        token.prove_alive()
        return {"flags": int(info.flags)}, b""

    def peek(self, header: Header, _body: bytearray) -> tuple[Header, bytes]:
        """Some keys of the token in `slot`: without login, unless a session is open and logged in."""
        for token in self._open.values():
            if token.slot_id == header["slot"]:
                return {"keys": _first_of([key.record for key in token.find_keys()])}, b""
        for slot in slots_of(self._library):
            if slot.slot_id == header["slot"]:
                token = OpenToken(slot.get_token(), self._functions, self._progress)
                try:
                    return {"keys": _first_of([key.record for key in token.find_keys()])}, b""
                finally:
                    token.end()
        raise RefusedError(Verdict.TOKEN_ABSENT, "the token left its slot")

    def login(self, header: Header, body: bytearray) -> tuple[Header, bytes]:
        """C_Login on `token` with the PIN in the body, or with the token's keypad if `keypad`.

        The keys it shows then, as for `open`; `proven` is whether the PIN was compared with the token's.
        """
        token = self.opened(header)
        proven = token.log_in(None if header["keypad"] else body)
        identity = TokenId(**header["token"])
        self._pages[identity] = _records(token, header["id"])
        token.require_presence()
        return self._page(identity, 0) | {"proven": proven}, b""

    def more(self, header: Header, _body: bytearray) -> tuple[Header, bytes]:
        """The keys of `token` from number `begin` on, as they were found last."""
        return self._page(TokenId(**header["token"]), header["begin"]), b""

    def sign(self, header: Header, body: bytearray) -> tuple[Header, bytes]:
        """Sign with `key` of `token`, of the CKA_ID `id`, by `mechanism`; the signature has `size` bytes.

        Where several private keys may belong to the key, it is `candidate` of `candidates`. The first
        `pin_length` bytes of the body are the PIN, for keys with CKA_ALWAYS_AUTHENTICATE; without one those
        ask at the token's keypad.
        """
        token = self.opened(header)
        token.require_presence()
        key_id = bytes.fromhex(header["id"])
        private, candidates = token.private(header["key"], key_id, header["candidate"])
        pin, data = body[: header["pin_length"]], bytes(memoryview(body)[header["pin_length"] :])
        try:
            mechanism = Mechanism[header["mechanism"]]
            signature = token.sign(private, mechanism, data, header["size"], pin or None)
        finally:
            wipe(pin)
        return {"candidates": candidates}, signature

    def end(self) -> None:
        """End sessions and module, which may have their own idea of how long that takes."""
        for token in self._open.values():
            token.end()
        if self._library is not None:
            with contextlib.suppress(PKCS11Error):
                self._library.finalize()

    @property
    def _functions(self) -> Cryptoki:
        assert self._cryptoki is not None
        return self._cryptoki

    def _page(self, identity: TokenId, begin: int) -> Header:
        """Some of the keys, from number `begin` on, and whether there are more."""
        records = self._pages[identity][begin:]
        page = _first_of(records)
        return {"keys": page, "more": len(page) < len(records)}

    def _find(self, identity: TokenId, slot: int | None) -> tuple[Any, TokenInfo, bool]:
        """The first such token, or the one in `slot`, and whether there is another."""
        scanned, when = self._scanned
        # With OpenSC each C_GetTokenInfo costs two commands to the card.
        fresh = time.monotonic() - when < _FRESH
        tokens = scanned if fresh else tokens_of(self._library, self._progress)
        self._scanned = ([], _NEVER)
        found = [(token, info) for token, info in tokens if info.identity == identity.original]
        for token, info in found:
            if slot in (None, info.slot):
                return token, info, len(found) > 1
        raise RefusedError(Verdict.TOKEN_ABSENT, f"{identity} is in no slot")

    def opened(self, header: Header) -> OpenToken:
        """The token of the request, on which a session is open."""
        try:
            return self._open[TokenId(**header["token"])]
        except KeyError:
            raise RefusedError(Verdict.FAILED, "no session is open on this token") from None


def _first_of(records: list[Header]) -> list[Header]:
    """As many as fit into one answer."""
    ends = list(itertools.accumulate(len(encode(record)) for record in records))
    return records[: max(1, bisect.bisect(ends, _PAGE))]


def _records(token: OpenToken, wanted: str | None) -> list[Header]:
    if wanted is None:
        found = token.find_one()
    else:
        found = token.find_key(bytes.fromhex(wanted)) if wanted else token.find_keys()
    return [key.record for key in found]


def _has_loaded(library: str) -> bool:
    """Whether this process has the shared library of this name (DT_SONAME), by whatever way."""
    try:
        ctypes.CDLL(library, os.RTLD_NOLOAD | os.RTLD_LAZY)
    except OSError:
        return False
    return True


def _meaning(error: Exception) -> Meaning:
    name = value_name(error) if isinstance(error, PKCS11Error) else ""
    return _VERDICTS.get(name, Verdict.FAILED), name


def _rehearse() -> None:
    """Do with another file what comes first when a module is loaded, up to its loading.

    A process that was forked copies each page of memory when it first writes to it, and Python writes to all
    that it uses. A spare does that while nobody waits.
    """
    prepare_p11_kit("")
    with contextlib.suppress(NotAModuleError), examined(_pkcs11.__file__):
        pass


def work(connection: socket.socket) -> NoReturn:
    """Do what is asked on `connection` until it is closed, and end the process."""
    serve(connection, Operations)


def serve(connection: socket.socket, kind: Callable[[Callable[[], None]], Operations]) -> NoReturn:
    """As `work`, with operations of this kind."""
    # The library ends searches in destructors, which complain of a session that is gone.
    sys.unraisablehook = lambda _: None
    operations = kind(Progress(connection))
    if not select.select([connection], [], [], _SOON)[0]:
        _rehearse()
    answer_requests(connection, operations, _meaning)
    # Nobody waits longer than this; the default action of the signal ends the process.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, _PATIENCE)
    operations.end()
    # Destructors of vendor libraries hang or crash; nothing here needs them.
    os._exit(0)
