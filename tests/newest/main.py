"""`make newest`: the tests against OpenSSH's programs once more, with the newest that Debian has.

A root of Debian sid is made by mmdebstrap, with replug installed in it as users install it, by the Python of
that root. There OpenSSH's own scripts, the side-by-side sessions, logins and the types of keys are tested,
and what only that OpenSSH has. It ends with 0 only if all passed and nothing was skipped.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from newest.sid import PYTEST, CannotBeMadeError, made

_AGAIN = (
    "certificates", "command_line", "confirm", "destinations", "forwarding", "key_rules", "key_types", "lock",
    "login", "messages", "security_keys", "session_bind", "signing", "software_keys", "ssh_add", "suite",
)  # fmt: skip
TESTS = ("tests/newest", *(f"tests/openssh/test_{name}.py" for name in _AGAIN))


def main() -> int:
    """Makes the root if there is none that is new enough, and runs the tests there."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--kept", type=Path, help="a folder that keeps the root, for the next time")
    parser.add_argument("--workers", default="auto", help="how many tests run at once")
    given, options = parser.parse_known_args()
    if os.geteuid() != 0:
        parser.error("only root can make a root of Debian sid and run tests in it: NOTHING WAS TESTED")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory(prefix="rp-newest-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # apt fetches packages as another user
        try:
            with _timed("the root of Debian sid"):
                sid = made(given.kept or folder)
            with _timed("replug is installed"):
                sid.install(folder)
        except CannotBeMadeError as error:
            print(f"\nNOTHING WAS TESTED with a newer OpenSSH: {error}", file=sys.stderr)
            return 1
        print(f"   {sid.said('ssh -V 2>&1; python3 -V')}", flush=True)
        with _timed("the tests"):
            return sid.run(
                PYTEST, "-p", "no:cacheprovider", "-n", given.workers, "--dist", "worksteal", *options, *TESTS
            )


@contextmanager
def _timed(what: str) -> Iterator[None]:
    before, cpu = time.monotonic(), _spent()
    yield
    print(
        f"   {what}: {time.monotonic() - before:.0f} s, {_spent() - cpu:.0f} s of processor time", flush=True
    )


def _spent() -> float:
    """Seconds of processor time of all that was run and has ended."""
    times = os.times()
    return times.children_user + times.children_system


if __name__ == "__main__":
    sys.exit(main())
