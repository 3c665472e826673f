"""Overwriting secrets in buffers of our own. Copies that Python or the kernel made are out of reach."""

from __future__ import annotations


def wipe(buffer: bytearray | memoryview, begin: int = 0, end: int | None = None) -> None:
    """Overwrite `buffer[begin:end]` with zeros, in place."""
    end = len(buffer) if end is None else end
    buffer[begin:end] = bytes(end - begin)


def copy_over(source: bytearray, begin: int, end: int, target: bytearray) -> None:
    """Put `source[begin:end]` at the beginning of `target`.

    To assign a slice to a slice would leave a copy in a third place, which nobody can wipe.
    """
    with memoryview(source) as from_, memoryview(target) as to:
        to[: end - begin] = from_[begin:end]
