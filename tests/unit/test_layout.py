"""The structure reads at a glance, and stays so: folders, imports, sizes, docstrings.

`python tests/unit/test_layout.py` lists the imports between rooms.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import sysconfig
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
MAY_IMPORT = {
    "protocol": {"protocol"},
    "token": {"token", "protocol"},
    "agent": {"agent", "token", "protocol"},
}
FLOORS = (
    ("agent/commands",),
    ("agent/doctor", "agent/setup"),
    ("agent",),  # the spine
    ("agent/ca", "agent/key_rules", "agent/upstreams"),
    ("agent/views",),
    ("agent/clients", "agent/control", "agent/desktop", "agent/keys"),
    ("agent/config", "agent/process"),
    ("token/noticing",),
    ("token/modules",),
    ("token/keygen",),
    ("token/security_keys",),
    ("token/serving",),
    ("token/pins", "token/prompts", "token/worker/inside"),
    ("token/worker",),
    ("token/names",),
    ("token",),
    ("protocol",),
)
"""The rooms, the uppermost first: imports go down, or along a floor if not in a circle."""
FILES = sorted(path.relative_to(ROOT) for folder in MAY_IMPORT for path in (ROOT / folder).rglob("*.py"))
INSIDE = "token/worker/inside"
LONGEST = 400


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse((ROOT / file).read_text())


@cache
def imports(file: Path) -> list[str]:
    """The dotted names of the modules that a file imports, anywhere in it, also for the type checker only."""
    names = []
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.Import):
            names += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: a relative import"
            assert node.module
            # `from replug.agent import signing` names the module in its second half.
            inside = [f"{node.module}.{name.name}" for name in node.names]
            names += [name if node.module == "replug" or of_ours(name) else node.module for name in inside]
    return names


def packages(file: Path) -> set[str]:
    """The packages that a file imports something of."""
    return {name.split(".")[0] for name in imports(file)}


def of_ours(name: str) -> Path | None:
    """The file of a module of ours, relative to ROOT."""
    package, _, rest = name.partition(".")
    file = Path(*rest.split(".")).with_suffix(".py") if package == "replug" and rest else None
    return file if file in FILES else None


def arrows() -> list[tuple[Path, Path]]:
    """Which file imports which."""
    return [(file, to) for file in FILES for to in sorted({*filter(None, map(of_ours, imports(file)))})]


def rooms() -> Counter[tuple[str, str]]:
    """Which room imports from which other, and by how many imports of a file by a file."""
    between = Counter((str(file.parent), str(to.parent)) for file, to in arrows())
    return Counter({(a, b): count for (a, b), count in between.items() if a != b})


def circles(pairs: Iterable[tuple[Any, Any]]) -> list[list[str]]:
    """The groups of those that can be reached from each other."""
    reached: dict[Any, set[Any]] = {}
    for start, to in pairs:
        reached.setdefault(start, set()).add(to)
    grown = True
    while grown:
        before = sum(map(len, reached.values()))
        for there in reached.values():
            there |= set().union(*(reached.get(at, set()) for at in there))
        grown = sum(map(len, reached.values())) > before
    groups = {
        frozenset(it for it in there if start in reached.get(it, set()))
        for start, there in reached.items()
        if start in there
    }
    return sorted(sorted(map(str, group)) for group in groups)


def test_there_are_files_to_look_at() -> None:
    assert {file.parts[0] for file in FILES} == set(MAY_IMPORT)


def test_token_is_the_standard_librarys_at_the_root() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import token; print(token.__file__)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(done.stdout.strip()) == Path(sysconfig.get_path("stdlib")) / "token.py"


def test_no_folder_is_a_package_under_its_bare_name() -> None:
    assert [str(file) for file in FILES if file.name == "__init__.py"] == []


def test_every_folder_is_packaged() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {"replug." + ".".join(file.parent.parts): str(file.parent) for file in FILES}
    assert setuptools["package-dir"] == folders | {"replug.systemd": "systemd"}
    assert setuptools["packages"] == sorted(setuptools["package-dir"])


def test_imports_go_one_way() -> None:
    wrong = [
        (str(file), name)
        for file in FILES
        for name in imports(file)
        if name.startswith("replug.") and name.split(".")[1] not in MAY_IMPORT[file.parts[0]]
    ]
    assert wrong == []


def test_every_room_is_on_a_floor() -> None:
    floors = [name for floor in FLOORS for name in floor]
    assert sorted(floors) == sorted({str(file.parent) for file in FILES})


def test_imports_between_rooms_go_down() -> None:
    height = {name: -number for number, floor in enumerate(FLOORS) for name in floor}
    wrong = [f"{file} -> {to}" for file, to in arrows() if height[str(to.parent)] > height[str(file.parent)]]
    assert wrong == []


def test_no_rooms_import_each_other_in_a_circle() -> None:
    assert circles(rooms()) == []


def test_no_files_import_each_other_in_a_circle() -> None:
    assert circles(arrows()) == []


def test_ours_are_imported_by_their_full_names() -> None:
    wrong = [
        (str(file), name) for file in FILES for name in imports(file) if name.split(".")[0] in MAY_IMPORT
    ]
    assert wrong == []


def test_protocol_knows_no_io() -> None:
    io = {"asyncio", "os", "pathlib", "select", "socket", "subprocess", "threading"}
    wrong = [str(file) for file in FILES if file.parts[0] == "protocol" and packages(file) & io]
    assert wrong == []


def test_only_inside_a_worker_is_pkcs11_known() -> None:
    assert {str(file.parent) for file in FILES if "pkcs11" in packages(file)} == {INSIDE}


def test_a_worker_consists_of_little_else() -> None:
    from_inside = {to for file, to in arrows() if str(file.parent) == INSIDE}
    shared = {file.stem for file in from_inside if str(file.parent) == "token/worker"}
    assert shared == {"frames", "key_types"}


def test_no_file_is_too_long_to_read() -> None:
    assert [str(file) for file in FILES if len((ROOT / file).read_text().splitlines()) > LONGEST] == []


def test_public_names_have_docstrings() -> None:
    wrong = [
        (str(file), name)
        for file in FILES
        for name, node in public_names(parsed(file), "module")
        if not ast.get_docstring(node)
    ]
    assert wrong == []


Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def public_names(node: Documented, name: str) -> Iterator[tuple[str, Documented]]:
    """A module, and the public classes and functions in it; methods may do what an interface says."""
    yield name, node
    for child in node.body:
        named = isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if named and not child.name.startswith("_"):
            yield child.name, child


if __name__ == "__main__":
    for floor in FLOORS:
        for name in floor:
            print(name)
            for below in (to for floor in FLOORS for to in floor):
                if count := rooms()[name, below]:
                    print(f"  {count:3}  {below}")
