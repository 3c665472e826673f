"""The agent's side of a token worker: each PKCS#11 operation as a call with a deadline."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from functools import lru_cache

from replug.token.identity import TokenFlag, TokenId, TokenInfo
from replug.token.names.load_arguments import PLAIN, LoadArguments
from replug.token.worker.deadlines import Deadlines
from replug.token.worker.forking import Forked
from replug.token.worker.frames import Header, Request
from replug.token.worker.process import WorkerProcess

log = logging.getLogger(__name__)

MOST_KEYS = 512
"""On one token; each is looked at whenever anything changes."""
_LONGEST_FIELD = 64  # characters; CK_TOKEN_INFO has room for 32
_KNOWN_FLAGS = sum(TokenFlag)

Slots = list[tuple[int, bool, bool]]
"""Slot numbers, each with CKF_TOKEN_PRESENT and CKF_REMOVABLE_DEVICE."""


@dataclass(frozen=True)
class Opened:
    """A token as a worker found it: flags just read, and a record for every key it shows."""

    flags: TokenFlag
    records: list[Header]
    has_twin: bool
    """Whether another token in the slots has the same identity."""
    removable: bool
    """Whether its slot is one that tokens can be removed from."""


@dataclass(frozen=True)
class LoggedIn:
    """A login: a record for every key that the token shows then."""

    records: list[Header]
    proven: bool
    """Whether the PIN was compared with the token's: the session may have been logged in before."""


@dataclass(frozen=True)
class RawSignature:
    """What C_Sign returned, and how many private keys may be the one that was meant."""

    value: bytes
    candidates: int


class WorkerClient(WorkerProcess):
    """A process that loads one PKCS#11 module, and what it was asked to do with it."""

    def __init__(self, deadlines: Deadlines, process: Forked) -> None:
        super().__init__(process)
        self._deadlines = deadlines
        self.uses_pcscd = False
        """Whether the module reaches its tokens by way of pcscd."""
        self.opened: set[TokenId] = set()
        """The tokens with an open session of which keys were read."""
        self.ready: set[TokenId] = set()
        """Those of them that are logged in, or need no login."""
        self.candidates: dict[tuple[TokenId, str], int] = {}
        """Which of several private keys belongs to a key, by its reference, if it is not the first."""

    async def load(self, path: str, arguments: LoadArguments = PLAIN) -> str:
        """Load the module at `path` (absolute); what the library calls itself (C_GetInfo)."""
        library, self.uses_pcscd = await self.ask(
            Request("load", {"path": path} | asdict(arguments)),
            self._deadlines.for_operation,
            lambda reply, _: (str(reply["library"]), bool(reply["pcscd"])),
        )
        return library

    async def slots(self) -> Slots:
        """Every slot and whether a token is in it; costs no command to a card."""
        return await self.ask(
            Request("slots", {}),
            self._deadlines.for_operation,
            lambda reply, _: [
                (int(slot), bool(present), bool(removable)) for slot, present, removable in reply["slots"]
            ],
        )

    async def scan(self) -> list[TokenInfo]:
        """All initialised tokens in the module's slots."""
        return await self.ask(
            Request("scan", {}),
            self._deadlines.for_operation,
            lambda reply, _: [_token_info(token) for token in reply["tokens"]],
        )

    async def peek(self, slot: int) -> list[Header]:
        """Some keys of the token in `slot`, as it shows them without login."""
        patience = self._deadlines.for_operation
        return await self.ask(Request("peek", {"slot": slot}), patience, lambda reply, _: list(reply["keys"]))

    async def open(self, token: TokenId, slot: int | None, key_id: bytes | None = b"") -> Opened:
        """Open a session on `token` unless it is open; its flags are read afresh, and which keys it has.

        `slot` is where it was seen, if it has twins. With a `key_id` (CKA_ID) only those keys are looked for,
        with None any one key.
        """
        wanted = None if key_id is None else key_id.hex()
        opened = await self.ask(
            Request("open", {"token": token.fields, "slot": slot, "id": wanted}),
            self._deadlines.for_operation,
            lambda reply, _: (_token_info(reply), bool(reply["twin"]), _Page.of(reply)),
        )
        info, has_twin, page = opened
        records = await self._all_records(token, page)
        if key_id is not None:
            self.opened.add(token)
        return Opened(info.flags, records, has_twin, info.removable)

    async def flags(self, token: TokenId) -> TokenFlag:
        """The flags of `token`, whose session is open, read afresh; it is the same token still."""
        return await self.ask(
            Request("flags", {"token": token.fields}),
            self._deadlines.for_operation,
            lambda reply, _: _flags(reply),
        )

    async def login(self, token: TokenId, pin: bytearray | None, key_id: bytes = b"") -> LoggedIn:
        """C_Login with `pin`, or at the token's keypad for None; the keys it shows then, as for `open`."""
        proven, page = await self.ask(
            Request("login", {"token": token.fields, "keypad": pin is None, "id": key_id.hex()}),
            self._deadlines.for_login(keypad=pin is None),
            lambda reply, _: (bool(reply["proven"]), _Page.of(reply)),
            pin or b"",
        )
        self.ready.add(token)
        return LoggedIn(await self._all_records(token, page), proven)

    async def _all_records(self, token: TokenId, page: _Page) -> list[Header]:
        """The records from `page` on; they come in pieces, so that none takes long to decode."""
        records = list(page.records)
        while page.more and len(records) < MOST_KEYS:
            header = {"token": token.fields, "begin": len(records)}
            page = await self.ask(Request("more", header), self._deadlines.for_operation, _next_page)
            records += page.records
        if (page.more or len(records) > MOST_KEYS) and token not in self.opened:
            log.warning("only the first keys are served", extra={"token": str(token), "keys": MOST_KEYS})
        return records[:MOST_KEYS]

    async def sign(
        self,
        token: TokenId,
        key: str,
        key_id: bytes,
        mechanism: str,
        data: bytes,
        size: int,
        pin: bytearray | None,
        *,
        keypad: bool,
        candidate: int = 0,
    ) -> RawSignature:
        """The signature of `size` bytes by CKM `mechanism`; PIN or keypad are for keys that want them always.

        `key` is its reference, `key_id` its CKA_ID; `candidate` is the number of one of the private keys that
        may belong to it.
        """
        secret = pin or b""
        return await self.ask(
            _sign_request(token, key, key_id, candidate, mechanism, size, len(secret)),
            self._deadlines.for_signature_at_keypad if keypad else self._deadlines.for_signature,
            lambda reply, signature: RawSignature(bytes(signature), int(reply["candidates"])),
            secret,
            data,
        )


@lru_cache(maxsize=64)
def _sign_request(
    token: TokenId, key: str, key_id: bytes, candidate: int, mechanism: str, size: int, pin_length: int
) -> Request:
    return Request(
        "sign",
        {
            "token": token.fields,
            "key": key,
            "id": key_id.hex(),
            "candidate": candidate,
            "mechanism": mechanism,
            "size": size,
            "pin_length": pin_length,
        },
    )


@dataclass(frozen=True)
class _Page:
    """Some of the records of a token's keys, and whether there are more."""

    records: list[Header]
    more: bool

    @classmethod
    def of(cls, reply: Header) -> _Page:
        return cls(list(reply["keys"]), bool(reply["more"]))


def _next_page(reply: Header, _: bytearray) -> _Page:
    page = _Page.of(reply)
    if not page.records:
        raise ValueError("more was promised")
    return page


def _flags(reply: Header) -> TokenFlag:
    """Those that have a name: Python remembers each other value of an IntFlag for ever."""
    return TokenFlag(int(reply["flags"]) & _KNOWN_FLAGS)


def _token_info(reply: Header) -> TokenInfo:
    fields = {name: value for name, value in reply["token"].items() if name != "copy"}
    if any(not isinstance(value, str) or len(value) > _LONGEST_FIELD for value in fields.values()):
        raise ValueError("not the fields of CK_TOKEN_INFO")
    return TokenInfo(
        TokenId(**fields),
        _flags(reply),
        int(reply["slot"]),
        str(reply["reader"])[:_LONGEST_FIELD],
        bool(reply["removable"]),
    )
