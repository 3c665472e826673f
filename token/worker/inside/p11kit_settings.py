"""What p11-kit's libraries find in the worker's process when one of them is loaded."""

from __future__ import annotations

import ctypes
import os

_PROGRAM = b"replug-agent"
"""By which `enable-in` and `disable-in` know us; our process is one of Python."""


def prepare_p11_kit(server_address: str) -> None:
    """To be called before a module is loaded. `server_address` is for p11-kit-client.so; it may be empty."""
    # p11-kit's proxy would load what the user's own files name, past the agent's list of allowed modules.
    os.environ["P11_KIT_NO_USER_CONFIG"] = "1"
    if server_address:
        os.environ["P11_KIT_SERVER_ADDRESS"] = server_address
    libc = ctypes.CDLL(None)
    for name in ("program_invocation_name", "program_invocation_short_name"):
        try:
            ctypes.c_char_p.in_dll(libc, name).value = _PROGRAM  # a constant of this module: it stays
        except ValueError:  # another libc than glibc
            continue
