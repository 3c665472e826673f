"""tests/prepare, on a machine that lacks every package, with an apt-get that does as it is told."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

PREPARE = Path(__file__).parents[1] / "prepare"
LOCKED = "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 1 (apt-get)"
SUDO = """#!/bin/sh
exec "$@"
"""
APT_GET = """#!/bin/sh
echo "$*" >>"$0.calls"
rest=$0.answers
[ -s "$rest" ] || exit 0
head -n 1 "$rest"
sed -i 1d "$rest"
exit 100
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The programs in the place of the machine's."""
    for name, text in {
        "apt-get": APT_GET,
        "dpkg-query": "#!/bin/sh\nexit 1\n",
        "install": "#!/bin/sh\n",
        "sleep": "#!/bin/sh\n",
        "sudo": SUDO,
    }.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    return tmp_path


def prepare(
    folder: Path, *answers: str, purpose: str = "machines"
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Runs it, with what apt-get fails with before it does not; and what apt-get was called with."""
    (folder / "apt-get.answers").write_text("".join(f"{answer}\n" for answer in answers))
    done = subprocess.run(
        [PREPARE, purpose],
        env={"PATH": f"{folder}:/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done, [call.split()[3] for call in (folder / "apt-get.calls").read_text().splitlines()]


def test_it_waits_while_another_holds_a_lock_of_apts(folder: Path) -> None:
    done, calls = prepare(folder, LOCKED, LOCKED)
    assert done.returncode == 0, done
    assert calls == ["update", "update", "update", "install"]
    waits = [call.split()[:3] for call in (folder / "apt-get.calls").read_text().splitlines()]
    assert waits == [["-q", "-o", "DPkg::Lock::Timeout=300"]] * 4  # which is how apt waits for dpkg's locks


def test_any_other_failure_is_shown_at_once(folder: Path) -> None:
    done, calls = prepare(folder, "E: no such archive")
    assert done.returncode == 1
    assert done.stderr.startswith("E: no such archive\ntests/prepare: apt-get could not install: ")
    assert calls == ["update"]


def test_the_services_of_other_tokens_are_not_started_here(folder: Path) -> None:
    for name, text in {
        "unshare": '#!/bin/sh\n[ "$1" = --mount ] && shift && exec "$@"\n',
        "mount": '#!/bin/sh\necho "$*" >>"$0.calls"\n',
    }.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)

    done, calls = prepare(folder, purpose="tokens")

    assert (done.returncode, calls) == (0, ["-o", "-o"]), done
    install = (folder / "apt-get.calls").read_text().splitlines()[-1]
    assert "--path-exclude=/usr/share/p11-kit/modules/tpm2_pkcs11.module install" in install
    assert "--bind /bin/true /usr/sbin/invoke-rc.d\n" in (folder / "mount.calls").read_text()
