"""`make machines`: from a bare machine to the first signature, and back, as an ordinary user of a new Debian.

For each distribution a root is made by mmdebstrap and booted. The user logs in by ssh, with the umask of that
distribution, and types the lines under "Start here" of the README. On another such machine the Debian
package is built, on a third it is installed, used and purged, and a fourth becomes the bastion of
docs/bastion.md. It prints what was measured, and ends with
0 only if everything held.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from machines.bastion import Bastion
from machines.journey import Journey
from machines.new_machine import new_machine
from machines.newcomer import Cost
from packages.built import build
from packages.installed import check
from rigs.installation import build_sdist

REPOSITORY = Path(__file__).parents[2]
README = REPOSITORY / "README.md"
DISTRIBUTIONS = ("bookworm", "trixie")
MEASURED = "trixie"
"""What the README says of the number of commands and answers is this one's."""


def main() -> int:
    """Take the journey on each distribution."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("distributions", nargs="*", default=DISTRIBUTIONS)
    parser.add_argument("--bases", type=Path, help="a folder that keeps the roots, for the next time")
    given = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("only root can boot a system in a folder")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # the machine is shut down
    with tempfile.TemporaryDirectory(prefix="rp-machines-") as folder:
        bases = given.bases or Path(folder)
        sdist = build_sdist(Path(folder))
        for distribution in given.distributions:
            print(f"\n== {distribution}", flush=True)
            with _timed("all of it"):
                cost = _take_the_journey(distribution, Path(folder), bases)
                _try_the_package(distribution, sdist, Path(folder), bases)
                _try_the_bastion(distribution, Path(folder), bases)
            if distribution == MEASURED:
                assert f" {cost} " in " ".join(README.read_text().split()), f"README.md does not say {cost}"
    return 0


def _take_the_journey(distribution: str, folder: Path, bases: Path) -> Cost:
    started = time.monotonic()
    with new_machine(distribution, folder, bases) as machine:
        print(f"   booted after {time.monotonic() - started:.0f} s", flush=True)
        journey = Journey(machine, REPOSITORY)
        journey.take()
    shutil.rmtree(machine.root)
    cost = journey.to_first_signature
    print(f"   to the first signature: {cost}, {cost.seconds:.0f} s of waiting", flush=True)
    return cost


def _try_the_package(distribution: str, sdist: Path, folder: Path, bases: Path) -> None:
    with _timed("the package is built"):
        package = build(distribution, sdist, folder, bases)
    with _timed("installed, used and purged"), new_machine(distribution, folder, bases) as machine:
        check(machine, package)
    shutil.rmtree(machine.root)


def _try_the_bastion(distribution: str, folder: Path, bases: Path) -> None:
    with _timed("the bastion"), new_machine(distribution, folder, bases) as machine:
        Bastion(machine, REPOSITORY).take()
    shutil.rmtree(machine.root)


@contextmanager
def _timed(what: str) -> Iterator[None]:
    before = time.monotonic()
    yield
    print(f"   {what}: {time.monotonic() - before:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
