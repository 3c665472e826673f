"""tests/unpack, with an apt-get that knows one package, and programs that find what was unpacked."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from rigs.unpacked import NotAllowedError, among_them

UNPACK = Path(__file__).parents[1] / "unpack"
APT_GET = """#!/bin/sh
echo "$*" >>"$0.calls"
case "$*" in
*--simulate*) echo "Inst replug-test-lib (1 here [all])"; echo "Inst replug-test (1 here [all])" ;;
*download*) for name in replug-test replug-test-lib; do
    mkdir -p $name/DEBIAN $name/usr/lib/$name && echo $name >$name/usr/lib/$name/file
    printf 'Package: %s\\nVersion: 1\\nArchitecture: all\\nMaintainer: me\\nDescription: x\\n' $name \\
      >$name/DEBIAN/control
    dpkg-deb --build $name && rm -r $name
  done ;;
esac
"""


def unpack(folder: Path, *packages: str, apt_get: str = APT_GET) -> subprocess.CompletedProcess[str]:
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / "apt-get").write_text(apt_get)
    (folder / "bin" / "apt-get").chmod(0o755)
    return subprocess.run(
        [UNPACK, folder / "unpacked", *packages],
        env={"PATH": f"{folder}/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_nothing_is_unpacked_where_all_is_installed(tmp_path: Path) -> None:
    done = unpack(tmp_path, "dpkg", "libc6")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (tmp_path / "unpacked").exists()


def test_what_is_missing_is_unpacked_once_and_found(tmp_path: Path) -> None:
    done = unpack(tmp_path, "dpkg", "replug-test")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(", without installing them: replug-test-lib replug-test\n")
    calls = (tmp_path / "bin" / "apt-get.calls").read_text()
    again = unpack(tmp_path, "dpkg", "replug-test")
    assert (again.returncode, again.stdout) == (0, "")
    assert (tmp_path / "bin" / "apt-get.calls").read_text() == calls
    assert sorted(path.name for path in (tmp_path / "unpacked").iterdir()) == ["ready", "root"]

    try:
        command = among_them(tmp_path / "unpacked" / "root")
    except NotAllowedError as error:
        pytest.skip(str(error))
    script = "cat /usr/lib/replug-test/file /usr/lib/replug-test-lib/file; ls -d /usr/lib/os-release; id -u"
    seen = subprocess.run([*command, "sh", "-c", script], capture_output=True, text=True, check=False)
    assert seen.stdout.splitlines() == [
        "replug-test",
        "replug-test-lib",
        "/usr/lib/os-release",
        str(os.getuid()),
    ]
    assert not Path("/usr/lib/replug-test").exists()


def test_apts_reason_is_shown(tmp_path: Path) -> None:
    done = unpack(tmp_path, "replug-test", apt_get="#!/bin/sh\necho E: no network\nexit 100\n")
    assert (done.returncode, done.stderr) == (1, "E: no network\n")
    assert not (tmp_path / "unpacked" / "ready").exists()
