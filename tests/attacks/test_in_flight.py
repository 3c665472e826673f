"""A program that keeps descriptors on their way, which the kernel counts by user: the agent goes on."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rigs.agent import PIN_PROMPT
from rigs.home import Home
from rigs.softhsm import MODULE, PIN, Token
from rigs.user_manager import UserManager

SOFT = 256
"""Open files that the service may have; a session has 1024, and not all can be in flight at once here."""


def test_many_descriptors_in_flight_do_not_keep_it_from_starting_workers(
    home: Home, log_in: Callable[[], UserManager]
) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 8 * SOFT:
        pytest.skip("no more descriptors than those may be in flight here")
    Token(home).add("p256", "key")
    session = log_in()
    assert session.replug("setup").status == 0
    drop_in = home.folder / ".config/systemd/user/replug-agent.service.d/few.conf"
    session.run("mkdir", "-p", session.folder / drop_in.parent.relative_to(home.folder))
    drop_in.write_text(f"[Service]\nLimitNOFILE={SOFT}:{8 * SOFT}\n")
    assert session.systemctl("daemon-reload").status == 0
    assert session.systemctl("restart", "replug-agent").status == 0
    # To ask for it takes a new service, for which systemd itself needs a descriptor in flight.
    socket = {"SSH_AUTH_SOCK": session.environment()["SSH_AUTH_SOCK"]}
    sender = session.start(sys.executable, "-I", Path(__file__).with_name("in_flight.py"), str(4 * SOFT))
    assert sender.stdout
    assert int(sender.stdout.readline()) >= 4 * SOFT

    done = session.run("ssh-add", "-s", MODULE, env=socket, typing=[(PIN_PROMPT, PIN)])
    assert done.status == 0, (done, session.replug("explain").out)
    assert session.run("sh", "-c", "ssh-add -L >key.pub && ssh-add -T key.pub", env=socket).status == 0
