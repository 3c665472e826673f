"""OpenSSH's ssh-sk-helper, and the authenticator behind it, without a process."""

from __future__ import annotations

import asyncio

from doubles.session_hosts import sk_signature
from doubles.stand_ins import Key

from replug.protocol.wire import string
from replug.token.security_keys.helper import Answer


class StandInHelper:
    """Plays the authenticator of a key: wants `pin`, fails with `error`, or waits until it is touched."""

    def __init__(self, key: Key) -> None:
        self._key = key
        self.pin: bytes | None = None
        self.error: int | Exception | None = None
        self.complaint = ""
        self.touched = asyncio.Event()
        self.touched.set()
        self.sent: list[bytes] = []
        self.running = self.most = 0

    async def ask(self, request: bytearray, pin: bytearray, patience: float) -> Answer:
        self.sent.append(bytes(pin))
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.touched.wait()
        finally:
            self.running -= 1
        if isinstance(self.error, Exception):
            raise self.error
        error = 43 if self.pin is not None and pin != self.pin else self.error
        if error is not None:
            return Answer(b"\5\0\0\0\0" + error.to_bytes(4, "big"), self.complaint)
        return Answer(b"\5\0\0\0\1" + string(sk_signature(self._key, b"data")[1]), "")
