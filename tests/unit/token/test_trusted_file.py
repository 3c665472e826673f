"""Files that other users cannot have written: when a group's right to write is only the user's own."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from replug.token.trusted_file import UntrustedFileError, make_folder, read_trusted, write_whole

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


def refusal(file: Path) -> str:
    with pytest.raises(UntrustedFileError) as refused:
        read(file)
    return str(refused.value)


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
    assert refusal(file) == (
        f"can be changed by other users (mode 0664), and so can its folder {file.parent};"
        f" chmod go-w {file} {file.parent}"
    )
    file.chmod(0o644)
    cure = f"chmod go-w {file.parent}"
    assert refusal(file) == f"its folder {file.parent} can be changed by other users; {cure}"
    subprocess.run(cure, shell=True, check=True)
    assert read(file) == b"text"


def test_all_that_is_wrong_is_named_and_cured_at_once(file: Path, accounts: Accounts) -> None:
    """Where a link leads, too; in a line for the shell, whatever the names."""
    accounts(group="staff")
    odd = file.parent / "it's here"
    odd.mkdir()
    target = file.rename(odd / file.name)
    os.chown(odd, -1, os.getegid())
    odd.chmod(0o775)
    file.symlink_to(target)
    found = refusal(file)
    assert found.startswith("can be changed by other users (mode 0664), and so can its folders ")
    assert f"its folders {file.parent}, {odd};" in found
    subprocess.run(found.partition("; ")[2], shell=True, check=True)
    assert read(file) == b"text"


def test_a_secret_and_its_folder(file: Path, accounts: Accounts) -> None:
    accounts(group="staff")
    with pytest.raises(UntrustedFileError) as refused:
        read_trusted(file, largest=10, forbidden_mode=0o077)
    assert refused.value.fix == f"chmod go-rwx {file} && chmod go-w {file.parent}"
    subprocess.run(refused.value.fix, shell=True, check=True)
    assert read_trusted(file, largest=10, forbidden_mode=0o077) == b"text"


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


def test_folders_are_the_users_alone_on_every_level(tmp_path: Path) -> None:
    umask = os.umask(0o002)
    try:
        make_folder(tmp_path / "a" / "b" / "c")
        make_folder(tmp_path / "a" / "b" / "c")
    finally:
        os.umask(umask)
    made = [tmp_path / name for name in ("a", "a/b", "a/b/c")]
    assert [folder.stat().st_mode & 0o777 for folder in made] == [0o700] * 3
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        make_folder(tmp_path / "file")


def test_what_stands_where_a_file_is_written_first_is_not_written_to(tmp_path: Path) -> None:
    other = tmp_path / "other"
    unfinished = tmp_path / f".file.{os.getpid()}.new"

    def leave_link() -> None:
        other.write_text("of another program")
        unfinished.symlink_to(other)

    def leave_open_to_all() -> None:
        unfinished.touch()
        unfinished.chmod(0o666)

    for leave in (leave_link, lambda: os.mkfifo(unfinished), leave_open_to_all):
        leave()
        write_whole(tmp_path / "file", b"ours", 0o644)
        assert (tmp_path / "file").read_bytes() == b"ours"
        assert not (tmp_path / "file").is_symlink()
        assert (tmp_path / "file").stat().st_mode & 0o7777 == 0o644
        assert not os.path.lexists(unfinished)
    assert other.read_text() == "of another program"
