"""Whether a file is a PKCS#11 module, found out without running any of it.

A library's constructors run while it is loaded, before it can be asked for a symbol (CVE-2023-38408). So its
dynamic symbol is looked up as the loader does it (System V ABI, chapter 5; GNU's hash table), in the file.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_WANTED = b"C_GetFunctionList"
_NEWER = b"C_GetInterface"
_IDENT = 16  # bytes
_MACHINE = 18  # where e_machine is
_SHARED_OBJECT = 3
_LOAD, _DYNAMIC = 1, 2
_HASH, _STRINGS, _SYMBOLS, _STRINGS_SIZE, _GNU_HASH = 4, 5, 6, 10, 0x6FFFFEF5
_BINDINGS = (1, 2, 10)  # global, weak, unique
_TYPES = (0, 2, 10)  # none, function, indirect function
_VISIBILITIES = (0, 3)  # default, protected
_MOST_SEGMENTS = 256
_MOST_ENTRIES = 1024
_MOST_SYMBOLS = 10_000
"""In one chain of a hash table."""


class NotAModuleError(Exception):
    """The file is no PKCS#11 module for this process; the text gives the reason."""


@contextmanager
def examined(path: str) -> Iterator[None]:
    """While the library at `path`, which is a PKCS#11 module, may be loaded.

    Raises NotAModuleError and OSError. By another name than `path`, such as that of the open file, the module
    would not find what it needs beside itself; so the file must not have changed since it was opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        before = _state(os.fstat(descriptor))
        refuse_unless_module(descriptor)
        if not before == _state(os.fstat(descriptor)) == _state(os.stat(path)):
            raise NotAModuleError("it is just being replaced; try again")
        yield
    finally:
        os.close(descriptor)


def _state(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def refuse_unless_module(descriptor: int) -> None:
    """Raise NotAModuleError unless the open file exports C_GetFunctionList."""
    try:
        library = _Library(descriptor)
        if library.exports(_WANTED):
            return
        newer = library.exports(_NEWER)
    except (struct.error, OSError) as error:
        raise NotAModuleError("it is no shared library, or a damaged one") from error
    if newer:
        raise NotAModuleError("it exports C_GetInterface alone, and C_GetFunctionList is needed")
    raise NotAModuleError("it does not export C_GetFunctionList")


@dataclass(frozen=True)
class _Layout:
    """The structures of one class of ELF files."""

    header: str
    segment: str
    segment_fields: tuple[int, int, int, int]
    """Where in it are p_type, p_offset, p_vaddr and p_filesz."""
    entry: str
    symbol: str
    symbol_fields: tuple[int, int, int, int]
    """Where in it are st_name, st_info, st_other and st_shndx."""
    word: int


_LAYOUTS = {
    1: _Layout("HHIIIIIHHH", "IIIIIIII", (0, 1, 2, 4), "iI", "IIIBBH", (0, 3, 4, 5), 4),
    2: _Layout("HHIQQQIHHH", "IIQQQQQQ", (0, 2, 3, 5), "qQ", "IBBHQQ", (0, 1, 2, 3), 8),
}


class _Library:
    """A shared library for the machine that this process runs on; struct.error if it is none."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        ident = self._read(0, _MACHINE + 2)
        with open("/proc/self/exe", "rb") as program:
            own = program.read(_MACHINE + 2)
        if ident[:4] != b"\x7fELF":
            raise struct.error
        if (ident[4:6], ident[_MACHINE:]) != (own[4:6], own[_MACHINE:]):
            raise NotAModuleError("it is for another kind of machine")
        self._order = "<" if ident[5] == 1 else ">"
        self._layout = _LAYOUTS[ident[4]]
        self._segments: list[tuple[int, int, int]] = []
        """The loaded ones: address, offset in the file, and size there."""
        self._dynamic: dict[int, int] = {}
        self._read_segments()

    def exports(self, name: bytes) -> bool:
        """Whether a dynamic symbol of this name can be found from outside."""
        return any(self._is_exported(symbol, name) for symbol in self._candidates(name))

    def _read(self, offset: int, size: int) -> bytes:
        data = os.pread(self._descriptor, size, offset) if 0 <= offset < 1 << 62 else b""
        if len(data) != size:
            raise struct.error
        return data

    def _unpack(self, form: str, offset: int) -> tuple[int, ...]:
        size = struct.calcsize(self._order + form)
        return struct.unpack(self._order + form, self._read(offset, size))

    def _read_segments(self) -> None:
        layout = self._layout
        kind, _, _, _, begin, _, _, _, size, count = self._unpack(layout.header, _IDENT)
        if kind != _SHARED_OBJECT or count > _MOST_SEGMENTS or size != struct.calcsize("<" + layout.segment):
            raise struct.error
        dynamic = (0, 0)
        for number in range(count):
            fields = self._unpack(layout.segment, begin + number * size)
            kind, offset, address, in_file = (fields[place] for place in layout.segment_fields)
            if kind == _LOAD:
                self._segments.append((address, offset, in_file))
            elif kind == _DYNAMIC:
                dynamic = offset, in_file
        offset, in_file = dynamic
        size = struct.calcsize("<" + layout.entry)
        for number in range(min(in_file // size, _MOST_ENTRIES)):
            tag, value = self._unpack(layout.entry, offset + number * size)
            if tag == 0:
                break
            self._dynamic.setdefault(tag, value)

    def _at(self, address: int) -> int:
        """The place in the file of what is loaded at `address`."""
        for begin, offset, size in self._segments:
            if begin <= address < begin + size:
                return offset + address - begin
        raise struct.error

    def _number(self, address: int) -> int:
        return self._unpack("I", self._at(address))[0]

    def _candidates(self, name: bytes) -> Iterator[int]:
        """The symbols, by number, among which `name` is if it is there at all."""
        if _GNU_HASH in self._dynamic:
            yield from self._gnu_candidates(self._dynamic[_GNU_HASH], name)
        elif _HASH in self._dynamic:
            yield from self._plain_candidates(self._dynamic[_HASH], name)

    def _gnu_candidates(self, table: int, name: bytes) -> Iterator[int]:
        buckets, first, filters, _ = self._unpack("IIII", self._at(table))
        wanted = _gnu_hash(name)
        heads = table + 16 + filters * self._layout.word
        if buckets == 0:
            return
        symbol = self._number(heads + 4 * (wanted % buckets))
        if symbol < first:
            return
        for number in range(symbol, symbol + _MOST_SYMBOLS):
            found = self._number(heads + 4 * buckets + 4 * (number - first))
            if found | 1 == wanted | 1:
                yield number
            if found & 1:
                return

    def _plain_candidates(self, table: int, name: bytes) -> Iterator[int]:
        buckets, _ = self._unpack("II", self._at(table))
        if buckets == 0:
            return
        symbol = self._number(table + 8 + 4 * (_plain_hash(name) % buckets))
        for _ in range(_MOST_SYMBOLS):
            if symbol == 0:
                return
            yield symbol
            symbol = self._number(table + 8 + 4 * buckets + 4 * symbol)

    def _is_exported(self, number: int, name: bytes) -> bool:
        symbols, strings = self._dynamic.get(_SYMBOLS, 0), self._dynamic.get(_STRINGS, 0)
        layout = self._layout
        place = self._at(symbols + number * struct.calcsize("<" + layout.symbol))
        fields = self._unpack(layout.symbol, place)
        name_at, info, other, section = (fields[field] for field in layout.symbol_fields)
        return (
            section != 0
            and info >> 4 in _BINDINGS
            and info & 0xF in _TYPES
            and other & 0x3 in _VISIBILITIES
            and name_at + len(name) < self._dynamic.get(_STRINGS_SIZE, 0)
            and self._read(self._at(strings + name_at), len(name) + 1) == name + b"\0"
        )


def _gnu_hash(name: bytes) -> int:
    value = 5381
    for byte in name:
        value = (value * 33 + byte) & 0xFFFFFFFF
    return value


def _plain_hash(name: bytes) -> int:
    value = 0
    for byte in name:
        value = (value << 4) + byte
        high = value & 0xF0000000
        value = (value ^ (high >> 24)) & ~high
    return value
