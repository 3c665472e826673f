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
from packages.installed import check
from rigs.booted import Booted
from rigs.installation import ROOT, build_sdist, build_wheel

DISTRIBUTIONS = ("bookworm", "trixie")
_BUILD = """
set -e
export DEBIAN_FRONTEND=noninteractive
cd /root/build
tar --extract --file *.tar.gz
cd */
apt-get install --yes --quiet --no-install-recommends dpkg-dev
apt-get build-dep --yes --quiet ./packaging
packaging/deb
"""


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
            (folder / "build").mkdir(exist_ok=True)
            with new_machine(distribution, folder / "build", bases) as machine:
                package = _build(machine, sdist, destination)
            shutil.rmtree(folder / "build")
            print(f"   {package.name}: {package.stat().st_size / 1e6:.1f} MB", flush=True)
            subprocess.run(["lintian", "--allow-root", "--fail-on=error", package], check=True)
            with new_machine(distribution, folder, bases) as machine:
                check(machine, package)
            print("   installed, used and purged", flush=True)
    return 0


def _build(machine: Booted, sdist: Path, destination: Path) -> Path:
    """The Debian package, in `destination`; built there by packaging/deb."""
    folder = machine.root / "root" / "build"
    folder.mkdir()
    shutil.copy(sdist, folder)
    done = machine.run("sh", "-c", _BUILD)
    assert done.status == 0, (done.out[-4000:], done.err[-4000:])
    (package,) = folder.glob("*.deb")
    return Path(shutil.copy(package, destination))


if __name__ == "__main__":
    sys.exit(main())
