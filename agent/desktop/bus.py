"""The message buses of D-Bus: where they are, and how to reach one.

The D-Bus code itself is in `bus_connection.py`, and is imported only when there is a bus.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replug.agent.desktop.bus_names import BusError, Signal
from replug.token.bytes_only import BytesOnly, Disposal
from replug.token.offload import Share, TooManyThreadsError, in_daemon_thread
from replug.token.unix_path import connect

if TYPE_CHECKING:
    from replug.agent.desktop.bus_connection import BusConnection

_SYSTEM_BUS = "unix:path=/run/dbus/system_bus_socket"
_ESCAPED = re.compile(rb"%([0-9A-Fa-f]{2})")
_PATIENCE = 5.0  # seconds, from connecting to the bus's first answer


@dataclass(frozen=True)
class Bus:
    """Where a bus is: any of these sockets. Who waits for one bus is not in the way of another."""

    share: Share
    sockets: tuple[bytes, ...]


def session_bus(environment: Mapping[str, str]) -> Bus:
    """The user's bus: $DBUS_SESSION_BUS_ADDRESS, or else `bus` in $XDG_RUNTIME_DIR."""
    address = environment.get("DBUS_SESSION_BUS_ADDRESS")
    folder = environment.get("XDG_RUNTIME_DIR")
    if address:
        return Bus(Share.SESSION_BUS, _sockets(address))
    return Bus(Share.SESSION_BUS, (os.fsencode(folder) + b"/bus",) if folder else ())


def system_bus(environment: Mapping[str, str]) -> Bus:
    """The machine's bus: $DBUS_SYSTEM_BUS_ADDRESS, or the well-known one."""
    return Bus(Share.SYSTEM_BUS, _sockets(environment.get("DBUS_SYSTEM_BUS_ADDRESS") or _SYSTEM_BUS))


@asynccontextmanager
async def open_bus(
    bus: Bus,
    on_signal: Callable[[Signal], None] | None = None,
    *,
    takes_descriptors: bool = False,
) -> AsyncIterator[BusConnection]:
    """A connection to the first of the bus's sockets that accepts one; BusError.

    `on_signal` is called with every signal that arrives, from the event loop. A connection that does not take
    descriptors is sent none: whoever takes one closes it, and may have to wait for that.
    """
    try:
        async with asyncio.timeout(_PATIENCE):
            connected = await _connect(bus)
            try:
                # In a thread: an import blocks the event loop.
                connection_class = await in_daemon_thread(Share.LIBRARIES, _import_connection)
                connection = await connection_class.open(
                    connected, on_signal, takes_descriptors=takes_descriptors
                )
            except BaseException:
                connected.close()
                raise
    except TimeoutError:
        raise BusError(f"the bus did not answer within {_PATIENCE:g} s") from None
    except TooManyThreadsError as error:
        raise BusError(f"no bus: {error.reason}") from error
    except OSError as error:
        raise BusError(f"no bus: {error.strerror or error}") from error
    try:
        yield connection
    finally:
        connection.close()


async def _connect(bus: Bus) -> socket.socket:
    error: OSError | None = None
    for address in bus.sockets:
        try:
            return BytesOnly.of(await connect(bus.share, address), Disposal().take)
        except OSError as failure:
            error = failure
    raise error or BusError("no bus: the environment names none")


def _import_connection() -> type[BusConnection]:
    from replug.agent.desktop.bus_connection import BusConnection

    return BusConnection


def _sockets(address: str) -> tuple[bytes, ...]:
    """The Unix sockets in an address (D-Bus specification, "Server Addresses"); others are ignored."""
    found = []
    for entry in address.split(";"):
        transport, _, rest = entry.partition(":")
        options = dict(option.partition("=")[::2] for option in rest.split(","))
        if transport == "unix" and "path" in options:
            found.append(_unescape(options["path"]))
        elif transport == "unix" and "abstract" in options:
            found.append(b"\0" + _unescape(options["abstract"]))
    return tuple(found)


def _unescape(value: str) -> bytes:
    return _ESCAPED.sub(lambda match: bytes.fromhex(match[1].decode()), os.fsencode(value))
