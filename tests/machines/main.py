"""`make machines`: from a bare machine to the first signature, and back, as an ordinary user of a new Debian.

For each distribution a root is made by mmdebstrap and booted. The user logs in by ssh, with the umask of that
distribution, and types the lines under "Start here" of the README. It prints what was measured, and ends with
0 only if everything held.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from machines.journey import Journey
from machines.new_machine import new_machine

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
        for distribution in given.distributions:
            print(f"\n== {distribution}", flush=True)
            started = time.monotonic()
            with new_machine(distribution, Path(folder), bases) as machine:
                print(f"   booted after {time.monotonic() - started:.0f} s", flush=True)
                journey = Journey(machine, REPOSITORY)
                journey.take()
            cost = journey.to_first_signature
            print(f"   to the first signature: {cost}, {cost.seconds:.0f} s of waiting")
            print(f"   all of it: {(time.monotonic() - started) / 60:.1f} minutes", flush=True)
            if distribution == MEASURED:
                assert f" {cost} " in " ".join(README.read_text().split()), f"README.md does not say {cost}"
    return 0


if __name__ == "__main__":
    sys.exit(main())
