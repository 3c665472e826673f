"""The file with the certificate that the agent lists, for ssh with IdentitiesOnly.

ssh reads it before it asks the agent: `NAME-cert.pub` beside `IdentityFile NAME`, and the key in `NAME.pub`.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import logging
from pathlib import Path

from replug.agent.keys.identity import Identity
from replug.agent.keys.issued import IssuedIdentity
from replug.agent.keys.regular_file import read_regular_file
from replug.protocol.keys import blob_algorithm
from replug.token.offload import Share, TooManyThreadsError, in_daemon_thread
from replug.token.trusted_file import write_whole

log = logging.getLogger(__name__)

_PATIENCE = 2.0  # seconds: a network folder may never answer, and ssh waits
_LARGEST = 64 * 1024  # bytes of a public key's file
_CERTIFICATE_END, _KEY_END = "-cert.pub", ".pub"


async def write_certificate(path: str, issued: IssuedIdentity) -> None:
    """Write a certificate to `path`, which ends in -cert.pub, and its key beside it; a failure is logged."""
    key = path.removesuffix(_CERTIFICATE_END) + _KEY_END

    def write() -> None:
        _check_no_other_key(Path(key.removesuffix(_KEY_END)), Path(key), issued.certified.blob)
        _write(Path(key), issued.certified)
        _write(Path(path), issued)

    try:
        async with asyncio.timeout(_PATIENCE):
            await in_daemon_thread(Share.CERTIFICATE_FILES, write)
        return
    except OSError as error:
        why = error.strerror or str(error)
    except ValueError as error:
        why = str(error)
    except (TimeoutError, TooManyThreadsError):
        why = "the file system does not answer"
    log.warning("the certificate was not written", extra={"path": path, "why": why})


def _write(path: Path, held: Identity) -> None:
    text = f"{blob_algorithm(held.blob)} {base64.b64encode(held.blob).decode()} {held.comment.decode()}\n"
    write_whole(path, text.encode(), 0o644)


def _check_no_other_key(private: Path, public: Path, blob: bytes) -> None:
    """Raise FileExistsError if this is the public key of a private one that is there, too."""
    if not private.exists():
        return
    words = read_regular_file(str(public), _LARGEST).split() if public.exists() else []
    if base64.b64encode(blob) not in words:
        raise FileExistsError(errno.EEXIST, f"{private} is a key of its own: name another file")
