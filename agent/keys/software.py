"""Software keys: private keys that clients gave the agent (`ssh-add FILE`, AddKeysToAgent), or that it made.

Processes of their own (`software_worker.py`) compute with them. They are disposable, as a token's worker is.
The copy of a key that the agent keeps to give it to another process is sealed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator

from replug.agent.keys.key_process import KeyProcess
from replug.agent.keys.refusal import RequestRefusedError
from replug.protocol.additions import KeyAddition
from replug.protocol.secrets import wipe
from replug.token.requester import Program, requester
from replug.token.seal import Seal, SealedError
from replug.token.worker.forking import ForkServer

MOST_KEYS = 2048
"""No client accepts a longer list (SSH_AGENT_MAX_IDENTITIES)."""
_MOST_BYTES = 8 * 1024 * 1024
"""Of all requests that added them, constraints included."""
_MOST_QUICK_BITS = 4096
"""Of an RSA key: a signature by a larger one takes a hundred times as long as most."""
_MOST_PROCESSES = 4
"""For quick keys: few programs sign at the same time."""


class SoftwareKeys:
    """All software keys, by blob; `seal` keeps what is needed to give them to a process."""

    def __init__(self, seal: Seal, fork_server: ForkServer) -> None:
        self._seal = seal
        self._sealed: dict[bytes, bytes] = {}
        """Each key's ADD_IDENTITY message."""
        self._slow: set[bytes] = set()
        self._made: set[bytes] = set()
        """Those that no client has given."""
        self._adding: list[bytearray] = []
        """The messages of keys that wait for a process, or are being read by one."""
        self._quick_processes = _ByProgram(lambda: KeyProcess(seal, self._sealed, fork_server, slow=False))
        self._slow_process = KeyProcess(seal, self._sealed, fork_server, slow=True)

    async def add(self, addition: KeyAddition) -> None:
        """Hold a key; the caller wipes the message. RequestRefusedError."""
        blob, slow = addition.blob, addition.rsa_bits > _MOST_QUICK_BITS
        others = [sealed for held, sealed in self._sealed.items() if held != blob]
        if len(others) >= MOST_KEYS or sum(map(len, others)) + len(addition.message) > _MOST_BYTES:
            raise RequestRefusedError(
                f"the agent holds {len(others)} keys already", "remove some (ssh-add -d)"
            )
        self._adding.append(addition.message)
        try:
            process = self._slow_process if slow else self._quick_processes.of_requester()
            await process.add(blob, addition.message)
            self._sealed[blob] = self._seal.seal(addition.message)
        except SealedError:
            self.suspend()
            raise RequestRefusedError("the agent was locked meanwhile") from None
        finally:
            self._adding = [other for other in self._adding if other is not addition.message]
            if not self._sealed:
                self.suspend()
        if slow:
            self._slow.add(blob)

    async def make(self) -> bytes:
        """The blob of a new Ed25519 key, which is kept until `remove` or `clear`. RequestRefusedError."""
        blob, sealed = await self._quick_processes.of_requester().make()
        self._sealed[blob] = sealed
        self._made.add(blob)
        return blob

    async def sign(self, blob: bytes, data: bytes, flags: int) -> bytes:
        """The signature blob over `data`; `flags` are the sign request's. RequestRefusedError."""
        process = self._slow_process if blob in self._slow else self._quick_processes.of_requester()
        return await process.sign(blob, data, flags)

    def remove(self, blob: bytes) -> None:
        """Drop a key, if it is there."""
        if self._sealed.pop(blob, None) is not None:
            self._slow.discard(blob)
            self._made.discard(blob)
            for process in self._processes():
                process.remove(blob)

    def keep_only(self, blobs: Iterable[bytes]) -> None:
        """Drop all keys but these and those that were made."""
        for blob in self._sealed.keys() - self._made - set(blobs):
            self.remove(blob)

    def clear(self) -> None:
        """Drop all keys."""
        self._sealed.clear()
        self._slow.clear()
        self._made.clear()
        self.suspend()

    def withdraw_additions(self) -> None:
        """Wipe the keys that are just being added; they are refused."""
        for message in self._adding:
            wipe(message)
            message.clear()

    def suspend(self) -> None:
        """Leave no key in any process; they are there again when the seal is open and they are needed."""
        for process in self._processes():
            process.end()

    def _processes(self) -> Iterator[KeyProcess]:
        yield from self._quick_processes
        yield self._slow_process


class _ByProgram:
    """A process for each program that asks, so that what one asks for does not hold up another.

    Of more programs than there are processes, those that asked last have theirs to themselves.
    """

    def __init__(self, make: Callable[[], KeyProcess]) -> None:
        self._make = make
        self._of_program: OrderedDict[Program | None, KeyProcess] = OrderedDict()
        """Who asked last is last."""

    def __iter__(self) -> Iterator[KeyProcess]:
        return iter(self._of_program.values())

    def of_requester(self) -> KeyProcess:
        """The process for whose request the current task serves."""
        program = requester.get().program
        process = self._of_program.pop(program, None)
        if process is None:
            room = len(self._of_program) < _MOST_PROCESSES
            process = self._make() if room else self._of_program.popitem(last=False)[1]
        self._of_program[program] = process
        return process
