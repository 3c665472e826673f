"""The reader and the writer: RFC 4251 section 5, and paramiko kept out of the way."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from replug.protocol.wire import ProtocolError, Reader, Writer

# RFC 4251 section 5, and the numbers around the places where a byte is added.
MPINTS = {
    0: "00000000",
    0x9A378F9B2E332A7: "0000000809a378f9b2e332a7",
    0x80: "000000020080",
    0x7F: "000000017f",
    0x100: "000000020100",
}


@pytest.mark.parametrize(("number", "encoded"), MPINTS.items())
def test_mpint(number: int, encoded: str):
    assert bytes(Writer().mpint(number)).hex() == encoded
    assert Reader(bytes.fromhex(encoded)).mpint() == number


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        ("00000002edcc", "negative"),  # RFC 4251: -1234
        ("0000000100", "leading zero"),
        ("00000002007f", "leading zero"),
        ("00000003000080", "leading zero"),
    ],
)
def test_only_the_shortest_form_of_a_number_that_is_not_negative_is_an_mpint(encoded: str, reason: str):
    with pytest.raises(ProtocolError, match=reason):
        Reader(bytes.fromhex(encoded)).mpint()


def test_a_negative_mpint_cannot_be_written():
    with pytest.raises(OverflowError):
        Writer().mpint(-1)


def test_the_largest_mpint_takes_no_time():
    encoded = bytes(Writer().string(b"\x7f" + bytes(262000)))
    start = time.process_time()
    assert Reader(encoded).mpint() == 0x7F << 8 * 262000
    assert time.process_time() - start < 0.5


def test_fields_come_back_in_order():
    writer = Writer().byte(200).boolean(True).boolean(False).uint32(2**32 - 1).uint64(2**64 - 1)
    writer.string(b"\0").text("größe").mpint(5).strings([b"a", b""]).raw(b"!")
    data = bytes.fromhex(
        "c80100ffffffffffffffffffffffff00000001000000000767 72c3b6c39f65 000000010500000001610000000021"
    )
    assert bytes(writer) == data
    reader = Reader(data)
    assert (reader.byte(), reader.boolean(), reader.boolean()) == (200, True, False)
    assert (reader.uint32(), reader.uint64()) == (2**32 - 1, 2**64 - 1)
    assert (reader.string(), reader.text(), reader.mpint()) == (b"\0", "größe", 5)
    assert (reader.string(), reader.string(), reader.remaining) == (b"a", b"", 1)
    assert reader.rest() == b"!"
    reader.check_end()


def test_any_byte_but_zero_is_true():
    reader = Reader(b"\x00\x01\x02\xff")
    assert [reader.boolean() for _ in range(4)] == [False, True, True, True]


@pytest.mark.parametrize(
    ("field", "data"),
    [
        ("byte", ""),
        ("boolean", ""),
        ("uint32", "000000"),
        ("uint64", "00000000000000"),
        ("string", "000000"),
        ("string", "000000026e"),
        ("string", "ffffffff00"),
        ("mpint", "000000020a"),
    ],
)
def test_a_field_that_is_not_all_there_is_an_error(field: str, data: str):
    with pytest.raises(ProtocolError, match="truncated"):
        getattr(Reader(bytes.fromhex(data)), field)()


def test_a_list_ends_with_the_data_and_holds_no_more_than_allowed():
    assert Reader(bytes(Writer().strings([b"a", b""]))).strings(2) == (b"a", b"")
    with pytest.raises(ProtocolError, match="more than 1 items"):
        Reader(bytes(Writer().strings([b"a", b""]))).strings(1)
    with pytest.raises(ProtocolError, match="truncated"):
        Reader(bytes.fromhex("000000016100000001")).strings(9)


def test_a_field_that_is_not_all_there_is_not_taken():
    reader = Reader(b"\0\0\0")
    with pytest.raises(ProtocolError):
        reader.uint32()
    assert reader.rest() == b"\0\0\0"


@pytest.mark.parametrize("field", ["cstring", "text"])
def test_no_nul_where_a_c_program_would_stop_reading(field: str):
    with pytest.raises(ProtocolError, match="NUL"):
        getattr(Reader(bytes(Writer().string(b"name\0"))), field)()


def test_text_is_utf8():
    with pytest.raises(ProtocolError, match="UTF-8"):
        Reader(bytes(Writer().string(b"\xff"))).text()


def test_what_remains_at_the_end_is_an_error():
    with pytest.raises(ProtocolError, match="2 bytes too many"):
        Reader(b"ab").check_end()


def run_python(*lines: str) -> str:
    command = [sys.executable, "-c", "\n".join(lines)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


def test_importing_the_messages_loads_nothing_heavy():
    loaded = run_python(
        "import sys, replug.protocol.messages, replug.protocol.extensions",
        "heavy = {'asyncio', 'cryptography', 'invoke', 'nacl', 'paramiko', 'socket', 'ssl'}",
        "print(sorted(heavy & {name.partition('.')[0] for name in sys.modules}))",
    )
    assert loaded == "[]"


def test_paramiko_works_after_us():
    used = run_python(
        "import replug.protocol.wire, paramiko, paramiko.config, paramiko.util",
        "assert paramiko.util.SSHConfig is paramiko.config.SSHConfig is paramiko.SSHConfig",
        "hosts = paramiko.SSHConfig.from_text('Host a').get_hostnames()",
        "print(sorted(hosts), paramiko.Transport.__name__)",
    )
    assert used == "['*', 'a'] Transport"


def test_paramiko_works_before_us():
    used = run_python(
        "import sys, paramiko",
        "def loaded(): return {name: sys.modules[name] for name in sys.modules if 'paramiko' in name}",
        "before = loaded()",
        "import replug.protocol.wire",
        "print(loaded() == before, bytes(replug.protocol.wire.Writer().uint32(1)).hex())",
    )
    assert used == "True 00000001"
