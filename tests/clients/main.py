"""The visits of all clients, several at a time, and the table of them: `make clients`.

It ends with 0 only if every visit was as it has to be; then the table of all clients is written to the
document, if one is named. Else it is printed. Needs root, or sudo that asks no password.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

from clients.all_clients import CLIENTS  # noqa: E402
from clients.table import Outcome, document  # noqa: E402
from rigs.root import AS_ROOT  # noqa: E402
from rigs.written_outcomes import outcomes_of  # noqa: E402


def main() -> int:
    """Runs it; the exit status."""
    if AS_ROOT:
        return subprocess.run([*AS_ROOT, sys.executable, *sys.argv]).returncode
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clients", nargs="*", default=list(CLIENTS))
    parser.add_argument("--document", type=Path, help="the file to write")
    given = parser.parse_args()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # From the end, where the slowest are.
        running = {client: pool.submit(visit_with, client) for client in reversed(given.clients)}
    found = {client: running[client].result() for client in given.clients}
    outcomes = {client: visits for client, visits in found.items() if visits is not None}
    passed = len(outcomes) == len(found)
    if given.document and passed and list(found) == list(CLIENTS):
        given.document.write_text(document(outcomes))
        print(f"{given.document} is written")
    elif passed:
        print(document(outcomes))
    return 0 if passed else 1


def visit_with(client: str) -> list[Outcome] | None:
    """What was seen of each visit of this client; None if one was not as it has to be, which is printed."""
    passed, visits = outcomes_of("--client", client, TESTS / "clients" / "visits.py")
    return [Outcome(**visit) for visit in visits] if passed else None


if __name__ == "__main__":
    sys.exit(main())
