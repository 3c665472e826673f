"""The Debian package, built for a distribution on a new machine of it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from machines.new_machine import new_machine
from rigs.booted import Booted

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


def build(distribution: str, sdist: Path, destination: Path, bases: Path) -> Path:
    """The package, in the folder `destination`; built by packaging/deb, of the source distribution."""
    with (
        tempfile.TemporaryDirectory(prefix="rp-build-") as folder,
        new_machine(distribution, Path(folder), bases) as machine,
    ):
        return _build(machine, sdist, destination)


def _build(machine: Booted, sdist: Path, destination: Path) -> Path:
    folder = machine.root / "root" / "build"
    folder.mkdir()
    shutil.copy(sdist, folder)
    done = machine.run("sh", "-c", _BUILD)
    assert done.status == 0, (done.out[-4000:], done.err[-4000:])
    (package,) = folder.glob("*.deb")
    return Path(shutil.copy(package, destination))
