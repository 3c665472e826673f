"""The agent's listening socket: its path, its creation and its removal."""

from __future__ import annotations

import errno
import hashlib
import os
import pwd
import socket
import stat
import time
from contextlib import suppress
from dataclasses import dataclass

_BACKLOG = 128
_SOCKET_MODE = 0o600
_ACTIVATED_FD = 3
_ADDRESS_SIZE = 108
"""Bytes in sockaddr_un's sun_path, the last of them a NUL."""
_STALE_AFTER = 60 * 60
"""Seconds: a younger socket may belong to an agent that does not listen yet."""
_ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


class ListenerError(Exception):
    """There is no socket to listen on; the text gives the reason."""


@dataclass(frozen=True)
class Listener:
    """A listening Unix stream socket, and the file and folder to remove when the agent ends."""

    socket: socket.socket
    path: str | None = None
    """The value for SSH_AUTH_SOCK; None for a socket that belongs to the service manager."""
    file: str | None = None
    """The absolute path of the socket, as the agent changes its working directory."""
    inode: tuple[int, int] | None = None
    """Device and inode number of `file` when it was made."""
    folder: str | None = None
    """A folder made for this socket alone."""

    @property
    def is_there(self) -> bool:
        """Whether the file is still the socket that was made, and neither removed nor replaced."""
        with suppress(OSError):
            return self.file is not None and _inode(self.file) == self.inode
        return False

    def remove(self) -> None:
        """Remove the socket, unless another program has replaced it with its own."""
        with suppress(OSError):
            if self.file is not None and self.is_there:
                os.unlink(self.file)
        with suppress(OSError):
            if self.folder is not None:
                os.rmdir(self.folder)


def listen_at(path: str) -> Listener:
    """Listen at exactly `path` (-a), with mode 0600. Raises ListenerError, also if `path` exists."""
    try:
        return _bind(path)
    except OSError as error:
        raise ListenerError(f"cannot listen on {path!r}: {error.strerror or error}") from error


def listen_in(folder: str) -> Listener:
    """Listen in `folder`, which is created if missing (misc-agent.c agent_listener). Raises ListenerError."""
    try:
        _make_folder(folder)
        while True:
            try:
                return _bind(_path_in(folder))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
    except OSError as error:
        raise ListenerError(f"cannot listen in {folder!r}: {error.strerror or error}") from error


def listen_outside_home() -> Listener:
    """Listen where there is no home with room for a socket: under $XDG_RUNTIME_DIR, else as -T does.

    Raises ListenerError.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        with suppress(ListenerError):
            return listen_in_temporary_folder(runtime)
    return listen_in_temporary_folder(temporary_folder())


def temporary_folder() -> str:
    """$TMPDIR, else /tmp."""
    return os.environ.get("TMPDIR") or "/tmp"  # noqa: S108


def listen_in_temporary_folder(parent: str) -> Listener:
    """Listen in a new private folder in `parent` (-T). Raises ListenerError."""
    folder = f"{parent}/ssh-{_random_name(12)}"
    try:
        os.mkdir(folder, 0o700)
        try:
            return _bind(f"{folder}/agent.{os.getpid()}", folder=os.path.abspath(folder))
        except OSError:
            os.rmdir(folder)
            raise
    except OSError as error:
        raise ListenerError(f"cannot listen in {folder!r}: {error.strerror or error}") from error


def take_activated() -> Listener | None:
    """The socket a service manager passed to this process (sd_listen_fds(3)); None if it passed none.

    The variables that announce it are removed, so that no child process uses it.
    Raises ListenerError if they announce anything but one listening Unix stream socket for this process.
    """
    for_pid = os.environ.pop("LISTEN_PID", None)
    count = os.environ.pop("LISTEN_FDS", None)
    os.environ.pop("LISTEN_FDNAMES", None)
    if for_pid is None or count is None:
        return None
    if count != "1":
        raise ListenerError(f"LISTEN_FDS is {count!r}; the agent takes exactly one socket")
    if for_pid != str(os.getpid()):
        raise ListenerError(f"LISTEN_PID is {for_pid!r}, but this is process {os.getpid()}")
    try:
        activated = socket.socket(fileno=_ACTIVATED_FD)
        listening = activated.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise ListenerError(f"LISTEN_FDS is set, but fd {_ACTIVATED_FD}: {error.strerror}") from error
    if (activated.family, activated.type, listening) != (socket.AF_UNIX, socket.SOCK_STREAM, 1):
        raise ListenerError(f"fd {_ACTIVATED_FD} of LISTEN_FDS is not a listening Unix stream socket")
    if isinstance(activated.getsockname(), bytes):
        raise ListenerError("the socket of LISTEN_FDS is abstract: any user could connect to it")
    activated.set_inheritable(False)
    return Listener(activated)


def remove_stale(folder: str, *, any_host: bool) -> None:
    """Remove the sockets in `folder` that no agent listens on.

    Those are over an hour old and refuse a connection. Unless `any_host`, only sockets made on this host are
    removed, because hosts may share the home directory
    (misc-agent.c agent_cleanup_stale). Raises ListenerError.
    """
    prefix = "" if any_host else _host_prefix()
    try:
        with suppress(FileNotFoundError), os.scandir(folder) as entries:
            for entry in entries:
                # Another agent may be cleaning up at the same time.
                with suppress(FileNotFoundError):
                    if entry.name.startswith(prefix) and _is_stale(entry):
                        os.unlink(entry.path)
    except OSError as error:
        raise ListenerError(f"cannot clean up {folder!r}: {error.strerror or error}") from error


def socket_folder(home: str) -> str:
    """Where the sockets are in a home, unless the command line says otherwise."""
    return f"{home}/.ssh/agent"


def home_folder() -> str:
    """The user's home directory: $HOME, else the password file's. Raises ListenerError if there is none."""
    try:
        home = os.environ.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        home = ""
    if not home:
        raise ListenerError("cannot determine the home directory; set HOME")
    return home


def home_with_room() -> str | None:
    """The home directory, if there is one and the path of a socket in it fits into an address."""
    try:
        home = home_folder()
    except ListenerError:
        return None
    fits = len(os.fsencode(_path_in(socket_folder(home)))) < _ADDRESS_SIZE
    return home if fits and os.path.lexists(home) else None


def _path_in(folder: str) -> str:
    return f"{folder}/{_host_prefix()}agent.{_random_name(10)}"


def _make_folder(folder: str) -> None:
    """Make it, and what is missing above it, for us alone."""
    if not os.path.isdir(folder):
        _make_folder(os.path.dirname(folder) or ".")
        with suppress(FileExistsError):
            os.mkdir(folder, 0o700)


def _bind(path: str, folder: str | None = None) -> Listener:
    if not path:  # Linux would choose an abstract address
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    file = os.path.abspath(path)
    fits = len(os.fsencode(file)) < _ADDRESS_SIZE
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # The file has this mode from its beginning; umask(2) would be for all threads.
        os.fchmod(listening.fileno(), _SOCKET_MODE)
        # The absolute path, if possible: the socket's address then means the same in any folder.
        listening.bind(file if fits else path)
        listening.listen(_BACKLOG)
    except OSError:
        listening.close()
        raise
    return Listener(listening, path, file, _inode(file), folder)


def _inode(path: str) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino


def is_dead(path: str) -> bool:
    """Whether `path` is a socket that no process listens on. Raises FileNotFoundError."""
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.setblocking(False)
        try:
            client.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False  # such as a full backlog: a process listens
        return False


def _is_stale(entry: os.DirEntry[str]) -> bool:
    return entry.stat(follow_symlinks=False).st_mtime <= time.time() - _STALE_AFTER and is_dead(entry.path)


def _host_prefix() -> str:
    """How the name of a socket made on this host begins (misc-agent.c hostname_hash)."""
    digest = hashlib.sha512(os.fsencode(socket.gethostname())).digest()
    return f"s.{_presented(digest[:10])}."


def _random_name(length: int) -> str:
    return _presented(os.urandom(length))


def _presented(data: bytes) -> str:
    return "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in data)
