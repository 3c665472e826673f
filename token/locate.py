"""Finds the module of a URI; by default p11-kit's proxy (all registered ones), else OpenSC or libykcs11."""

from __future__ import annotations

import glob
import os

from replug.token.errors import TokenError
from replug.token.uri import Uri

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
_DEFAULT_NAMES = ("p11-kit-proxy", "opensc-pkcs11", "ykcs11")


def locate_module(uri: Uri) -> str:
    """The module's path, by module-path or module-name (RFC 7512 section 2.3); TokenError if none."""
    if uri.module_path is not None:
        return uri.module_path
    names = _DEFAULT_NAMES if uri.module_name is None else (uri.module_name,)
    for name in names:
        for folder in _FOLDERS:
            for file_name in (f"{name}.so", f"lib{name}.so"):
                for path in sorted(glob.glob(os.path.join(folder, glob.escape(file_name)))):
                    return path
    wanted = " or ".join(names)
    raise TokenError(
        f"{uri}: no module {wanted} is installed", "name one with ?module-path=/path/to/module.so"
    )
