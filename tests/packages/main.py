"""`make package`: the packages that people install, into dist/, each of them checked.

The source distribution and the wheel for all, and a Debian package for each distribution, built on a machine
that was installed a moment ago. On another such machine it is installed, used and purged. It needs root.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from machines.new_machine import new_machine
from packages.built import build
from packages.installed import check
from rigs.installation import ROOT, build_sdist, build_wheel

DISTRIBUTIONS = ("bookworm", "trixie")


def main() -> int:
    """Build and check all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("distributions", nargs="*", default=DISTRIBUTIONS)
    parser.add_argument("--twine", type=Path, required=True, help="the program of that name")
    parser.add_argument("--bases", type=Path, help="a folder that keeps the roots, for the next time")
    given = parser.parse_args()
    destination = ROOT / "dist"
    shutil.rmtree(destination, ignore_errors=True)
    destination.mkdir()
    sdist = build_sdist(destination)
    wheel = build_wheel(destination, sdist)
    subprocess.run([given.twine, "check", "--strict", sdist, wheel], check=True)
    with tempfile.TemporaryDirectory(prefix="rp-packages-") as name:
        folder = Path(name)
        bases = given.bases or folder
        for distribution in given.distributions:
            print(f"\n== {distribution}", flush=True)
            package = build(distribution, sdist, destination, bases)
            print(f"   {package.name}: {package.stat().st_size / 1e6:.1f} MB", flush=True)
            subprocess.run(["lintian", "--allow-root", "--fail-on=error", package], check=True)
            with new_machine(distribution, folder, bases) as machine:
                check(machine, package)
            print("   installed, used and purged", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
