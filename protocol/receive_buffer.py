"""Bytes as they arrive, in one buffer that is filled in place and leaves nothing behind, without I/O.

The owner of a socket fills `writable()` (with `recv_into`), says how much came with `received()`, and takes
whatever is whole. Messages hold PINs and keys: `recv` would return them as bytes, which nobody can wipe.
"""

from __future__ import annotations

from replug.protocol.secrets import copy_over, wipe

_USUAL = 4096  # bytes; nearly every message fits
_spare: list[bytearray] = []
"""A wiped buffer of that size, for the next that receives something: most have nothing most of the time."""


class ReceiveBuffer:
    """What has arrived and was not taken yet: at most `largest` bytes. What is taken is wiped here."""

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._buffer = bytearray()
        self.size = 0
        """How many bytes of memory it takes."""
        self._start = 0
        self._end = 0

    @property
    def full(self) -> bool:
        """Whether it holds as much as it may: something is to be taken before more is received."""
        return self._end - self._start >= self._largest

    @property
    def empty(self) -> bool:
        """Whether everything that has arrived was taken."""
        return self._end == self._start

    def is_just(self, data: bytes) -> bool:
        """Whether it holds `data` and nothing else."""
        return self._end - self._start == len(data) and self._buffer.startswith(data, self._start)

    def writable(self) -> memoryview:
        """Where the next bytes belong; unless it is `full`, there is room for one at least."""
        if not self.size:
            self._buffer, self.size = _spare.pop() if _spare else bytearray(_USUAL), _USUAL
        elif self._end == self.size:
            self._make_room()
        return memoryview(self._buffer)[self._end :]

    def received(self, count: int) -> None:
        """The next `count` bytes have been written, or none."""
        self._end += count
        if not self._end:
            self.wipe()

    def wipe(self) -> None:
        """Leave nothing of what has arrived."""
        wipe(self._buffer, 0, self._end)
        if self.size == _USUAL and not _spare:
            _spare.append(self._buffer)
        self._buffer, self.size = bytearray(), 0
        self._start = self._end = 0

    def _take(self, begin: int, end: int) -> bytearray:
        """A copy of `begin` to `end`, which the caller wipes; all up to `end` is gone from here."""
        taken = self._buffer[begin:end]
        if end == self._end:
            self.wipe()
        else:
            wipe(self._buffer, self._start, end)
            self._start = end
        return taken

    def _make_room(self) -> None:
        # A bytearray that grows may be moved, and its old place is not wiped.
        waiting = self._end - self._start
        grows = waiting == self.size
        before, size = self._buffer, min(4 * waiting, self._largest) if grows else self.size
        self._buffer, self.size = bytearray(size), size
        copy_over(before, self._start, self._end, self._buffer)
        wipe(before)
        self._start, self._end = 0, waiting
