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
from typing import Any, Literal

from jeepney import (
    DBusAddress,
    Header,
    HeaderFields,
    Message,
    MessageFlag,
    MessageType,
    new_method_call,
)
from jeepney.auth import BEGIN, AuthenticationError, Authenticator
from jeepney.fds import FileDescriptor, fds_buf_size
from jeepney.low_level import calc_msg_size

from replug.agent.desktop.bus_names import BusError, Remote, Signal
from replug.token.bytes_only import Disposal

log = logging.getLogger(__name__)

_PATIENCE = 5.0  # seconds for an answer
_LONGEST_MESSAGE = 32 * 1024
"""Bytes: decoded in less than 20 ms, whatever is in it. Any program may send us signals of up to 32 MiB."""
_LONGEST_HEADER = 4 * 1024  # bytes of its fields
_LONGEST_READ = 1 << 16  # bytes
_LONGEST_LINE = 1024  # bytes, while authenticating

_PRELUDE = 16  # bytes, which say how long a message is
_FIELDS_LENGTH = 12  # where in them the length of the header's fields is

_BUS = Remote("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")


class BusConnection:
    """A connection; calls may overlap. Use `open_bus` to get one."""

    @classmethod
    async def open(
        cls,
        connected: socket.socket,
        on_signal: Callable[[Signal], None] | None,
        *,
        takes_descriptors: bool,
    ) -> BusConnection:
        """Say Hello on a non-blocking socket, which the connection owns from then on; BusError, OSError."""
        await _authenticate(connected, takes_descriptors=takes_descriptors)
        connection = cls(connected, on_signal, takes_descriptors=takes_descriptors)
        try:
            await connection.call(_BUS, "Hello")
        except BaseException:
            connection.close()
            raise
        return connection

    def __init__(
        self,
        connected: socket.socket,
        on_signal: Callable[[Signal], None] | None,
        *,
        takes_descriptors: bool = False,
    ) -> None:
        self._disposal = Disposal()
        self._socket = connected
        self._on_signal = on_signal
        self._takes_descriptors = takes_descriptors
        self._message = bytearray()
        """What has arrived of the next message."""
        self._descriptors: list[FileDescriptor] = []
        """Those that came with it."""
        self._serials = itertools.count(1)
        self._replies: dict[int, asyncio.Future[Message]] = {}
        self._heard = {_BUS.name}
        """Whose signals are passed on: the bus's own and those of services that `owner` has found."""
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
        """The unique name of the service `name`, which is not started for it; BusError if there is none.

        From now on its signals are passed on, and nobody else's are even decoded.
        """
        (owner,) = await self.call(_BUS, "GetNameOwner", "s", name)
        self._heard.add(str(owner))
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
        self._leave(self._descriptors)
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
            whole = self._missing == 0
        except BlockingIOError:
            return
        except EOFError:
            self._lose(BusError("the bus hung up"))
            return
        except Exception as error:  # jeepney documents no exceptions for malformed messages
            self._lose(BusError(f"the bus is lost: {error}"))
            return
        if whole:
            message, descriptors = bytes(self._message), self._descriptors
            self._message, self._descriptors = bytearray(), []
            self._receive(message, descriptors)

    @property
    def _missing(self) -> int:
        """How many bytes of the next message have not arrived; of its beginning until its length is known."""
        got = len(self._message)
        return (calc_msg_size(bytes(self._message[:_PRELUDE])) if got >= _PRELUDE else _PRELUDE) - got

    def _read(self) -> None:
        """Receive at most one message, so that file descriptors are matched with their message."""
        wanted = self._to_skip or self._missing
        if wanted > _LONGEST_MESSAGE and not self._to_skip:
            log.debug("skipping a message of %d bytes", wanted)
            self._to_skip = wanted
            self._leave(self._descriptors)
            self._message, self._descriptors = bytearray(), []
        size = min(wanted, _LONGEST_READ)
        if self._takes_descriptors:
            data, ancillary, flags, _ = self._socket.recvmsg(size, fds_buf_size(), socket.MSG_CMSG_CLOEXEC)
        else:
            data, ancillary, flags = self._socket.recv(size), [], 0
        descriptors = FileDescriptor.from_ancdata(ancillary)
        if not data:
            raise EOFError
        if flags & socket.MSG_CTRUNC:
            raise BusError("the bus sent more file descriptors than expected")
        if self._to_skip:
            self._to_skip -= len(data)
            self._leave(descriptors)
        else:
            self._message += data
            self._descriptors += descriptors

    def _receive(self, raw: bytes, descriptors: list[FileDescriptor]) -> None:
        """Decode a message and pass it on if somebody waits for it; if not, what it says is not even decoded.

        It may be anybody's, so what is wrong with it is no reason to give up the connection.
        """
        order: Literal["little", "big"] = "little" if raw[:1] == b"l" else "big"
        header: Header | None = None
        try:
            if int.from_bytes(raw[_FIELDS_LENGTH:_PRELUDE], order) <= _LONGEST_HEADER:
                header, _ = Header.from_buffer(raw)
            if header is not None and self._is_wanted(header):
                self._dispatch(Message.from_buffer(raw, fds=descriptors))
                return
        except Exception as error:  # as above
            log.debug("a message on the bus makes no sense: %r", error)
            if header is not None and header.message_type is not MessageType.signal:
                reply = self._replies[header.fields[HeaderFields.reply_serial]]
                reply.set_exception(BusError(f"the answer makes no sense: {error}"))
        self._leave(descriptors)

    def _leave(self, values: Iterable[object]) -> None:
        """Have descriptors closed, which may be anybody's."""
        for value in values:
            if isinstance(value, FileDescriptor):
                self._disposal.take(value.to_raw_fd())

    def _is_wanted(self, header: Header) -> bool:
        if header.message_type in (MessageType.method_return, MessageType.error):
            reply = self._replies.get(header.fields.get(HeaderFields.reply_serial, 0))
            return reply is not None and not reply.done()
        return self._on_signal is not None and header.fields.get(HeaderFields.sender) in self._heard

    def _dispatch(self, message: Message) -> None:
        fields = message.header.fields
        if message.header.message_type in (MessageType.method_return, MessageType.error):
            self._replies[fields[HeaderFields.reply_serial]].set_result(message)
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


async def _authenticate(connected: socket.socket, *, takes_descriptors: bool) -> None:
    """The exchange of lines before the first message (D-Bus specification, "Authentication Protocol")."""
    loop = asyncio.get_running_loop()
    conversation = Authenticator(enable_fds=takes_descriptors)
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


def _method_call(remote: Remote, method: str, signature: str, arguments: tuple[Any, ...]) -> Message:
    address = DBusAddress(remote.path, remote.name, remote.interface)
    return new_method_call(address, method, signature or None, arguments)
