"""One connection to a message bus, on asyncio: jeepney encodes and decodes, this file does the I/O.

jeepney's own asyncio connection cannot receive file descriptors, which logind's locks are, and accepts
messages of any length.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
from collections.abc import Callable, Iterable
from typing import Any

from jeepney import (
    DBusAddress,
    HeaderFields,
    Message,
    MessageFlag,
    MessageType,
    Parser,
    new_method_call,
)
from jeepney.auth import BEGIN, AuthenticationError, Authenticator
from jeepney.fds import FileDescriptor, fds_buf_size

from replug.agent.desktop.bus_names import BusError, Remote, Signal

log = logging.getLogger(__name__)

_PATIENCE = 5.0  # seconds for an answer
_LONGEST_MESSAGE = 1 << 20  # bytes; any program on the system bus may send us signals, of up to 32 MiB
_LONGEST_READ = 1 << 16  # bytes
_LONGEST_LINE = 1024  # bytes, while authenticating

_BUS = Remote("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")


class BusConnection:
    """A connection; calls may overlap. Use `open_bus` to get one."""

    @classmethod
    async def open(
        cls, connected: socket.socket, on_signal: Callable[[Signal], None] | None
    ) -> BusConnection:
        """Say Hello on a non-blocking socket, which the connection owns from then on; BusError, OSError."""
        await _authenticate(connected)
        connection = cls(connected, on_signal)
        try:
            await connection.call(_BUS, "Hello")
        except BaseException:
            connection.close()
            raise
        return connection

    def __init__(self, connected: socket.socket, on_signal: Callable[[Signal], None] | None) -> None:
        self._socket = connected
        self._on_signal = on_signal
        self._parser = Parser()
        self._serials = itertools.count(1)
        self._replies: dict[int, asyncio.Future[Message]] = {}
        self._to_skip = 0
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[None] = self._loop.create_future()
        """Raises BusError when the connection has ended."""
        self._loop.add_reader(connected, self._readable)

    async def call(
        self,
        remote: Remote,
        method: str,
        signature: str = "",
        *arguments: Any,
        patience: float = _PATIENCE,
    ) -> tuple[Any, ...]:
        """What the method returns. BusError with the service's words if it refuses, or after `patience` s.

        `signature` is that of the arguments, in D-Bus's notation. A file descriptor in what is returned
        is closed with the last reference to it.
        """
        serial = next(self._serials)
        reply = self._replies[serial] = self._loop.create_future()
        try:
            self._send(_method_call(remote, method, signature, arguments), serial)
            async with asyncio.timeout(patience):
                message = await reply
        except TimeoutError:
            raise BusError(f"{remote.name} did not answer {method} within {patience:g} s") from None
        finally:
            del self._replies[serial]
        if message.header.message_type is MessageType.error:
            name = message.header.fields.get(HeaderFields.error_name, "an error")
            words = next((word for word in message.body if isinstance(word, str)), "")
            raise BusError(f"{remote.name} refuses {method}: {words or name}")
        return tuple(message.body)

    def send(self, remote: Remote, method: str, signature: str, *arguments: Any) -> None:
        """Call a method without waiting for a reply; the connection may be closed right after. BusError."""
        message = _method_call(remote, method, signature, arguments)
        message.header.flags |= MessageFlag.no_reply_expected
        self._send(message, next(self._serials))

    async def subscribe(self, **fields: str) -> None:
        """Receive the signals that match all `fields`, such as `member="Lock"`; BusError."""
        rule = ",".join(f"{name}='{value}'" for name, value in {"type": "signal", **fields}.items())
        await self.call(_BUS, "AddMatch", "s", rule)

    async def owner(self, name: str) -> str:
        """The unique name of the service `name`, which is not started for it; BusError if there is none."""
        (owner,) = await self.call(_BUS, "GetNameOwner", "s", name)
        return str(owner)

    def close(self) -> None:
        """Close the connection. Calls that are waiting fail."""
        self._lose(BusError("the connection to the bus was closed"))

    def _lose(self, error: BusError) -> None:
        if self.lost.done():
            return
        self.lost.set_exception(error)
        self.lost.exception()  # so that asyncio does not report it as never retrieved
        self._loop.remove_reader(self._socket)
        self._socket.close()
        for reply in self._replies.values():
            if not reply.done():
                reply.set_exception(error)
                reply.exception()

    def _send(self, message: Message, serial: int) -> None:
        if self.lost.done():
            raise BusError("the connection to the bus is lost") from self.lost.exception()
        data = message.serialise(serial)
        try:
            sent = self._socket.send(data)
        except OSError as error:
            sent, reason = 0, error.strerror
        else:
            reason = "it does not read"
        if sent < len(data):
            # Our messages are shorter than the kernel's buffer: a bus that does not read them is stuck.
            self._lose(BusError(f"the bus is lost: {reason}"))
            raise BusError(f"the bus is lost: {reason}")

    def _readable(self) -> None:
        try:
            self._read()
            while (message := self._parser.get_next_message()) is not None:
                self._dispatch(message)
        except BlockingIOError:
            return
        except EOFError:
            self._lose(BusError("the bus hung up"))
        except Exception as error:  # jeepney documents no exceptions for malformed messages
            self._lose(BusError(f"the bus is lost: {error}"))

    def _read(self) -> None:
        """Receive at most one message, so that file descriptors are matched with their message."""
        wanted = self._to_skip or self._parser.bytes_desired()
        if wanted > _LONGEST_MESSAGE and not self._to_skip:
            log.debug("skipping a message of %d bytes", wanted)
            self._to_skip = wanted
            _close_descriptors(self._parser.fds)
            self._parser = Parser()
        data, ancillary, flags, _ = self._socket.recvmsg(
            min(wanted, _LONGEST_READ), fds_buf_size(), socket.MSG_CMSG_CLOEXEC
        )
        descriptors = FileDescriptor.from_ancdata(ancillary)
        if not data:
            raise EOFError
        if flags & socket.MSG_CTRUNC:
            raise BusError("the bus sent more file descriptors than expected")
        if self._to_skip:
            self._to_skip -= len(data)
        else:
            self._parser.add_data(data, fds=descriptors)

    def _dispatch(self, message: Message) -> None:
        fields = message.header.fields
        if message.header.message_type in (MessageType.method_return, MessageType.error):
            reply = self._replies.get(fields.get(HeaderFields.reply_serial, 0))
            if reply is not None and not reply.done():
                reply.set_result(message)
            else:
                _close_descriptors(message.body)
        elif message.header.message_type is MessageType.signal and self._on_signal is not None:
            self._on_signal(
                Signal(
                    sender=fields.get(HeaderFields.sender, ""),
                    path=fields.get(HeaderFields.path, ""),
                    interface=fields.get(HeaderFields.interface, ""),
                    member=fields.get(HeaderFields.member, ""),
                    arguments=tuple(message.body),
                )
            )


async def _authenticate(connected: socket.socket) -> None:
    """The exchange of lines before the first message (D-Bus specification, "Authentication Protocol")."""
    loop = asyncio.get_running_loop()
    conversation = Authenticator(enable_fds=True)
    try:
        for line in conversation:
            await loop.sock_sendall(connected, line)
            answer = await loop.sock_recv(connected, _LONGEST_LINE)
            if not answer:
                raise BusError("the bus hung up during authentication")
            conversation.feed(answer)
    except AuthenticationError as error:
        raise BusError(f"the bus does not accept us: {error}") from error
    await loop.sock_sendall(connected, BEGIN)


def _close_descriptors(values: Iterable[object]) -> None:
    for value in values:
        if isinstance(value, FileDescriptor):
            value.close()


def _method_call(remote: Remote, method: str, signature: str, arguments: tuple[Any, ...]) -> Message:
    address = DBusAddress(remote.path, remote.name, remote.interface)
    return new_method_call(address, method, signature or None, arguments)
