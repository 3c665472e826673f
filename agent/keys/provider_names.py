"""Resolves the argument of `ssh-add -s`, a path or a PKCS#11 URI, to a module and a choice of its keys."""

from __future__ import annotations

import asyncio
import os

from replug.agent.keys.refusal import RequestRefusedError
from replug.token.locate import locate_module
from replug.token.offload import Share, TooManyThreadsError, in_daemon_thread
from replug.token.uri import Uri, UriError, is_uri, parse_uri

ANY_MODULE = "pkcs11:"
"""The URI of all tokens of the first usual module that is installed (`replug.token.locate`)."""
_LONGEST_NAME = 4096  # bytes, Linux's PATH_MAX
_FILE_SYSTEM_PATIENCE = 10.0  # seconds


async def resolve(name: str, *, to_remove: bool = False) -> tuple[str, Uri]:
    """The canonical path of the module that `name` means, and what is chosen of it; RequestRefusedError.

    What is to be removed need not exist.
    """
    share = Share.REMOVED_PATHS if to_remove else Share.ADDED_PATHS
    uri = uri_of(name)
    try:
        # In a thread: a dead network file system may never answer.
        async with asyncio.timeout(_FILE_SYSTEM_PATIENCE):
            path = await in_daemon_thread(share, lambda: _canonical_path(name, uri, not to_remove))
    except (TimeoutError, TooManyThreadsError):
        raise RequestRefusedError(f"{name}: the file system does not answer") from None
    except FileNotFoundError:
        raise RequestRefusedError(f"{name} does not exist", "give the path of a module, or a URI") from None
    except OSError as error:
        raise RequestRefusedError(f"{name}: {error.strerror}") from error
    return path, uri or Uri()


def uri_of(name: str) -> Uri | None:
    """The URI that `name` is; None for a path. RequestRefusedError."""
    if len(os.fsencode(name)) > _LONGEST_NAME:
        raise RequestRefusedError(f"the provider's name is longer than {_LONGEST_NAME} bytes")
    try:
        return parse_uri(name) if is_uri(name) else None
    except UriError as error:
        raise RequestRefusedError(f"not a PKCS#11 URI: {error}") from error


def _canonical_path(name: str, uri: Uri | None, must_exist: bool) -> str:
    return os.path.realpath(name if uri is None else locate_module(uri), strict=must_exist)
