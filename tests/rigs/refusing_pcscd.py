"""A pcscd that turns every client away, as one does that polkit forbids to serve them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def refusing_pcscd(path: Path) -> Iterator[None]:
    """Listens at `path`, and closes each connection (winscard_svc.c, ContextThread).

    Not the real one: Debian 12's is built without polkit, newer ones are told to do without by the rig.
    """
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        path.chmod(0o666)
        listening.listen()

        def refuse() -> None:
            while True:
                try:
                    listening.accept()[0].close()
                except OSError:
                    return

        thread = threading.Thread(target=refuse)
        thread.start()
        try:
            yield
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()
