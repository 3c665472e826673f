"""OpenSC's configuration in a worker: ours, before the user's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

USERS = b"# the user's own\napp default { debug = 3; }\n"


def configuration(environment: dict[str, str], program: str) -> bytes:
    """What OpenSC would read in a worker that was started in this environment."""
    return subprocess.run(
        [sys.executable, "-I", "-c", program],
        env=os.environ | environment,
        check=True,
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    ).stdout


PRINT = "import os, sys\nsys.stdout.buffer.write(open(os.environ['OPENSC_CONF'], 'rb').read())\n"
DIRECTLY = f"from replug.token.worker.inside.opensc import forbid_pin_caching\nforbid_pin_caching()\n{PRINT}"
AT_LOADING = (
    "from replug.token.worker.inside import program\n"
    "try:\n"
    "    header = {'path': '/nonexistent.so', 'server_address': '', 'init_reserved': ''}\n"
    "    program.Operations(lambda: None).load(header, bytearray())\n"
    "except program.RefusedError:\n"
    f"    pass\n{PRINT}"
)


@pytest.mark.parametrize("program", [DIRECTLY, AT_LOADING], ids=["directly", "at loading"])
def test_the_pin_cache_is_off_and_what_the_user_set_is_kept(tmp_path: Path, program: str) -> None:
    users = tmp_path / "opensc.conf"
    users.write_bytes(USERS)
    text = configuration({"OPENSC_CONF": str(users)}, program)
    ours, _, rest = text.partition(USERS)
    assert b"use_pin_caching = false;" in ours
    assert rest == b""


def test_without_a_file_of_the_users_ours_is_all(tmp_path: Path) -> None:
    text = configuration({"OPENSC_CONF": str(tmp_path / "gone")}, DIRECTLY)
    assert b"use_pin_caching = false;" in text
    assert text.count(b"{") == text.count(b"}") == 2
