"""`make machines`: from a bare machine to the first signature, and back, as an ordinary user of a new Debian.

For each distribution a root is made by mmdebstrap and booted. The user logs in by ssh, with the umask of that
distribution, and types the lines under "Start here" of the README. It prints what was measured, and ends with
0 only if everything held.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from machines.journey import Journey
from machines.new_machine import new_machine

REPOSITORY = Path(__file__).parents[2]
DISTRIBUTIONS = ("bookworm", "trixie")


def main() -> int:
    """Take the journey on each distribution."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("distributions", nargs="*", default=DISTRIBUTIONS)
    parser.add_argument("--bases", type=Path, help="a folder that keeps the roots, for the next time")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rp-machines-") as folder:
        bases = given.bases or Path(folder)
        for distribution in given.distributions:
            print(f"\n== {distribution}", flush=True)
            started = time.monotonic()
            with new_machine(distribution, Path(folder), bases) as machine:
                print(f"   booted after {time.monotonic() - started:.0f} s", flush=True)
                Journey(machine, REPOSITORY).take()
    return 0


if __name__ == "__main__":
    sys.exit(main())
