"""`replug history`: what was signed with which key, for whom and where, from the agent's log."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from replug.agent.commands import logs
from replug.agent.commands.command import Commands
from replug.agent.process.log_reading import LoggedEvent, read_lines, read_message
from replug.protocol.patterns import matches
from replug.token.identity import printable

_SIGNED = "signed"
"""The message of a line about a signature (replug.agent.handlers)."""
_STANDARD_INPUT = 0
_DURATION = re.compile(r"\d{1,18}", re.ASCII)
_NO_JOURNAL = """\
replug: there is no systemd journal here. Where the agent's log is a file, name it: replug history --file FILE
(what replug-agent -D writes to standard error, or syslog's /var/log/auth.log or /var/log/secure).
"""


def add_parser(commands: Commands) -> None:
    """Add `history` to the commands of `replug`."""
    parser = commands.add_parser("history", help="show what was signed with which key, for whom and where")
    parser.add_argument(
        "--key", metavar="KEY", help="with this key: its fingerprint, or its comment (* and ? are wildcards)"
    )
    parser.add_argument(
        "--host",
        metavar="HOST",
        help="logins at this host: its name (* and ? are wildcards) or its key's fingerprint",
    )
    parser.add_argument("--since", metavar="TIME", help="from TIME on, as for replug logs; not with --file")
    parser.add_argument("-n", "--lines", metavar="N", type=int, help="the last N signatures")
    parser.add_argument("--json", action="store_true", help="print JSON, an object a line")
    parser.add_argument(
        "--file", metavar="FILE", help="read the log from a file instead; - is standard input"
    )
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Print a line for each signature, the oldest first."""
    if chosen.file is not None and chosen.since is not None:
        chosen.program.error("--since is for the journal: it cannot be used with --file")
    if chosen.file is None:
        return _of_journal(chosen)
    file = _STANDARD_INPUT if chosen.file == "-" else chosen.file
    try:
        with open(file, errors="replace") as lines:
            _print(chosen, read_lines(lines, time.time()))
    except OSError as error:
        print(printable(f"replug: {chosen.file}: {error.strerror}"), file=sys.stderr)
        return 1
    return 0


def of_journal(lines: Iterable[bytes]) -> Iterator[LoggedEvent]:
    """Events from journalctl's JSON, an object a line (journalctl(1), --output=json)."""
    for line in lines:
        with suppress(ValueError, KeyError, TypeError):
            entry = json.loads(line)
            text = entry["MESSAGE"]
            if isinstance(text, list):  # what is no plain text is a list of bytes
                text = bytes(text).decode(errors="replace")
            yield read_message(int(entry["__REALTIME_TIMESTAMP"]) / 1e6, text)


def signatures(events: Iterable[LoggedEvent], key: str | None, host: str | None) -> Iterator[dict[str, Any]]:
    """What `--json` prints of the signatures among the events, with this key and at this host."""
    at = None if host is None else {host, *_keys_of(host)}
    for event in events:
        if event.message != _SIGNED or "key" not in event.fields:
            continue
        fields = event.fields
        hosts = fields.get("host", "").split(",") if fields.get("host") else []
        comment = fields.get("comment", "")
        if key is not None and key != fields["key"] and not matches(comment, key):
            continue
        if at is not None and not any(matches(name, wanted) for name in hosts for wanted in at):
            continue
        duration = fields.get("duration_ms", "")
        yield {
            "time": event.time,
            "key": fields["key"],
            "comment": comment,
            "token": fields.get("token", ""),
            "program": fields.get("program", ""),
            "purpose": fields.get("purpose", ""),
            "host": hosts,
            "confirmed": fields.get("confirmed", ""),
            "duration_ms": int(duration) if _DURATION.fullmatch(duration) else None,
        }


def in_words(signed: dict[str, Any]) -> str:
    """One line."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(signed["time"]))
    key = " ".join(filter(None, (signed["comment"], signed["key"])))
    confirmed = f"; confirmed {signed['confirmed']}" if signed["confirmed"] else ""
    return printable(
        f"{when} {signed['program']}: {signed['purpose']}; key {key} of {signed['token']}{confirmed}"
    )


def _of_journal(chosen: argparse.Namespace) -> int:
    journalctl = logs.path_of_journalctl()
    if journalctl is None:
        sys.stderr.write(_NO_JOURNAL)
        return 1
    wanted = logs.arguments(argparse.Namespace(follow=False, lines=None, since=chosen.since))[1:]
    # Of a long line journalctl shows nothing unless it is to show all.
    form = ("--output=json", "--output-fields=MESSAGE", "--all", "--no-pager", "--quiet")
    with subprocess.Popen(
        [journalctl, *form, *wanted], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as journal:
        assert journal.stdout is not None
        try:
            _print(chosen, of_journal(journal.stdout))
        except BaseException:
            journal.kill()
            raise
    return journal.returncode


def _print(chosen: argparse.Namespace, events: Iterable[LoggedEvent]) -> None:
    found: Iterable[dict[str, Any]] = signatures(events, chosen.key, chosen.host)
    if chosen.lines is not None:
        found = deque(found, maxlen=chosen.lines)
    nothing = True
    for signed in found:
        nothing = False
        print(json.dumps(signed) if chosen.json else in_words(signed))
    if nothing and not chosen.json:
        which = " of that kind" if chosen.key is not None or chosen.host is not None else ""
        print(f"No signature{which} is in the log.")


def _keys_of(host: str) -> Iterator[str]:
    """Fingerprints of the keys that known_hosts has for a name."""
    from replug.agent.commands.known_host_keys import known_host_keys  # slow
    from replug.agent.config.key_choice import is_fingerprint
    from replug.protocol.keys import fingerprint

    if not is_fingerprint(host):
        yield from (fingerprint(key) for _, key in known_host_keys(host))
