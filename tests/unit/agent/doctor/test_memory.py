"""Doctor says who can read the agent's memory, and whose its programs are."""

from __future__ import annotations

import os

import pytest

from replug.agent.doctor import ssh
from replug.agent.doctor.machine import Machine
from replug.agent.doctor.socket import SocketReport

OWN_FILES = "; but what writes into replug's files, which are yours, changes what it does"


@pytest.mark.parametrize(
    ("uid", "writable", "whose"),
    [(1000, True, OWN_FILES), (1000, False, ""), (0, True, "")],
    ids=["as pipx installs it", "as a package does", "root"],
)
def test_programs_that_are_the_users_own(
    machine: Machine, uid: int, writable: bool, whose: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vars(machine).update(agent=SocketReport(status={"memory_readable": False}))
    monkeypatch.setattr(os, "getuid", lambda: uid)
    monkeypatch.setattr(os, "access", lambda path, *_, **__: path == ssh.__file__ and writable)
    [found] = ssh.check_memory(machine)
    assert found.reason == f"no other program of yours can read the agent's memory{whose}"
