"""Finds the modules that a PKCS#11 URI means; by default those that p11-kit has registered."""

from __future__ import annotations

import glob
import os

from replug.protocol.visible_text import visible_path
from replug.token.errors import TokenError
from replug.token.names.p11kit import ModuleSource, Registry
from replug.token.names.uri import Uri

_FOLDERS = (
    "/usr/lib/*-linux-gnu*",
    "/usr/lib/*-linux-gnu*/pkcs11",
    "/usr/lib/*-linux-gnu*/softhsm",
    "/usr/lib64",
    "/usr/lib64/pkcs11",
    "/usr/lib",
    "/usr/lib/pkcs11",
    "/usr/lib/softhsm",
    "/usr/local/lib",
    "/usr/local/lib/pkcs11",
)
_USUAL_NAMES = ("opensc-pkcs11", "ykcs11")


def locate_modules(uri: Uri, registry: Registry) -> list[ModuleSource]:
    """The modules of a URI: by module-path or module-name (RFC 7512 section 2.3), else all registered ones.

    The name may be that of a registered module. Where none is registered, it is the first usual one that is
    installed. TokenError if there is none; FileNotFoundError, OSError if a path cannot be followed.
    """
    if uri.module_path is not None:
        return [registry.source_of(os.path.realpath(uri.module_path, strict=True))]
    if uri.module_name is not None:
        named = [one.source for one in registry.modules if one.name == uri.module_name]
        return named or [registry.source_of(_find(uri, (uri.module_name,)))]
    if registry.empty:
        return [ModuleSource(_find(uri, _USUAL_NAMES))]
    if not registry.modules:
        raise TokenError(
            f"{visible_path(str(uri))}: no module that p11-kit has registered can be used",
            "see replug doctor",
        )
    return [one.source for one in registry.modules]


def _find(uri: Uri, names: tuple[str, ...]) -> str:
    """The canonical path of the first module with one of these names; TokenError."""
    for name in names:
        for folder in _FOLDERS:
            for file_name in (f"{name}.so", f"lib{name}.so"):
                for path in sorted(glob.glob(os.path.join(folder, glob.escape(file_name)))):
                    return os.path.realpath(path, strict=True)
    raise TokenError(
        f"{visible_path(str(uri))}: no module {' or '.join(map(visible_path, names))} is installed",
        "name one with ?module-path=/path/to/module.so",
    )
