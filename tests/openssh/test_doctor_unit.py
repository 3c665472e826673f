"""`replug doctor` about the units, with a real systemd user manager in namespaces of the test's own."""

from __future__ import annotations

import os

import pytest
from rigs.doctor import REPLUG
from rigs.home import Home

SOCKET = "[Socket]\nListenStream=%t/replug/agent.sock\n"
FAILING = "[Service]\nExecStart=false\n"
RUNNING = "[Service]\nExecStart=sleep 60\n"

# The manager needs a cgroup tree that is its own, and folders in /run that the system's manager makes.
MANAGER = """
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system /run/systemd/mount-rootfs /run/systemd/unit-root
mkdir -m 0700 /run/own
export XDG_RUNTIME_DIR=/run/own
mount -t cgroup2 cgroup2 /sys/fs/cgroup
/usr/lib/systemd/systemd --user >/run/manager.log 2>&1 &
tries=0
until systemctl --user is-system-running >/run/state 2>/dev/null || grep -q degraded /run/state; do
    tries=$((tries + 1))
    [ $tries -lt 300 ] || { cat /run/manager.log; exit 9; }
    sleep 0.1
done
"""


def unit_line(home: Home, commands: str, **units: str) -> str:
    """What the doctor says of the units after the commands."""
    folder = home.folder / ".config" / "systemd" / "user"
    folder.mkdir(parents=True)
    for kind, text in units.items():
        (folder / f"replug-agent.{kind}").write_text(text)
    # A manager cannot be root in a user namespace only: it is not let into its cgroup.
    settings = [f"{name}={value}" for name, value in home.env.items()]
    done = home.run(
        *([] if os.geteuid() == 0 else ["sudo", "-n", "env", *settings]),
        "unshare", "--mount", "--cgroup", "--pid", "--fork", "--mount-proc", "--kill-child",
        "sh", "-c", f"{MANAGER}\n{commands}\n{REPLUG} doctor",
    )  # fmt: skip
    lines = [line for line in done.out.splitlines() if line[5:].startswith("unit: ")]
    assert len(lines) == 1, done
    return lines[0]


@pytest.mark.parametrize(
    ("commands", "line"),
    [
        (
            "",
            "fail unit: replug-agent.socket is inactive: nothing starts the agent;"
            " fix: systemctl --user enable --now replug-agent.socket",
        ),
        (
            "systemctl --user start replug-agent.socket",
            "ok   unit: replug-agent.socket is active, its service is inactive",
        ),
        (
            "systemctl --user start replug-agent.socket replug-agent.service",
            "ok   unit: replug-agent.socket is active, its service is active",
        ),
    ],
)
def test_the_units_are_there(home: Home, commands: str, line: str) -> None:
    assert unit_line(home, commands, socket=SOCKET, service=RUNNING) == line


def test_the_service_has_failed(home: Home) -> None:
    line = unit_line(
        home, "systemctl --user start --wait replug-agent.service", socket=SOCKET, service=FAILING
    )
    assert line.startswith(
        "fail unit: replug-agent.service has failed (exit-code, exit status 1); replug logs shows the reason;"
    )


def test_the_units_are_not_installed(home: Home) -> None:
    assert unit_line(home, "").startswith("warn unit: replug-agent.socket is not installed")


def test_there_is_no_manager(home: Home) -> None:
    assert "ok   unit: no systemd user manager runs here" in home.run(REPLUG, "doctor").out
