"""What the agent finds with its own rights, as `replug doctor` asks.

polkit and device permissions may give the agent of a desktop session what they deny to a shell over ssh, and
the other way round.
"""

from __future__ import annotations

import os
from typing import Any

from replug.token.noticing.pcsc_probe import ask_pcscd
from replug.token.offload import Share, TooManyThreadsError, in_daemon_thread

PROBE_VERSION = 1


async def probe() -> dict[str, Any]:
    """pcscd's answer to the agent; null if it cannot be asked, as after the programs were removed."""
    try:
        pcsc = await in_daemon_thread(Share.DIAGNOSIS, lambda: ask_pcscd(os.environ))
    except (OSError, TooManyThreadsError):
        pcsc = None
    return {"version": PROBE_VERSION, "pcsc": pcsc}
