"""Reads a file that security depends on, only if no other user can have written it; makes such, and folders.

The rule is that of sshd for authorized_keys (misc.c safe_path): the file and the folders it is in, up to
the home, belong to us or to root, and nobody else may write to them. In a folder with the sticky
bit, such as /tmp, users cannot replace files of others. As in Debian's sshd, the user's private group may
write: with Debian's umask 0002 it may write to all that the user makes.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

from replug.protocol.secrets import wipe

_EVERYBODY_ELSE_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


class UntrustedFileError(Exception):
    """The file's kind, owner, mode or size is not allowed; the text gives the reason without the path."""

    def __init__(self, reason: str, fix: str = "") -> None:
        """`fix` is the command that cures everything at once, if there is one; the text ends with it."""
        super().__init__(f"{reason}; {fix}" if fix else reason)
        self.fix = fix


def read_trusted(
    path: Path, *, largest: int, forbidden_mode: int = _EVERYBODY_ELSE_MAY_WRITE, symlink: bool = True
) -> bytearray:
    """The contents of the regular file `path`, at most `largest` bytes, in a buffer the caller may wipe.

    `forbidden_mode` has the permission bits that the file must not have; without `symlink`, the path must not
    end in a symbolic link. The checks apply to the file that was opened, and to the folders of a link and of
    its target. Raises UntrustedFileError, OSError.
    """
    # Without O_NONBLOCK, opening a FIFO waits for its writer.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        opened = os.open(path, flags if symlink else flags | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno == errno.ELOOP and not symlink:
            raise UntrustedFileError("is a symbolic link; name the file itself") from error
        raise
    try:
        _check(path, opened, forbidden_mode)
        return _read(opened, path, largest)
    finally:
        os.close(opened)


def check_folder(folder: Path) -> None:
    """Raise UntrustedFileError if others can put their files in the place of ours in `folder`; OSError."""
    folders = list(_open_folders(folder.resolve(strict=True)))
    if folders:
        names = ", ".join(map(str, folders))
        raise UntrustedFileError(
            f"other users can change what is in {names}", _cure([], folders, reading=False)
        )


def make_folder(folder: Path) -> None:
    """Make `folder` and every missing one above it for the user alone, whatever the umask. Raises OSError.

    Path.mkdir gives its mode to the last one only.
    """
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    for one in reversed(missing):
        one.mkdir(mode=0o700, exist_ok=True)
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))


def write_whole(path: Path, contents: bytes, mode: int) -> None:
    """Make `path` a new file with `contents`, in an existing folder, or leave it as it is. Raises OSError.

    It has `mode`, whatever the umask, and nobody reads half of it. What is already where it is written first,
    a link or a FIFO, is removed.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.new")
    unfinished.unlink(missing_ok=True)
    try:
        with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(contents)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _check(path: Path, opened: int, forbidden_mode: int) -> None:
    """Check the file and its folders; everything that others may change is named at once."""
    status = os.fstat(opened)
    if not stat.S_ISREG(status.st_mode):
        raise UntrustedFileError("is not a regular file")
    if status.st_uid not in (os.geteuid(), 0):
        raise UntrustedFileError(f"belongs to user {status.st_uid}, not to you or root")
    reading = forbidden_mode & (stat.S_IRGRP | stat.S_IROTH)
    file = bool(status.st_mode & forbidden_mode) and (bool(reading) or _others_may_write(opened, status))
    folders: dict[Path, None] = {}
    for folder in dict.fromkeys((path.parent, path.resolve(strict=True).parent)):
        folders |= dict.fromkeys(_open_folders(folder.resolve(strict=True)))
    if not file and not folders:
        return
    names = f"its folder{'s'[: len(folders) - 1]} {', '.join(map(str, folders))}"
    reason = f"{names} can be changed by other users"
    if file:
        what = "read or changed" if reading else "changed"
        reason = f"can be {what} by other users (mode {stat.S_IMODE(status.st_mode):04o})"
        reason += f", and so can {names}" if folders else ""
    raise UntrustedFileError(reason, _cure([path] if file else [], list(folders), reading=bool(reading)))


def _cure(files: list[Path], folders: list[Path], *, reading: bool) -> str:
    """One line of shell that closes all of them, with sudo for what belongs to root."""
    wrong = [(path, "go-rwx" if reading else "go-w") for path in files] + [(path, "go-w") for path in folders]
    together: dict[str, list[str]] = {}
    for path, mode in wrong:
        sudo = "" if path.stat().st_uid == os.geteuid() else "sudo "
        together.setdefault(f"{sudo}chmod {mode}", []).append(shlex.quote(str(path)))
    return " && ".join(f"{command} {' '.join(paths)}" for command, paths in together.items())


def _open_folders(innermost: Path) -> Iterator[Path]:
    """The folders up to the home that others may change. UntrustedFileError for one of another user."""
    home = Path(os.path.realpath(os.path.expanduser("~")))
    for folder in (innermost, *innermost.parents):
        status = folder.stat()
        sticky = status.st_mode & stat.S_ISVTX
        if status.st_uid not in (os.geteuid(), 0):
            raise UntrustedFileError(
                f"its folder {folder} belongs to user {status.st_uid}, not to you or root"
            )
        if not sticky and _others_may_write(folder, status):
            yield folder
        if folder == home:
            return


def _others_may_write(target: int | Path, status: os.stat_result) -> bool:
    if not status.st_mode & _EVERYBODY_ELSE_MAY_WRITE:
        return False
    # With an ACL the group's bits are those of the users and groups in it, too.
    return bool(status.st_mode & stat.S_IWOTH) or _has_acl(target) or not _is_private(status.st_gid)


def _has_acl(target: int | Path) -> bool:
    try:
        os.getxattr(target, "system.posix_acl_access")
    except OSError as error:
        return error.errno not in (errno.ENODATA, errno.EOPNOTSUPP)
    return True


def _is_private(gid: int) -> bool:
    """Whether only the user is in the group, which is the user's own and has the user's name."""
    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
    except KeyError:
        return False
    members = {*group.gr_mem, *(other.pw_name for other in pwd.getpwall() if other.pw_gid == gid)}
    return user.pw_gid == gid and group.gr_name == user.pw_name and members <= {user.pw_name}


def _read(opened: int, path: Path, largest: int) -> bytearray:
    buffer, used = bytearray(largest + 1), 0
    while used < len(buffer):
        count = os.readv(opened, [memoryview(buffer)[used:]])
        if count == 0:
            break
        used += count
    if used > largest:
        wipe(buffer)
        raise UntrustedFileError(f"is longer than {largest} bytes")
    del buffer[used:]
    return buffer
