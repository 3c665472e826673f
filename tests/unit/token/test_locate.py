"""Which module a URI means."""

from __future__ import annotations

from pathlib import Path

import pytest

from replug.token import locate
from replug.token.errors import TokenError
from replug.token.locate import locate_module
from replug.token.uri import Uri


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


def test_a_path_is_the_module_whether_it_is_there_or_not() -> None:
    assert locate_module(Uri(module_path="/nonexistent/a.so", module_name="b")) == "/nonexistent/a.so"


@pytest.mark.parametrize("file_name", ["softhsm2.so", "libsofthsm2.so"])
def test_a_name_is_looked_for_with_and_without_lib(folders: tuple[Path, Path], file_name: str) -> None:
    path = install(folders[1], file_name)
    install(folders[1], "libother.so")
    assert locate_module(Uri(module_name="softhsm2")) == path


def test_the_first_folder_counts(folders: tuple[Path, Path]) -> None:
    install(folders[1], "module.so")
    path = install(folders[0], "libmodule.so")
    assert locate_module(Uri(module_name="module")) == path


def test_a_name_is_no_pattern(folders: tuple[Path, Path]) -> None:
    install(folders[1], "module.so")
    with pytest.raises(TokenError):
        locate_module(Uri(module_name="mod*"))


def test_without_a_name_it_is_the_proxy_that_has_them_all(folders: tuple[Path, Path]) -> None:
    ykcs11 = install(folders[0], "libykcs11.so")
    assert locate_module(Uri(token="work")) == ykcs11
    opensc = install(folders[1], "opensc-pkcs11.so")
    assert locate_module(Uri(token="work")) == opensc
    proxy = install(folders[1], "p11-kit-proxy.so")
    assert locate_module(Uri(token="work")) == proxy


def test_a_module_that_is_not_installed(folders: tuple[Path, Path]) -> None:
    with pytest.raises(TokenError) as caught:
        locate_module(Uri(token="work"))
    assert caught.value.reason == (
        "pkcs11:token=work: no module p11-kit-proxy or opensc-pkcs11 or ykcs11 is installed"
    )
    with pytest.raises(TokenError, match="no module mine is installed"):
        locate_module(Uri(module_name="mine"))
