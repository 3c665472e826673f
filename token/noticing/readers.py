"""Follows the card readers of pcscd, which notices at once that a card left or was exchanged.

No command is sent to a card, and nothing while nothing changes. pcscd is spoken to as libpcsclite does
(winscard_msg.h and winscard_svc.c of pcsc-lite, protocol 4.4 and later): to load that library would be to run
code of others in the agent, and a call that waits would need a process of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from replug.token.offload import Share, TooManyThreadsError
from replug.token.unix_path import connect

log = logging.getLogger(__name__)

_SOCKET = "/run/pcscd/pcscd.comm"
_SOCKET_VARIABLE = "PCSCLITE_CSOCK_NAME"  # which libpcsclite follows, too
_HEADER = struct.Struct("=II")  # the length of what follows, and the command
_VERSION = struct.Struct("=iiI")  # major, minor, and an error
_READER = struct.Struct("=128sIIi33sxxxII")  # READER_STATE
_CHANGE = struct.Struct("=II")
_MOST_READERS = 16
_COMMAND_VERSION, _COMMAND_WAIT = 0x11, 0x13
_OURS = (4, 4)
_NEWEST_MAJOR = 4
_PRESENT = 0x0004
_PATIENCE = 5.0  # seconds for an answer
_PAUSE = 1.0  # seconds between attempts to reach pcscd, and looks whether anybody needs it
_STILL_NEEDED = 10.0  # seconds between looks whether anybody does; pcscd may end when nobody is connected
_NOTHING_NEW = 0.5  # seconds; without any reader pcscd reports changes all the time
_APART = 0.05  # seconds between changes: a loose contact reports them as fast as it can


@dataclass(frozen=True)
class _Reader:
    changes: int
    """How often a card was put in or taken out."""
    occupied: bool


_Readers = Mapping[str, _Reader]


class CardReaders:
    """Reports to `changed` what happens in the readers, while `needed` returns true."""

    def __init__(
        self, needed: Callable[[], bool], changed: Callable[[Mapping[str, bool], bool], None]
    ) -> None:
        """`changed` is called with the readers whose card has left, and whether there is one again.

        Its second argument is whether a card was inserted into any reader.
        """
        self._needed = needed
        self._changed = changed

    async def run(self) -> None:
        """Follow them until cancelled. If that is not possible, log it once; slots are polled in any case."""
        said = False
        while True:
            if self._needed():
                try:
                    await self._follow()
                except (OSError, EOFError, TimeoutError, ValueError, TooManyThreadsError) as error:
                    if not said:
                        log.info("cannot follow pcscd's readers; cards are noticed a little later: %s", error)
                    said = True
                else:
                    said = False
            await asyncio.sleep(_PAUSE)

    async def _follow(self) -> None:
        """Report changes until the connection ends."""
        reader, writer = await _connected()
        known: _Readers | None = None
        try:
            while True:
                async with asyncio.timeout(_PATIENCE):
                    writer.write(_HEADER.pack(0, _COMMAND_WAIT))
                    await writer.drain()
                    now = _parse(await reader.readexactly(_MOST_READERS * _READER.size))
                if known is not None and now != known:
                    self._changed(_left(known, now), _arrived(known, now))
                    await asyncio.sleep(_APART)
                elif known is not None:
                    await asyncio.sleep(_NOTHING_NEW)
                known = now
                if not await self._changes(reader):
                    return
        except (EOFError, OSError):
            # pcscd has ended, and with it all that its clients were doing.
            self._changed(_left(known or {}, {}), False)
        finally:
            writer.close()

    async def _changes(self, reader: asyncio.StreamReader) -> bool:
        """Wait for a change; returns False if nobody needs to know of any."""
        while self._needed():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STILL_NEEDED):
                    await reader.readexactly(_CHANGE.size)
                    return True
        return False


async def _connected() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection in a protocol that both sides know; ValueError if there is none."""
    version = _OURS
    for _ in range(2):
        async with asyncio.timeout(_PATIENCE):
            path = os.environ.get(_SOCKET_VARIABLE, _SOCKET)
            connected = await connect(Share.CARD_READERS, path)
            reader, writer = await asyncio.open_unix_connection(sock=connected)
            with contextlib.ExitStack() as failing:
                failing.callback(writer.close)
                writer.write(_HEADER.pack(_VERSION.size, _COMMAND_VERSION) + _VERSION.pack(*version, 0))
                major, minor, error = _VERSION.unpack(await _answer(reader))
                if not error:
                    failing.pop_all()
                    return reader, writer
        if (major, minor) < _OURS or major > _NEWEST_MAJOR:
            break
        version = (major, minor)
    raise ValueError(f"pcscd speaks protocol {major}.{minor}")


async def _answer(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readexactly(_VERSION.size)
    except (EOFError, ConnectionError) as error:
        raise ValueError(
            "pcscd ends the connection, as where polkit denies it (see replug doctor)"
        ) from error


def _parse(states: bytes) -> _Readers:
    found = {}
    for name, changes, state, *_ in _READER.iter_unpack(states):
        known_as = name.partition(b"\0")[0].decode(errors="replace")
        if known_as:
            found[known_as] = _Reader(changes, bool(state & _PRESENT))
    return found


def _left(before: _Readers, now: _Readers) -> dict[str, bool]:
    """The readers whose card has left, and whether there is one again."""
    return {
        name: name in now and now[name].occupied
        for name, reader in before.items()
        if reader.occupied and now.get(name) != reader
    }


def _arrived(before: _Readers, now: _Readers) -> bool:
    """Whether a card was inserted."""
    return any(reader.occupied and before.get(name) != reader for name, reader in now.items())
