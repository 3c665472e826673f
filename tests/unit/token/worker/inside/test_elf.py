"""What is a PKCS#11 module, by the bytes of the file."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sysconfig
from pathlib import Path

import pytest
from rigs.softhsm import MODULE

from replug.token.worker.inside.elf import NotAModuleError, examined

LIBRARIES = Path("/usr/lib") / sysconfig.get_config_var("MULTIARCH")
SOURCE = Path(__file__).parents[4] / "modules" / "constructor.c"
FLIPS = 3000


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A module of a few pages."""
    return build(tmp_path_factory.mktemp("elf"), "-DMODULE").read_bytes()


def build(folder: Path, *options: str) -> Path:
    library = folder / "library.so"
    subprocess.run(["gcc", "-shared", "-fPIC", *options, "-o", library, SOURCE], check=True)
    return library


def examine(path: Path) -> None:
    with examined(str(path)):
        pass


@pytest.mark.parametrize(
    "path",
    [
        MODULE,
        LIBRARIES / "p11-kit-proxy.so",
        LIBRARIES / "opensc-pkcs11.so",
        LIBRARIES / "libykcs11.so",
        LIBRARIES / "libykcs11.so.2",
    ],
    ids=str,
)
def test_modules(path: Path) -> None:
    examine(path)


@pytest.mark.parametrize("style", ["sysv", "gnu", "both"])
def test_each_kind_of_hash_table(tmp_path: Path, style: str) -> None:
    examine(build(tmp_path, "-DMODULE", f"-Wl,--hash-style={style}"))
    with pytest.raises(NotAModuleError, match="does not export C_GetFunctionList"):
        examine(build(tmp_path, "-DIMPORTS", f"-Wl,--hash-style={style}"))


def test_a_module_without_section_headers(tmp_path: Path) -> None:
    """The loader does not need them."""
    path = build(tmp_path, "-DMODULE", "-s")
    data = bytearray(path.read_bytes())
    data[0x28:0x30] = bytes(8)
    data[0x3C:0x40] = bytes(4)
    path.write_bytes(data)
    examine(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no shared library"),
        (b"\x7fELF", "no shared library"),
        (b"#!/bin/sh\nexit 0\n" * 10, "no shared library"),
    ],
)
def test_no_libraries(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(NotAModuleError, match=reason):
        examine(path)


@pytest.mark.parametrize(("place", "value"), [(4, 1), (5, 2), (18, 0x28)])
def test_other_machines(tmp_path: Path, small: bytes, place: int, value: int) -> None:
    path, data = tmp_path / "file", bytearray(small)
    data[place] = value
    path.write_bytes(data)
    with pytest.raises(NotAModuleError, match="another kind of machine"):
        examine(path)


def test_a_program_is_none(tmp_path: Path) -> None:
    program = tmp_path / "program"
    subprocess.run(["gcc", "-no-pie", "-x", "c", "-o", program, "-"], input=b"int main() {}", check=True)
    with pytest.raises(NotAModuleError, match="no shared library"):
        examine(program)


@pytest.mark.parametrize("seed", range(3))
def test_damaged_files_are_read_within_their_bounds(tmp_path: Path, small: bytes, seed: int) -> None:
    chance, path = random.Random(seed), tmp_path / "file"
    # What describes the symbols is at the beginning, and in the dynamic section near the end.
    tail = small.index(b"\x05\0\0\0\0\0\0\0", 0x2000)
    places = [*range(0x600), *range(tail - 0x100, tail + 0x200)]
    with path.open("wb", buffering=0) as file:
        for number in range(FLIPS // 3):
            data = bytearray(small)
            for _ in range(chance.randint(1, 3)):
                data[chance.choice(places)] = chance.choice((0, 1, 0x7F, 0xFF, chance.randrange(256)))
            os.pwrite(file.fileno(), data if number % 2 else data[: chance.randrange(len(data))], 0)
            with contextlib.suppress(NotAModuleError):
                examine(path)
            os.ftruncate(file.fileno(), 0)


def test_a_file_that_is_replaced_meanwhile(
    tmp_path: Path, small: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = tmp_path / "file", tmp_path / "other"
    path.write_bytes(small)
    other.write_bytes(small)

    def replace(_: int) -> None:
        other.rename(path)

    monkeypatch.setattr("replug.token.worker.inside.elf.refuse_unless_module", replace)
    with pytest.raises(NotAModuleError, match="is just being replaced"):
        examine(path)
