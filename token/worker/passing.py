"""Sends descriptors to other processes of ours (SCM_RIGHTS, unix(7)), also while others send very many."""

from __future__ import annotations

import resource
import socket
from contextlib import suppress


def send_with_descriptor(connection: socket.socket, data: bytes | memoryview, descriptor: int) -> int:
    """Send `data`, and with it `descriptor`; how many bytes were sent. OSError.

    The kernel lets a process send none while more than its soft limit of open files are on their way from
    processes of its user. So that limit is as high as it may be for this moment.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        return socket.send_fds(connection, [data], [descriptor])
    finally:
        with suppress(ValueError):  # somebody has lowered it meanwhile
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
