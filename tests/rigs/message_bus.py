"""A message bus of a test's own, and services on it that do as they are told."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from jeepney import (
    DBusAddress,
    HeaderFields,
    Message,
    MessageType,
    new_error,
    new_method_return,
    new_signal,
)
from jeepney.bus_messages import message_bus
from jeepney.fds import FileDescriptor
from jeepney.io.threading import DBusConnection, ReceiveStopped, open_dbus_connection

CONFIGURATION = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*" eavesdrop="true"/>
    <allow receive_sender="*" eavesdrop="true"/>
  </policy>
</busconfig>
"""
"""A bus that lets everybody do everything, at the path `{socket}`."""
_PATIENCE = 20  # seconds
_NAMED, _SETTLED = 1_000_000, 1_000_001  # serial numbers that nothing else reaches


class MessageBus:
    """A real dbus-daemon in `folder`, whose name must be short; it starts no services of this machine."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "bus"
        self.address = f"unix:path={self.socket}"
        self._config = folder / "bus.conf"
        self._config.write_text(CONFIGURATION.format(socket=self.socket))
        self.start()

    def start(self) -> None:
        """Starts it, and returns when it accepts connections."""
        self._process = subprocess.Popen(
            ["dbus-daemon", f"--config-file={self._config}", "--nofork", "--nopidfile", "--print-address"],
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline().startswith(b"unix:path=")

    def stop(self) -> None:
        """Ends it, and with it every connection."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self.socket.unlink(missing_ok=True)


class SilentBus:
    """Accepts connections at `path`, and never says a word."""

    def __init__(self, path: Path) -> None:
        self.address = f"unix:path={path}"
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()

    def stop(self) -> None:
        self._socket.close()


class RefusedError(Exception):
    """What a service answers instead."""


class BusService:
    """A service with one name, in a thread: `answer` is to be overridden."""

    name = ""

    def __init__(self, address: str) -> None:
        self.arrived = 0
        """How many calls have arrived; those under way included."""
        self._changed = threading.Condition()
        self._connection: DBusConnection = open_dbus_connection(address, enable_fds=True)
        self._connection.send(message_bus.RequestName(self.name), serial=_NAMED)
        while self._connection.receive().header.fields.get(HeaderFields.reply_serial) != _NAMED:
            pass
        self._settled = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def answer(
        self, path: str, interface: str, method: str, arguments: tuple
    ) -> tuple[str | None, tuple] | None:
        """The signature and values of a reply, or None for no reply at all; RefusedError."""
        raise NotImplementedError

    def emit(self, path: str, interface: str, member: str, signature: str, *arguments: object) -> None:
        """Sends a signal to all who want it."""
        address = DBusAddress(path, interface=interface)
        self._connection.send(new_signal(address, member, signature, arguments))

    def emit_to(
        self, destination: str, path: str, interface: str, member: str, signature: str, *arguments: object
    ) -> None:
        """Sends a signal to one connection, whether it wants it or not."""
        signal = new_signal(DBusAddress(path, interface=interface), member, signature, arguments)
        signal.header.fields[HeaderFields.destination] = destination
        self._connection.send(signal)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Returns when `condition` holds; it is looked at after every call that was answered."""
        with self._changed:
            assert self._changed.wait_for(condition, _PATIENCE), "it never happened"

    def settle(self) -> None:
        """Returns when the bus has passed on what was emitted until now; can be used once."""
        self._connection.send(message_bus.GetId(), serial=_SETTLED)
        self.wait_until(lambda: self._settled)

    @contextmanager
    def slow(self) -> Iterator[None]:
        """Calls that arrive now are answered only at the end."""
        with self._changed:
            yield

    def stop(self) -> None:
        """Leaves the bus, which may be gone."""
        self._connection.interrupt()
        self._thread.join(_PATIENCE)
        self._connection.close()

    def _serve(self) -> None:
        while True:
            try:
                message = self._connection.receive()
            except (ReceiveStopped, ConnectionError):
                return
            if message.header.message_type is MessageType.method_call:
                self.arrived += 1
                with self._changed:
                    reply = self._reply(message)
                    self._changed.notify_all()
                if reply is not None:
                    with suppress(ConnectionError), ExitStack() as handed_over:
                        for value in reply.body:
                            if isinstance(value, FileDescriptor):
                                handed_over.enter_context(value)
                        self._connection.send(reply)
            elif message.header.fields.get(HeaderFields.reply_serial) == _SETTLED:
                with self._changed:
                    self._settled = True
                    self._changed.notify_all()

    def _reply(self, message: Message) -> Message | None:
        fields = message.header.fields
        try:
            answer = self.answer(
                fields[HeaderFields.path],
                fields[HeaderFields.interface],
                fields[HeaderFields.member],
                tuple(message.body),
            )
        except RefusedError as refusal:
            return new_error(message, "org.freedesktop.DBus.Error.Failed", "s", (str(refusal),))
        return None if answer is None else new_method_return(message, *answer)
