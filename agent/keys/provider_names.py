"""Resolves the argument of `ssh-add -s`, a path or a PKCS#11 URI, to modules and a choice of their keys."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import TypeVar

from replug.agent.keys.refusal import RequestRefusedError
from replug.protocol.patterns import matches_list
from replug.protocol.visible_text import visible_path
from replug.token.names.locate import locate_modules
from replug.token.names.p11kit import ModuleSource, Registry, read_registry
from replug.token.names.p11kit_files import P11KitFiles
from replug.token.names.uri import Uri, UriError, is_uri, parse_uri
from replug.token.offload import Share, TooManyThreadsError, in_daemon_thread

T = TypeVar("T")

_LONGEST_NAME = 4096  # bytes, Linux's PATH_MAX
_MOST_PARTS = 64  # of a path; each costs a thread time that the event loop then waits for
_FILE_SYSTEM_PATIENCE = 10.0  # seconds


async def resolve(name: str, allowed: str = "") -> tuple[list[ModuleSource], Uri]:
    """The modules that `name` may mean, and what is chosen of them. RequestRefusedError, TokenError.

    A path means one module; a URI that names none means all that are registered. `allowed`: see `is_usual`.
    """
    uri = uri_of(name)
    share = Share.USUAL_MODULES if is_usual(name, allowed) else Share.OTHER_MODULES
    return await _in_thread(name, share, lambda: _sources(name, uri)), uri or Uri()


def is_usual(name: str, allowed: str) -> bool:
    """Whether `name` means registered modules, or leads by itself to one that the patterns `allowed` match.

    No file system is asked, as there are none there that users have made and that may never answer.
    """
    uri = uri_of(name)
    path = name if uri is None else uri.module_path
    return path is None or (path == os.path.normpath(path) and matches_list(path, allowed))


async def resolve_to_remove(name: str) -> tuple[list[str], Uri]:
    """The canonical paths of the modules that `name` may mean, which need not exist. RequestRefusedError."""
    uri = uri_of(name)
    path = name if uri is None else uri.module_path
    if path is None:
        sources, _ = await resolve(name)
        return [source.path for source in sources], uri or Uri()
    real = await _in_thread(name, Share.REMOVED_PATHS, lambda: os.path.realpath(path))
    return [real], uri or Uri()


async def resolve_library(path: str) -> str:
    """The canonical path of a library for FIDO keys. RequestRefusedError."""
    if len(os.fsencode(path)) > _LONGEST_NAME or path.count("/") > _MOST_PARTS:
        raise RequestRefusedError("the path of the library for FIDO keys is too long")
    return await _in_thread(path, Share.SECURITY_KEYS, lambda: os.path.realpath(path, strict=True))


def not_allowed(shown: str, patterns: str) -> RequestRefusedError:
    """The refusal of a library, called `shown`, that the list of patterns does not match."""
    return RequestRefusedError(
        f"{shown} is not in the list of allowed modules ({patterns})", "start the agent with -P to allow it"
    )


async def registered() -> Registry:
    """What p11-kit has registered now. RequestRefusedError."""
    return await _in_thread("p11-kit's configuration", Share.USUAL_MODULES, _registry)


async def _in_thread(name: str, share: Share, call: Callable[[], T]) -> T:
    try:
        # In a thread: a dead network file system may never answer.
        async with asyncio.timeout(_FILE_SYSTEM_PATIENCE):
            return await in_daemon_thread(share, call)
    except (TimeoutError, TooManyThreadsError):
        raise RequestRefusedError(f"{visible_path(name)}: the file system does not answer") from None
    except FileNotFoundError:
        raise RequestRefusedError(
            f"{visible_path(name)} does not exist", "give the path of a module, or a URI"
        ) from None
    except OSError as error:
        raise RequestRefusedError(f"{visible_path(name)}: {error.strerror}") from error


def uri_of(name: str) -> Uri | None:
    """The URI that `name` is; None for a path. RequestRefusedError."""
    if len(os.fsencode(name)) > _LONGEST_NAME:
        raise RequestRefusedError(f"the provider's name is longer than {_LONGEST_NAME} bytes")
    if name.count("/") > _MOST_PARTS:
        raise RequestRefusedError(f"the provider's name has more than {_MOST_PARTS} parts")
    try:
        return parse_uri(name) if is_uri(name) else None
    except UriError as error:
        raise RequestRefusedError(f"not a PKCS#11 URI: {error}") from error


def _sources(name: str, uri: Uri | None) -> list[ModuleSource]:
    return locate_modules(Uri(module_path=os.path.abspath(name)) if uri is None else uri, _registry())


def _registry() -> Registry:
    return read_registry(P11KitFiles.of(os.environ, os.getuid()))
