"""The file with the certificate that the agent lists, for ssh with IdentitiesOnly.

ssh reads it before it asks the agent: `NAME-cert.pub` beside `IdentityFile NAME`, and the key in `NAME.pub`.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
from pathlib import Path

from replug.agent.keys.identity import Identity
from replug.agent.keys.issued import IssuedIdentity
from replug.protocol.keys import blob_algorithm
from replug.token.offload import Share, TooManyThreadsError, in_daemon_thread

log = logging.getLogger(__name__)

_PATIENCE = 2.0  # seconds: a network folder may never answer, and ssh waits
_CERTIFICATE_END, _KEY_END = "-cert.pub", ".pub"


async def write_certificate(path: str, issued: IssuedIdentity) -> None:
    """Write a certificate to `path`, which ends in -cert.pub, and its key beside it; a failure is logged."""
    key = path.removesuffix(_CERTIFICATE_END) + _KEY_END

    def write() -> None:
        _write(Path(key), issued.certified)
        _write(Path(path), issued)

    try:
        async with asyncio.timeout(_PATIENCE):
            await in_daemon_thread(Share.CERTIFICATE_FILES, write)
        return
    except OSError as error:
        why = error.strerror or str(error)
    except (TimeoutError, TooManyThreadsError):
        why = "the file system does not answer"
    log.warning("the certificate was not written", extra={"path": path, "why": why})


def _write(path: Path, held: Identity) -> None:
    """Replace the file at once, so that nobody reads half of it."""
    text = f"{blob_algorithm(held.blob)} {base64.b64encode(held.blob).decode()} {held.comment.decode()}\n"
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), "wb") as file:
            file.write(text.encode())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
