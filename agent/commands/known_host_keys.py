"""The keys that known_hosts has for a name: ssh-keygen finds a name also where it is there as a hash only."""

from __future__ import annotations

import subprocess
from base64 import b64decode
from collections.abc import Iterator

from replug.agent.keys.known_host_names import default_files

_PATIENCE = 10.0  # seconds for ssh and ssh-keygen


def known_host_keys(name: str) -> Iterator[tuple[str, bytes]]:
    """Each key, behind the marker of its line: `@cert-authority`, `@revoked`, or mostly nothing."""
    for file in default_files():
        for line in output("ssh-keygen", "-F", name, "-f", file).splitlines():
            words = line.split()
            marker = words.pop(0) if line.startswith("@") else ""
            if len(words) < 3 or line.startswith("#"):
                continue
            try:
                key = b64decode(words[2], validate=True)
            except ValueError:
                continue
            yield marker, key


def output(*command: str) -> str:
    """What a program prints, whatever its exit status; nothing if it cannot run."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
