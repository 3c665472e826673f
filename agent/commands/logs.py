"""`replug logs`: shows the agent's log from the journal, or says where else it is."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys

from replug.agent.commands.command import Commands
from replug.agent.control.places import is_system_service
from replug.agent.setup.system_service import SERVICE as SYSTEM_SERVICE
from replug.agent.setup.units import SERVICE, SOCKET
from replug.agent.setup.user_manager import journal_matches

_JOURNAL = "/run/systemd/journal/socket"
_ELSEWHERE = """\
replug: there is no systemd journal here. The agent writes
  - to standard error when it runs in the foreground (replug-agent -D);
  - to syslog (facility auth) when it runs in the background and /dev/log exists: look for replug-agent in
    /var/log/auth.log or /var/log/secure;
  - nowhere when it runs in the background without /dev/log: start it with replug-agent -D 2>FILE.
replug explain shows the last refusals and their reasons.
"""


def add_parser(commands: Commands) -> None:
    """Add `logs` to the commands of `replug`."""
    parser = commands.add_parser("logs", help="show the agent's log")
    parser.add_argument("-f", "--follow", action="store_true", help="keep showing new messages")
    parser.add_argument("-n", "--lines", metavar="N", help="show the last N lines")
    parser.add_argument(
        "--since",
        metavar="TIME",
        help="show messages from TIME on: yesterday, '2026-01-31 12:00', or an age as in --since=-1h",
    )
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Execute journalctl; returns only if there is no journal."""
    journalctl = path_of_journalctl()
    if journalctl is not None:
        # Python ignores this signal: `replug logs | head` ends quietly.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.execv(journalctl, arguments(chosen))  # noqa: S606 - no shell is wanted
    sys.stderr.write(_ELSEWHERE)
    return 1


def path_of_journalctl() -> str | None:
    """The program, where the log is in a systemd journal."""
    return shutil.which("journalctl") if os.path.exists(_JOURNAL) else None


def arguments(chosen: argparse.Namespace) -> list[str]:
    """journalctl's arguments: the lines of every agent, whoever started it, and systemd's on our units.

    As root, about a service (`replug setup --ca`), that one's.
    """
    service = is_system_service(os.environ.get("SSH_AUTH_SOCK", ""))
    agent = [f"--unit={SYSTEM_SERVICE}"]
    if not service:
        agent = ["SYSLOG_IDENTIFIER=replug-agent", "+", *journal_matches(SERVICE, SOCKET)]
    return [
        "journalctl",
        *([] if service else ["--user"]),
        *(["--follow"] if chosen.follow else []),
        *([f"--lines={chosen.lines}"] if chosen.lines else []),
        *([f"--since={chosen.since}"] if chosen.since else []),
        *agent,
    ]
