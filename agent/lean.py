"""Keeping what an agent never uses out of its memory."""

from __future__ import annotations

import sys


def import_asyncio_without_ssl() -> None:
    """Import asyncio as on a Python that was built without ssl, which it is made for.

    An agent speaks over Unix sockets; ssl is 4 ms of the start and more than a megabyte. An `import ssl`
    later in the same process loads the real thing. Where ssl is there already, nothing changes.
    """
    if "ssl" in sys.modules:
        return
    sys.modules["ssl"] = None  # type: ignore[assignment]  # what Python takes for "cannot be imported"
    try:
        import asyncio  # noqa: F401
    finally:
        del sys.modules["ssl"]
