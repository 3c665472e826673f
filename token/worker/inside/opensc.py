"""OpenSC's own PIN cache, switched off in the worker.

With it OpenSC by itself sends a PIN that we gave it to a card that was swapped in, and spends a second try
after a PIN was changed elsewhere.
"""

from __future__ import annotations

import os
from pathlib import Path

_SYSTEM_CONFIG = "/etc/opensc/opensc.conf"
# An application's own block comes before `app default`, and of two for one application the first counts.
_OURS = b"""app opensc-pkcs11 {
    framework pkcs15 {
        use_pin_caching = false;
        use_file_caching = no;
    }
}
"""


def forbid_pin_caching() -> None:
    """Give this process an OpenSC configuration that is the user's (OPENSC_CONF) after ours.

    To be called before OpenSC is loaded. The file has no name: it lives as long as this process.
    """
    try:
        users = Path(os.environ.get("OPENSC_CONF", _SYSTEM_CONFIG)).read_bytes()
    except OSError:
        users = b""
    descriptor = os.memfd_create("opensc.conf")
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(_OURS + users)
    os.environ["OPENSC_CONF"] = f"/proc/self/fd/{descriptor}"
