"""The process of which workers are forked: it has everything loaded that they need but the module.

So a fresh worker is there in milliseconds, and has most of its memory in common with all others. Started as
`python -m replug.token.worker.forkserver AGENT FD`; each message on FD brings one end of a socket pair, which
a new worker serves. This process itself loads no module and gets no PIN.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
import socket
import sys
from importlib import import_module
from types import ModuleType
from typing import NoReturn

from replug.token.hardening import end_with_parent, refuse_core_dumps, refuse_tracing

HELLO_LENGTH = 4
"""A worker's first message on its connection: its process id, and with it a pidfd.

One byte instead is the errno of a fork that failed.
"""


def load_worker() -> ModuleType:
    """Import the worker, and python-pkcs11 with it, but without `pkcs11.util`.

    That package converts keys by way of asn1crypto, which is a third of all that is imported here; we read
    what tokens hold by ourselves (`keys.py`). An `import pkcs11.util` later loads the real thing.
    """
    stand_in = ModuleType("pkcs11.util")
    stand_in.__getattr__ = lambda name: None  # type: ignore[method-assign]  # pkcs11 re-exports its modules
    sys.modules.setdefault("pkcs11.util", stand_in)
    worker = import_module("replug.token.worker.program")
    import_module("pkcs11._pkcs11")  # else loaded with the first module, in every worker again
    if sys.modules["pkcs11.util"] is stand_in:
        del sys.modules["pkcs11.util"]
    return worker


def main() -> NoReturn:
    """Fork workers until the agent closes its end; argv names the agent's process and the descriptor."""
    refuse_tracing()
    refuse_core_dumps()
    end_with_parent(int(sys.argv[1]))
    # Ctrl-C in the agent's terminal is the agent's affair.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The kernel reaps them: the agent waits for them by their pidfds.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    requests = socket.socket(fileno=int(sys.argv[2]))
    work = load_worker().work
    # The collector would write to every object, and a page that is written to is no longer a common one.
    gc.freeze()
    server = os.getpid()
    while connection := _next_request(requests):
        with connection, contextlib.suppress(OSError):
            if _forked(connection):
                requests.close()
                _greet(connection, server)
                work(connection)
    os._exit(0)


def _next_request(requests: socket.socket) -> socket.socket | None:
    """The next worker's connection; None when the agent is gone."""
    with contextlib.suppress(ConnectionError):
        message, descriptors, _, _ = socket.recv_fds(requests, 1, 1)
        if message:
            return socket.socket(fileno=descriptors[0])
    return None


def _forked(connection: socket.socket) -> bool:
    """Fork; whether this is the new process. If there can be none, the agent gets the errno instead."""
    try:
        return os.fork() == 0
    except OSError as error:
        connection.send(bytes([error.errno or errno.EAGAIN]))
        return False


def _greet(connection: socket.socket, server: int) -> None:
    """Begin the life of a worker."""
    try:
        end_with_parent(server)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        process = os.getpid()
        notice = os.pidfd_open(process)
        socket.send_fds(connection, [process.to_bytes(HELLO_LENGTH, "big")], [notice])
        os.close(notice)
    except OSError:
        os._exit(1)


if __name__ == "__main__":
    main()
