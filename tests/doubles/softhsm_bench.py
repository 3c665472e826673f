"""A worker with a SoftHSM token open."""

from __future__ import annotations

import subprocess
from pathlib import Path

from doubles.stand_ins import reaped
from doubles.started import Started
from rigs.softhsm import MODULE, PIN, Token

from replug.token.identity import TokenId
from replug.token.keys import TokenKey, read_keys
from replug.token.serving.signing import finish_signature, signing_algorithm, signing_steps
from replug.token.worker.client import Deadlines, WorkerClient

DATA = b"what is to be signed"


def tool(token: Token, *arguments: str | bytes | Path) -> None:
    """Runs pkcs11-tool on the token, logged in."""
    subprocess.run(
        [
            "pkcs11-tool",
            "--module",
            MODULE,
            "--token-label",
            token.label,
            "--login",
            "--pin",
            PIN,
            *arguments,
        ],
        env=token.home.env,
        check=True,
        capture_output=True,
    )


class Session:
    """A worker with the module and the token open."""

    def __init__(self, worker: WorkerClient, identity: TokenId) -> None:
        self.worker = worker
        self.identity = identity

    @classmethod
    async def start(cls, deadlines: Deadlines | None = None, module: Path = MODULE) -> Session:
        worker = WorkerClient(deadlines or Deadlines(), Started())
        await worker.load(str(module))
        [info] = await worker.scan()
        return cls(worker, info.identity)

    async def keys(self) -> list[TokenKey]:
        return list(read_keys((await self.worker.open(self.identity, None)).records).values())

    async def log_in(self, pin: str = PIN) -> list[TokenKey]:
        login = await self.worker.login(self.identity, bytearray(pin.encode()))
        assert login.proven
        return list(read_keys(login.records).values())

    async def sign(self, key: TokenKey, flags: int = 0, pin: bytearray | None = None) -> bytes:
        """The verified signature blob, by the first mechanism there is for the key."""
        algorithm = signing_algorithm(key.public, flags)
        step = next(signing_steps(key.public, algorithm, DATA))
        size = key.signature_size
        raw = await self.worker.sign(
            self.identity, key.reference, key.key_id, step.mechanism, step.data, size, pin, keypad=False
        )
        return finish_signature(key.public, algorithm, raw.value, DATA)

    async def end(self) -> None:
        self.worker.kill()
        await reaped(self.worker)
