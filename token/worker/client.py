"""The agent's side of a token worker: each PKCS#11 operation as a call with a deadline."""

from __future__ import annotations

from dataclasses import dataclass

from replug.token.identity import TokenFlag, TokenId, TokenInfo
from replug.token.worker.deadlines import Deadlines
from replug.token.worker.forking import Forked
from replug.token.worker.frames import Header
from replug.token.worker.process import WorkerProcess

Slots = list[tuple[int, bool]]
"""Slot numbers, each with CKF_TOKEN_PRESENT."""


@dataclass(frozen=True)
class Opened:
    """A token as a worker found it: flags just read, and a record for every key it shows."""

    flags: TokenFlag
    records: list[Header]
    has_twin: bool
    """Whether another token in the slots has the same identity."""


class WorkerClient(WorkerProcess):
    """A process that loads one PKCS#11 module, and what it was asked to do with it."""

    def __init__(self, deadlines: Deadlines, process: Forked) -> None:
        super().__init__(process)
        self._deadlines = deadlines
        self.opened: set[TokenId] = set()
        """The tokens with an open session."""
        self.ready: set[TokenId] = set()
        """Those of them that are logged in, or need no login."""

    async def load(self, path: str) -> str:
        """Load the module at `path` (absolute); what the library calls itself (C_GetInfo)."""
        return await self.ask(
            "load", {"path": path}, self._deadlines.operation, lambda reply, _: str(reply["library"])
        )

    async def slots(self) -> Slots:
        """Every slot and whether a token is in it; costs no command to a card."""
        return await self.ask(
            "slots",
            {},
            self._deadlines.operation,
            lambda reply, _: [(int(slot), bool(present)) for slot, present in reply["slots"]],
        )

    async def scan(self) -> list[TokenInfo]:
        """All initialised tokens in the module's slots."""
        return await self.ask(
            "scan",
            {},
            self._deadlines.operation,
            lambda reply, _: [_token_info(token) for token in reply["tokens"]],
        )

    async def open(self, token: TokenId) -> Opened:
        """Open a session on `token` unless it is open; its flags and keys are read afresh."""
        opened = await self.ask(
            "open",
            {"token": token.fields()},
            self._deadlines.operation,
            lambda reply, _: Opened(TokenFlag(reply["flags"]), list(reply["keys"]), bool(reply["twin"])),
        )
        self.opened.add(token)
        return opened

    async def login(self, token: TokenId, pin: bytearray | None) -> list[Header]:
        """C_Login with `pin`, or at the token's keypad for None; the keys as they are seen after it."""
        records = await self.ask(
            "login",
            {"token": token.fields(), "keypad": pin is None},
            self._deadlines.keypad if pin is None else self._deadlines.operation,
            lambda reply, _: list(reply["keys"]),
            pin or b"",
        )
        self.ready.add(token)
        return records

    async def sign(
        self, token: TokenId, key: str, mechanism: str, data: bytes, pin: bytearray | None, *, keypad: bool
    ) -> bytes:
        """The raw signature by CKM `mechanism`; PIN or keypad are for keys that want them at every use."""
        secret = pin or b""
        header = {"token": token.fields(), "key": key, "mechanism": mechanism, "pin_length": len(secret)}
        deadline = self._deadlines.touch + (self._deadlines.keypad if keypad else 0)
        _, signature = await self.call("sign", header, deadline, secret, data)
        return bytes(signature)


def _token_info(reply: Header) -> TokenInfo:
    return TokenInfo(TokenId(**reply["token"]), TokenFlag(reply["flags"]))
