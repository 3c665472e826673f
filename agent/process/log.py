"""Structured logging: a message and fields, to stderr, the systemd journal or syslog."""

from __future__ import annotations

import logging
import os
import select
import socket
import time
from contextlib import suppress

from replug.protocol.visible_text import BLANK

_LONGEST_LINE = select.PIPE_BUF // 4 - 1  # characters, of at most four bytes
_LONGEST_VALUE = 500  # characters; what a client sends must not fill a disk
_STDERR = 2
_QUOTED = BLANK.union(' "=\\')
_JOURNAL = "/run/systemd/journal/socket"
_SYSLOG = "/dev/log"
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


def configure(*, foreground: bool, debug: bool) -> None:
    """Choose where the log goes, once.

    In the foreground it goes to stderr; if stderr is connected to the journal, to the journal, which keeps
    the fields apart. A daemon has no stderr and writes to the journal or to syslog.
    """
    _record_only_what_is_written()
    handler: logging.Handler
    if os.path.exists(_JOURNAL) and (not foreground or _stderr_is_journal()):
        handler = JournalHandler(_JOURNAL)
    elif foreground:
        handler = StderrHandler()
        handler.setFormatter(FieldFormatter(dated=True))
    elif os.path.exists(_SYSLOG):
        handler = _syslog_handler()
        handler.setFormatter(FieldFormatter(f"replug-agent[{os.getpid()}]: "))
    else:
        handler = logging.NullHandler()
    for name, level in (("replug", logging.DEBUG if debug else logging.INFO), ("asyncio", logging.ERROR)):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.propagate = False
        logger.setLevel(level)


def _record_only_what_is_written() -> None:
    """Leave call site, thread and process out of records (logging's documentation, Optimization)."""
    logging._srcfile = None
    logging.logThreads = logging.logMultiprocessing = logging.logProcesses = False


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """The `extra` that the caller passed, without empty values."""
    fields = {}
    for name, value in vars(record).items():
        if name not in _STANDARD and value not in ("", None):
            fields[name] = value
    return fields


class FieldFormatter(logging.Formatter):
    """`prefix`, the message, then `name=value` for each field, quoted where it would be ambiguous.

    Not by logging's own formats: each signature has a line, and they take a tenth of its time.
    """

    def __init__(self, prefix: str = "", *, dated: bool = False) -> None:
        """With `dated`, a line begins with the time and the level."""
        super().__init__()
        self._prefix = prefix
        self._dated = dated
        self._second = -1
        """Of the last line, in seconds since the epoch."""
        self._date_and_time = ""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line: text from a client or a token cannot start a second one."""
        line = self._prefix + record.getMessage()
        if self._dated:
            line = f"{self._time_of(record)} {record.levelname} {line}"
        if not line.isprintable():
            line = _escape(line)
        for name, value in fields_of(record).items():
            line += f" {name}={_quote(value)}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line

    def _time_of(self, record: logging.LogRecord) -> str:
        second = int(record.created)
        if second != self._second:
            self._second = second
            self._date_and_time = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
        return f"{self._date_and_time},{int(record.msecs):03}"


class StderrHandler(logging.Handler):
    """Writes what stderr accepts at once: a stopped terminal must not stop the agent."""

    def __init__(self) -> None:
        super().__init__()
        self._room = select.poll()
        self._room.register(_STDERR, select.POLLOUT)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, or drop it."""
        if self._room.poll(0) == [(_STDERR, select.POLLOUT)]:
            with suppress(OSError, ValueError):
                line = self.format(record)[:_LONGEST_LINE] + "\n"
                # A pipe that is writable takes a line of this length whole.
                os.write(_STDERR, line.encode(errors="replace"))


class JournalHandler(logging.Handler):
    """Uses the journal's native protocol, so that every field can be searched for."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self._address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        self.setFormatter(FieldFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        """Send one datagram, or drop it: a journal that does not keep up must not stop the agent."""
        entry = {
            "MESSAGE": self.format(record),
            "PRIORITY": _PRIORITIES.get(record.levelno, 6),
            "SYSLOG_IDENTIFIER": "replug-agent",
            **{f"REPLUG_{name.upper()}": value for name, value in fields_of(record).items()},
        }
        try:
            self._socket.sendto(b"".join(_journal_field(*item) for item in entry.items()), self._address)
        except OSError:
            return


def _syslog_handler() -> logging.Handler:
    from logging.handlers import SysLogHandler  # few machines need it

    class SyslogHandler(SysLogHandler):
        """Drops what syslog does not take at once, and connects again after that."""

        def _connect_unixsocket(self, address: str) -> None:
            super()._connect_unixsocket(address)  # type: ignore[misc]
            self.socket.setblocking(False)  # type: ignore[attr-defined]

        def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
            """Say nothing: it may be that nobody listens."""

    return SyslogHandler(_SYSLOG, SysLogHandler.LOG_AUTH)


def _journal_field(name: str, value: object) -> bytes:
    data = str(value).encode(errors="replace")
    return name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"


def _quote(value: object) -> str:
    text = str(value)
    if len(text) > _LONGEST_VALUE:
        text = text[:_LONGEST_VALUE] + "..."
    printable = text.isprintable()
    if text and printable and _QUOTED.isdisjoint(text):
        return text
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text if printable and BLANK.isdisjoint(text) else _escape(text)}"'


def _escape(text: str) -> str:
    """`text` with what is unprintable, or shows as nothing, as Python's escape sequences."""
    return "".join(
        character
        if character.isprintable() and character not in BLANK
        else character.encode("unicode_escape").decode()
        for character in text
    )


def _stderr_is_journal() -> bool:
    """Whether stderr is the stream that $JOURNAL_STREAM names (systemd.exec)."""
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
