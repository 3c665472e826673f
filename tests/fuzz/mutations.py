"""Bytes that are nearly right: recorded messages with a few changes, which hypothesis draws and shrinks."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import strategies as st

_TELLING = (0, 1, 2, 5, 0x7F, 0x80, 0xFF)
_LENGTHS = (0, 1, 4, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 256 * 1024, 256 * 1024 + 1)


def _at(data: bytes, place: int) -> int:
    return place % (len(data) + 1)


def _flip(data: bytes, place: int, value: int, _other: bytes) -> bytes:
    place = _at(data, place)
    return data[:place] + bytes([value % 256]) + data[place + 1 :]


def _set_length(data: bytes, place: int, value: int, _other: bytes) -> bytes:
    """Where a length may stand, another one."""
    place = _at(data, place)
    return data[:place] + _LENGTHS[value % len(_LENGTHS)].to_bytes(4, "big") + data[place + 4 :]


def _shift_length(data: bytes, place: int, value: int, _other: bytes) -> bytes:
    """A length that is off by a little."""
    place = _at(data, place)
    length = int.from_bytes(data[place : place + 4], "big") + value % 9 - 4
    return data[:place] + (length % 2**32).to_bytes(4, "big") + data[place + 4 :]


def _cut(data: bytes, place: int, value: int, _other: bytes) -> bytes:
    place = _at(data, place)
    return data[:place] + data[place + value :]


def _truncate(data: bytes, place: int, _value: int, _other: bytes) -> bytes:
    return data[: _at(data, place)]


def _insert(data: bytes, place: int, value: int, _other: bytes) -> bytes:
    place = _at(data, place)
    return data[:place] + bytes([_TELLING[value % len(_TELLING)]]) * (1 + value % 5) + data[place:]


def _repeat(data: bytes, place: int, value: int, _other: bytes) -> bytes:
    place = _at(data, place)
    return data + data[place : place + value]


def _splice(data: bytes, place: int, value: int, other: bytes) -> bytes:
    """The beginning of one and the end of another."""
    return data[: _at(data, place)] + other[_at(other, value) :]


_MUTATIONS: tuple[Callable[[bytes, int, int, bytes], bytes], ...] = (
    _flip, _set_length, _shift_length, _cut, _truncate, _insert, _repeat, _splice,
)  # fmt: skip


def mutated(seeds: list[bytes]) -> st.SearchStrategy[bytes]:
    """One of the seeds with up to six changes; now and then bytes without any sense."""
    number = st.integers(0, 4096)
    change = st.tuples(st.sampled_from(_MUTATIONS), number, number, st.sampled_from(seeds))

    def apply(
        data: bytes, changes: list[tuple[Callable[[bytes, int, int, bytes], bytes], int, int, bytes]]
    ) -> bytes:
        for mutate, place, value, other in changes:
            data = mutate(data, place, value, other)
        return data

    nearly = st.builds(apply, st.sampled_from(seeds), st.lists(change, max_size=6))
    return nearly | st.binary(max_size=200)
