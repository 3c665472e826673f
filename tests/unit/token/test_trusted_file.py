"""Files that other users cannot have written: when a group's right to write is only the user's own."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from replug.token.trusted_file import UntrustedFileError, read_trusted

USER, ANOTHER = "ada", "eve"
Accounts = Callable[..., None]


@pytest.fixture
def accounts(monkeypatch: pytest.MonkeyPatch) -> Accounts:
    """Make the system's users and groups: the user is ada, in a group of the same id as the test's files."""

    def make(
        group: str = USER, members: tuple[str, ...] = (), others: tuple[str, ...] = (), own: int | None = None
    ) -> None:
        gid = os.getegid()
        user = pwd.struct_passwd((USER, "x", os.geteuid(), gid if own is None else own, "", "/", ""))
        rest = [pwd.struct_passwd((name, "x", 54321, gid, "", "/", "")) for name in others]
        monkeypatch.setattr(pwd, "getpwuid", lambda _uid: user)
        monkeypatch.setattr(pwd, "getpwall", lambda: [user, *rest])
        monkeypatch.setattr(grp, "getgrgid", lambda _gid: grp.struct_group((group, "x", gid, list(members))))

    return make


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file as an editor makes it with umask 0002, in a folder made likewise."""
    folder = tmp_path / "replug"
    folder.mkdir()
    os.chown(folder, -1, os.getegid())
    folder.chmod(0o775)
    file = folder / "config.toml"
    file.write_bytes(b"text")
    file.chmod(0o664)
    return file


def read(file: Path) -> bytearray:
    return read_trusted(file, largest=10)


@pytest.mark.parametrize("members", [(), (USER,)])
def test_a_private_group_may_write(file: Path, accounts: Accounts, members: tuple[str, ...]) -> None:
    accounts(members=members)
    assert read(file) == b"text"


@pytest.mark.parametrize(
    "group",
    [
        {"group": "staff"},
        {"members": (ANOTHER,)},
        {"members": (USER, ANOTHER)},
        {"others": (ANOTHER,)},
        {"own": 54321},
    ],
)
def test_any_other_group_may_not(file: Path, accounts: Accounts, group: dict[str, object]) -> None:
    accounts(**group)
    with pytest.raises(
        UntrustedFileError, match=r"^can be changed by other users \(mode 0664\); chmod go-w "
    ):
        read(file)
    file.chmod(0o644)
    with pytest.raises(UntrustedFileError, match=r"^its folder .*/replug can be changed by other users"):
        read(file)
    file.parent.chmod(0o755)
    assert read(file) == b"text"


def test_a_user_or_group_without_a_name(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_id: int) -> None:
        raise KeyError

    monkeypatch.setattr(grp, "getgrgid", unknown)
    with pytest.raises(UntrustedFileError, match="mode 0664"):
        read(file)


def test_everybody_may_not_even_so(file: Path, accounts: Accounts) -> None:
    accounts()
    file.chmod(0o666)
    with pytest.raises(UntrustedFileError, match="mode 0666"):
        read(file)


def test_a_list_of_other_users_may_not(
    file: Path, accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mode of a file with an ACL shows the ACL's mask as the group's bits."""
    accounts()
    monkeypatch.setattr(os, "getxattr", lambda _target, name: {"system.posix_acl_access": b"acl"}[name])
    with pytest.raises(UntrustedFileError, match="mode 0664"):
        read(file)


@pytest.mark.parametrize(
    ("number", "trusted"), [(errno.ENODATA, True), (errno.EOPNOTSUPP, True), (errno.EIO, False)]
)
def test_where_lists_are_not_kept_or_not_readable(
    file: Path, accounts: Accounts, monkeypatch: pytest.MonkeyPatch, number: int, trusted: bool
) -> None:
    def failing(_target: object, _name: str) -> bytes:
        raise OSError(number, os.strerror(number))

    accounts()
    monkeypatch.setattr(os, "getxattr", failing)
    if trusted:
        assert read(file) == b"text"
    else:
        with pytest.raises(UntrustedFileError, match="mode 0664"):
            read(file)


def test_a_secret_is_its_owners_alone(file: Path, accounts: Accounts) -> None:
    accounts()
    file.chmod(0o660)
    cure = re.escape(f"(mode 0660); chmod go-rwx {file}")
    with pytest.raises(UntrustedFileError, match=rf"^can be read or changed by other users {cure}$"):
        read_trusted(file, largest=10, forbidden_mode=0o077)
