"""Which modules a URI means."""

from __future__ import annotations

from pathlib import Path

import pytest

from replug.token.errors import TokenError
from replug.token.names import locate
from replug.token.names.load_arguments import LoadArguments
from replug.token.names.locate import locate_modules
from replug.token.names.p11kit import LeftOut, ModuleSource, Registered, Registry, Why
from replug.token.names.uri import Uri

NOTHING = Registry((), ())
FAR = ModuleSource("/usr/lib/p11-kit-client.so", LoadArguments("unix:path=/run/far"))


@pytest.fixture
def folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Path, Path]:
    """Two folders in which modules are looked for, the first one before the second."""
    first, second = tmp_path / "x86_64-linux-gnu", tmp_path / "lib"
    first.mkdir()
    second.mkdir()
    monkeypatch.setattr(locate, "_FOLDERS", (f"{tmp_path}/*-linux-gnu*", str(second)))
    return first, second


def install(folder: Path, name: str) -> str:
    path = folder / name
    path.touch()
    return str(path)


def located(uri: Uri, registry: Registry = NOTHING) -> list[str]:
    return [source.path for source in locate_modules(uri, registry)]


def registry(*sources: ModuleSource) -> Registry:
    modules = [Registered(f"module{n}", "", source, False) for n, source in enumerate(sources)]
    return Registry(tuple(modules), ())


def test_a_path_is_the_module(folders: tuple[Path, Path]) -> None:
    path = install(folders[1], "a.so")
    (folders[0] / "link.so").symlink_to(path)
    assert located(Uri(module_path=str(folders[0] / "link.so"), module_name="b")) == [path]
    with pytest.raises(FileNotFoundError):
        located(Uri(module_path="/nonexistent/a.so"))


def test_a_path_is_the_module_as_it_is_registered(folders: tuple[Path, Path]) -> None:
    source = ModuleSource(install(folders[1], "nss.so"), LoadArguments(init_reserved="x"))
    assert locate_modules(Uri(module_path=source.path), registry(FAR, source)) == [source]
    assert locate_modules(Uri(module_name="nss"), registry(FAR, source)) == [source]


@pytest.mark.parametrize("file_name", ["softhsm2.so", "libsofthsm2.so"])
def test_a_name_is_looked_for_with_and_without_lib(folders: tuple[Path, Path], file_name: str) -> None:
    path = install(folders[1], file_name)
    install(folders[1], "libother.so")
    assert located(Uri(module_name="softhsm2")) == [path]


def test_the_first_folder_counts(folders: tuple[Path, Path]) -> None:
    install(folders[1], "module.so")
    path = install(folders[0], "libmodule.so")
    assert located(Uri(module_name="module")) == [path]


def test_a_registered_name_counts_before_a_file_of_that_name(folders: tuple[Path, Path]) -> None:
    install(folders[0], "module0.so")
    assert locate_modules(Uri(module_name="module0"), registry(FAR)) == [FAR]


def test_a_name_is_no_pattern(folders: tuple[Path, Path]) -> None:
    install(folders[1], "module.so")
    with pytest.raises(TokenError):
        located(Uri(module_name="mod*"))


def test_without_a_name_it_is_all_that_are_registered(folders: tuple[Path, Path]) -> None:
    install(folders[1], "p11-kit-proxy.so")
    install(folders[1], "opensc-pkcs11.so")
    near = ModuleSource("/usr/lib/near.so")
    assert locate_modules(Uri(token="work"), registry(near, FAR)) == [near, FAR]


def test_without_any_it_is_a_usual_one_and_never_the_proxy(folders: tuple[Path, Path]) -> None:
    install(folders[1], "p11-kit-proxy.so")
    ykcs11 = install(folders[0], "libykcs11.so")
    assert located(Uri(token="work")) == [ykcs11]
    opensc = install(folders[1], "opensc-pkcs11.so")
    assert located(Uri(token="work")) == [opensc]
    trust = Registry((), (LeftOut("trust", Why.NO_KEYS, ""),))
    assert located(Uri(token="work"), trust) == [opensc]


def test_what_is_switched_off_is_not_found_by_another_way(folders: tuple[Path, Path]) -> None:
    install(folders[1], "opensc-pkcs11.so")
    off = Registry((), (LeftOut("opensc", Why.DISABLED, ""),))
    with pytest.raises(TokenError, match="no module that p11-kit has registered can be used"):
        located(Uri(token="work"), off)


def test_a_module_that_is_not_installed(folders: tuple[Path, Path]) -> None:
    with pytest.raises(TokenError) as caught:
        located(Uri(token="work"))
    assert caught.value.reason == "pkcs11:token=work: no module opensc-pkcs11 or ykcs11 is installed"
    with pytest.raises(TokenError, match="no module mine is installed"):
        located(Uri(module_name="mine"))
