"""What a module gets besides its path when it is loaded."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class LoadArguments:
    """Settings of a p11-kit module file that the module itself reads; empty ones are not given."""

    server_address: str = ""
    """Where p11-kit-client.so finds its server, as in $P11_KIT_SERVER_ADDRESS."""
    init_reserved: str = ""
    """CK_C_INITIALIZE_ARGS.pReserved of C_Initialize; NSS reads its database's place from it."""


PLAIN = LoadArguments()
CLIENT = "p11-kit-client.so"
"""p11-kit's module that passes all calls on to a server."""


def passes_on(module: str) -> bool:
    """Whether the module at this path passes everything on, also the PIN, to another program."""
    return os.path.basename(module) == CLIENT
