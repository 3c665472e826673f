"""gpg-agent with its support for ssh, in a home."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rigs.home import Home
from rigs.terminal import eventually

# Whatever it is asked for is empty: keys have no passphrase.
_PINENTRY = """#!/bin/sh
echo OK
while read -r line; do
    echo OK
    case $line in BYE*) exit ;; esac
done
"""


@contextmanager
def gpg_agent(home: Home) -> Iterator[Path]:
    """One that runs meanwhile; the socket that ssh-add and ssh ask it at.

    It ends when nobody is connected to it any more.
    """
    folder = home.folder / "gnupg"
    folder.mkdir(mode=0o700)
    pinentry = home.write("gnupg/pinentry", _PINENTRY, 0o700)
    home.write("gnupg/gpg-agent.conf", f"pinentry-program {pinentry}\ndisable-scdaemon\n")
    with (folder / "log").open("wb") as log:  # it keeps this open
        started = subprocess.run(
            ["gpg-agent", "--homedir", folder, "--enable-ssh-support", "--daemon"],
            env=home.env,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            check=True,
        )
    try:
        # For another home than the usual one it may listen in a folder that it has made elsewhere.
        yield Path(started.stdout.partition("SSH_AUTH_SOCK=")[2].partition(";")[0])
    finally:
        with socket.socket(socket.AF_UNIX) as asked:
            asked.connect(str(folder / "S.gpg-agent"))
            with asked.makefile("rwb", buffering=0) as lines:
                lines.readline()  # its greeting
                lines.write(b"KILLAGENT\n")
                lines.readline()
        eventually(lambda: not (folder / "S.gpg-agent").exists(), "gpg-agent has ended")
