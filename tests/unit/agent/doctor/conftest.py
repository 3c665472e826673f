"""A stand-in for a machine, of which doctor's checks find out what they need."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from replug.agent.doctor.machine import Machine


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine with a pcscd that listens, one driver, polkit, and nothing else."""
    for folder in ("sys", "run", "etc", "proc", "usr/lib/pcsc/drivers/ifd-ccid.bundle"):
        (tmp_path / folder).mkdir(parents=True)
    polkit = tmp_path / "usr/share/dbus-1/system-services/org.freedesktop.PolicyKit1.service"
    polkit.parent.mkdir(parents=True)
    polkit.touch()
    path = tmp_path / "pcscd.comm"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        yield Machine(
            {"PCSCLITE_CSOCK_NAME": str(path), "PATH": "/nowhere"},
            home=tmp_path,
            modules=(),
            root=tmp_path,
        )
