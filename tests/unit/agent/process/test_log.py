"""The log: one line for each event, whatever is in it, and fields that the journal can search for."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from doubles.protocol_strategies import bounded
from hypothesis import given
from hypothesis import strategies as st

from replug.agent.process import log as log_module
from replug.agent.process.log import FieldFormatter, JournalHandler, configure, fields_of


def record(message: str = "refused", level: int = logging.WARNING, **fields: object) -> logging.LogRecord:
    """A record as the agent's modules make them."""
    return logging.getLogger("replug.test").makeRecord(
        "replug.test", level, "file.py", 1, message, (), None, extra=fields
    )


def line(**fields: object) -> str:
    return FieldFormatter("").format(record(**fields))


def test_a_sentence_and_fields_in_their_order() -> None:
    assert line(key="SHA256:abc", duration_ms=12, program="ssh") == (
        "refused key=SHA256:abc duration_ms=12 program=ssh"
    )


def test_what_is_empty_is_left_out() -> None:
    assert line(next_step="", why=None, zero=0, no=False) == "refused zero=0 no=False"


def test_the_fields_are_what_the_caller_passed() -> None:
    assert fields_of(record(key="k", empty="")) == {"key": "k"}


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("plain", "plain"),
        ("/usr/lib/a.so", "/usr/lib/a.so"),
        ("two words", '"two words"'),
        ("a=b", '"a=b"'),
        ('say "so"', '"say \\"so\\""'),
        ("back\\slash", '"back\\\\slash"'),
        ("new\nline", '"new\\nline"'),
        ("\x1b[31mred", '"\\x1b[31mred"'),
        ("é", "é"),
        ("é\n", '"é\\n"'),
        ("\u2028", '"\\u2028"'),
        ("\\n\n", '"\\\\n\\n"'),
    ],
)
def test_values_are_quoted_where_a_reader_could_stumble(value: str, written: str) -> None:
    assert line(value=value) == f"refused value={written}"


@bounded
@given(st.text(st.characters(codec=None), min_size=1))
def test_no_value_can_forge_a_line_or_a_field(value: str) -> None:
    text = line(before=value, after="x")
    assert len(text.splitlines()) == 1
    assert text.isprintable()
    # Whoever splits the line by its rules gets each field once.
    begin, end = "refused before=", " after=x"
    assert text.startswith(begin)
    assert text.endswith(end)
    written = text[len(begin) : -len(end)]
    if written.startswith('"'):
        inner = written[1:-1].replace("\\\\", "").replace('\\"', "")
        assert written.endswith('"')
        assert '"' not in inner
    else:
        assert not set(' "=\\') & set(written)


@bounded
@given(st.text(min_size=1), st.text(min_size=1))
def test_different_values_look_different(one: str, other: str) -> None:
    assert (line(value=one) == line(value=other)) == (one == other)


def test_an_exception_is_written_too() -> None:
    try:
        raise ValueError("the reason")
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
    text = FieldFormatter("").format(
        logging.getLogger("replug").makeRecord("replug", logging.ERROR, "f", 1, "failed", (), info)
    )
    assert text.splitlines()[0] == "failed"
    assert text.splitlines()[-1] == "ValueError: the reason"


# The journal.


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[socket.socket]:
    """A journal that takes what is sent to it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "journal"))
        listening.settimeout(10)
        yield listening


def entry(datagram: bytes) -> dict[str, str]:
    """The fields of a datagram: each a name, a newline, eight bytes of length, the value, a newline."""
    fields = {}
    while datagram:
        name, _, rest = datagram.partition(b"\n")
        [length] = struct.unpack("<Q", rest[:8])
        fields[name.decode()] = rest[8 : 8 + length].decode()
        assert rest[8 + length : 9 + length] == b"\n"
        datagram = rest[9 + length :]
    return fields


def test_the_journal_gets_fields(journal: socket.socket) -> None:
    handler = JournalHandler(journal.getsockname())
    handler.emit(record("signed", logging.INFO, key="SHA256:abc", program='ssh "x"\nMESSAGE=forged'))
    assert entry(journal.recv(65536)) == {
        "MESSAGE": 'signed key=SHA256:abc program="ssh \\"x\\"\\nMESSAGE=forged"',
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "replug-agent",
        "REPLUG_KEY": "SHA256:abc",
        "REPLUG_PROGRAM": 'ssh "x"\nMESSAGE=forged',
    }


@pytest.mark.parametrize(
    ("level", "priority"),
    [(logging.DEBUG, "7"), (logging.INFO, "6"), (logging.WARNING, "4"), (logging.ERROR, "3")],
)
def test_priorities(journal: socket.socket, level: int, priority: str) -> None:
    JournalHandler(journal.getsockname()).emit(record(level=level))
    assert entry(journal.recv(65536))["PRIORITY"] == priority


def test_text_that_cannot_be_encoded_still_arrives(journal: socket.socket) -> None:
    JournalHandler(journal.getsockname()).emit(record(program="\udcff"))
    assert entry(journal.recv(65536))["REPLUG_PROGRAM"] == "?"


def test_a_journal_that_is_gone_stops_nobody(tmp_path: Path) -> None:
    JournalHandler(str(tmp_path / "gone")).emit(record())


def test_a_journal_that_does_not_keep_up_stops_nobody(journal: socket.socket) -> None:
    handler = JournalHandler(journal.getsockname())
    for number in range(5000):
        handler.emit(record(number=number))
    assert entry(journal.recv(65536))["REPLUG_NUMBER"] == "0"


# Where it goes.


@pytest.fixture
def replug_logger(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[logging.Logger]:
    """The agent's logger, as it was before `configure`; neither journal nor syslog exist."""
    monkeypatch.setattr(log_module, "_JOURNAL", str(tmp_path / "journal"))
    monkeypatch.setattr(log_module, "_SYSLOG", str(tmp_path / "syslog"))
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    for name in ("_srcfile", "logThreads", "logProcesses", "logMultiprocessing"):
        monkeypatch.setattr(logging, name, getattr(logging, name))  # to have it back afterwards
    loggers = [logging.getLogger(name) for name in ("replug", "asyncio")]
    before = [(logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers.clear()
    yield loggers[0]
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = propagate


def test_in_the_foreground_it_is_stderr(
    replug_logger: logging.Logger, capfd: pytest.CaptureFixture[str]
) -> None:
    configure(foreground=True, debug=False)
    logging.getLogger("replug.agent.handlers").info("signed", extra={"key": "k"})
    logging.getLogger("replug.agent.handlers").debug("not this")
    err = capfd.readouterr().err
    assert err.endswith("INFO signed key=k\n")
    assert len(err.splitlines()) == 1


def test_errors_of_the_event_loop_go_there_too(
    replug_logger: logging.Logger, capfd: pytest.CaptureFixture[str]
) -> None:
    configure(foreground=True, debug=False)
    logging.getLogger("asyncio").error("a callback failed")
    logging.getLogger("asyncio").warning("slow")
    assert capfd.readouterr().err.endswith("ERROR a callback failed\n")


def test_a_stderr_that_nobody_reads_stops_nobody(replug_logger: logging.Logger) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(writing, bytes(4096)):
            pass
    os.set_blocking(writing, True)
    program = (
        "from replug.agent.process.log import configure\n"
        "import logging\n"
        "configure(foreground=True, debug=False)\n"
        "logging.getLogger('replug').warning('lost')\n"
        "print('goes on')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], stderr=writing, stdout=subprocess.PIPE, timeout=30, text=True
    )
    os.close(reading)
    os.close(writing)
    assert (done.returncode, done.stdout) == (0, "goes on\n")


def test_no_value_fills_the_disk() -> None:
    assert len(line(value="x" * 1_000_000)) < 600


def test_debug_tells_more(replug_logger: logging.Logger, capfd: pytest.CaptureFixture[str]) -> None:
    configure(foreground=True, debug=True)
    logging.getLogger("replug.token.serving.served").debug("more")
    assert capfd.readouterr().err.endswith("DEBUG more\n")


def test_a_daemon_writes_to_the_journal(
    replug_logger: logging.Logger, journal: socket.socket, capfd: pytest.CaptureFixture[str]
) -> None:
    configure(foreground=False, debug=False)
    logging.getLogger("replug.agent").warning("refused")
    assert entry(journal.recv(65536))["MESSAGE"] == "refused"
    assert capfd.readouterr().err == ""


def test_a_daemon_without_a_journal_writes_to_syslog(replug_logger: logging.Logger, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog:
        syslog.bind(str(tmp_path / "syslog"))
        syslog.settimeout(10)
        configure(foreground=False, debug=False)
        logging.getLogger("replug.agent").warning("refused", extra={"why": "locked"})
        text = syslog.recv(65536).decode()
        for handler in replug_logger.handlers:
            handler.close()
    # <4 * 8 + 4>: auth.warning
    assert text.rstrip("\0") == f"<36>replug-agent[{os.getpid()}]: refused why=locked"


def test_a_syslog_that_does_not_read_stops_nobody(replug_logger: logging.Logger, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog:
        syslog.bind(str(tmp_path / "syslog"))
        configure(foreground=False, debug=False)
        log = logging.getLogger("replug.agent")
        most = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text())

        def write() -> None:
            for number in range(most + 10):
                log.info("line %d", number)

        writing = threading.Thread(target=write, daemon=True)
        writing.start()
        writing.join(10)
        stopped = writing.is_alive()
        # It goes on with what comes when there is room.
        for _ in range(most):
            syslog.recv(65536)
        log.warning("later")
        syslog.settimeout(10)
        while b"later" not in (line := syslog.recv(65536)):
            assert b"line" in line
        for handler in replug_logger.handlers:
            handler.close()
    assert not stopped


def test_where_nobody_listens_at_syslogs_socket_the_log_is_dropped(
    replug_logger: logging.Logger, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as gone:
        gone.bind(str(tmp_path / "syslog"))
    configure(foreground=False, debug=False)
    logging.getLogger("replug.agent").warning("refused")
    assert capfd.readouterr().err == ""


def test_a_daemon_without_either_is_silent(
    replug_logger: logging.Logger, capfd: pytest.CaptureFixture[str]
) -> None:
    configure(foreground=False, debug=False)
    logging.getLogger("replug.agent").warning("refused")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("is_journal", [True, False])
def test_stderr_that_is_the_journal_gets_fields(
    replug_logger: logging.Logger,
    journal: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
    is_journal: bool,
) -> None:
    status = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino if is_journal else 1}")
    configure(foreground=True, debug=False)
    assert [isinstance(handler, JournalHandler) for handler in replug_logger.handlers] == [is_journal]
