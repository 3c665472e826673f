"""The side of `replug keygen` of its worker, which can also make key pairs."""

from __future__ import annotations

import os
from dataclasses import dataclass

from replug.token.errors import TokenError, Verdict, WorkerRefusedError
from replug.token.identity import TokenId
from replug.token.names.load_arguments import LoadArguments
from replug.token.worker.client import WorkerClient
from replug.token.worker.deadlines import Deadlines, Patience
from replug.token.worker.forking import Forked, ForkServer
from replug.token.worker.frames import Request
from replug.token.worker.key_types import KeyType

_PROGRAM = "replug.token.worker.inside.key_program"
_FOR_PRIMES = Patience(600.0, 600.0)
"""Cards take minutes to find the primes of an RSA key, and say nothing meanwhile."""


@dataclass(frozen=True)
class WantedKey:
    """A key pair to be made."""

    type: KeyType
    key_id: bytes
    """CKA_ID."""
    label: str


class KeyWorker(WorkerClient):
    """A worker that makes keys."""

    def __init__(self, deadlines: Deadlines, process: Forked) -> None:
        super().__init__(deadlines, process)
        self._patience = deadlines.for_operation

    @classmethod
    async def start(
        cls, path: str, arguments: LoadArguments, fork_server: ForkServer, deadlines: Deadlines
    ) -> KeyWorker:
        """A process with the module at `path` loaded. TokenError if it is none, OSError without a process.

        What the module prints is dropped: the terminal is the user's and ours.
        """
        worker = cls(deadlines, await fork_server.fork(_PROGRAM, deadlines.operation))
        try:
            worker.attach(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC))
            await worker.load(path, arguments)
        except BaseException as error:
            worker.kill()
            if isinstance(error, WorkerRefusedError) and error.verdict is Verdict.NOT_A_MODULE:
                raise TokenError(f"{path} is not a PKCS#11 module: {error.reason}") from error
            raise
        return worker

    async def makes(self, token: TokenId) -> tuple[list[KeyType], bool]:
        """The types of keys that the token can make and sign with; whether it is write-protected."""
        return await self.ask(
            Request("makes", {"token": token.fields}),
            self._patience,
            lambda reply, _: ([KeyType(name) for name in reply["types"]], bool(reply["write_protected"])),
        )

    async def free_id(self, token: TokenId, wanted: bytes) -> bytes:
        """`wanted`, or if it is empty any CKA_ID, if no object has it that can be seen now; else empty."""
        return await self.ask(
            Request("free_id", {"token": token.fields, "id": wanted.hex()}),
            self._patience,
            lambda reply, _: bytes.fromhex(reply["id"]),
        )

    async def make_key(self, token: TokenId, wanted: WantedKey) -> bool:
        """C_GenerateKeyPair; whether the token says that the private key cannot leave it."""
        header = {
            "token": token.fields,
            "type": wanted.type,
            "id": wanted.key_id.hex(),
            "label": wanted.label,
        }
        request = Request("make_key", header)
        return await self.ask(request, _FOR_PRIMES, lambda reply, _: bool(reply["guarded"]))
