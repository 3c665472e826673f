"""Looking for secrets in the memory of other processes, as root can."""

from __future__ import annotations

import json
import os
import re
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

_MAPPING = re.compile(rb"([0-9a-f]+)-([0-9a-f]+) (r...)")
_PIECE = 16  # bytes; so much of a key is found in whatever it is a part of
_PYTHON_DIGIT_BITS = 30
_SEED, _ALIGNED = 32, 16  # bytes


def pieces_of_number(number: int) -> list[bytes]:
    """How a large number lies in memory: big-endian, little-endian (OpenSSL), as Python's digits."""
    size = (number.bit_length() + 7) // 8
    mask = (1 << _PYTHON_DIGIT_BITS) - 1
    digits = []
    rest = number
    while rest:
        digits.append(rest & mask)
        rest >>= _PYTHON_DIGIT_BITS
    forms = [
        number.to_bytes(size, "big"),
        number.to_bytes(size, "little"),
        struct.pack(f"<{len(digits)}I", *digits),
    ]
    return [_middle(form) for form in forms]


def pieces_of_bytes(secret: bytes) -> list[bytes]:
    """A secret that is no number."""
    return [_middle(secret)]


def found(pids: Iterable[int], secrets: Mapping[str, list[bytes]]) -> set[str]:
    """The names of the secrets of which a piece is in the memory of one of the processes.

    Only root may look at those that refuse it: so this file, run as a program by root, looks.
    """
    from rigs.root import as_root  # not there when this file is the program

    pieces = {name: [piece.hex() for piece in each] for name, each in secrets.items()}
    question = json.dumps([list(pids), pieces])
    return set(json.loads(as_root(sys.executable, "-I", __file__, text=question)))


def ed25519_seeds(pids: Iterable[int], public: bytes) -> list[bytes]:
    """The private keys (RFC 8032) of a public key in the memory of the processes, where malloc puts them."""
    from rigs.root import as_root

    question = json.dumps([list(pids), public.hex()])
    return [
        bytes.fromhex(seed) for seed in json.loads(as_root(sys.executable, "-I", __file__, text=question))
    ]


def _seeds(pids: Iterable[int], public: bytes) -> set[bytes]:
    seeds = set()
    for pid in pids:
        for region in _regions(pid, b"rw-p"):
            for start in range(0, len(region) - _SEED, _ALIGNED):
                piece = region[start : start + _SEED]
                # Most of a heap are addresses and text, which this spares.
                if len(set(piece)) > _SEED // 2 + 6 and piece.count(0) < 4 and _public_of(piece) == public:
                    seeds.add(piece)
    return seeds


def _public_of(seed: bytes) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def _look(pids: Iterable[int], secrets: Mapping[str, list[bytes]]) -> set[str]:
    names = set()
    for pid in pids:
        for region in _regions(pid):
            names |= {name for name, pieces in secrets.items() if any(piece in region for piece in pieces)}
    return names


def _middle(secret: bytes) -> bytes:
    start = max(0, (len(secret) - _PIECE) // 2)
    return secret[start : start + _PIECE]


def _regions(pid: int, mode: bytes = b"r") -> Iterator[bytes]:
    try:
        maps = Path(f"/proc/{pid}/maps").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return  # it has ended
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps.splitlines():
            mapping = _MAPPING.match(line)
            if (
                mapping is None
                or not mapping[3].startswith(mode)
                or line.endswith((b"[vvar]", b"[vsyscall]", b"[vvar_vclock]"))
            ):
                continue
            start, end = int(mapping[1], 16), int(mapping[2], 16)
            try:
                yield os.pread(memory.fileno(), end - start, start)
            except OSError:
                continue  # a device, or it is gone


if __name__ == "__main__":
    _pids, _pieces = json.load(sys.stdin)
    if isinstance(_pieces, str):
        print(json.dumps([seed.hex() for seed in _seeds(_pids, bytes.fromhex(_pieces))]))
    else:
        _secrets = {name: list(map(bytes.fromhex, pieces)) for name, pieces in _pieces.items()}
        print(json.dumps(sorted(_look(_pids, _secrets))))
