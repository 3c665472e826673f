"""What a command gets that is run with an agent: nothing of Python's."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

EXECUTE = """
import sys
from replug.agent.process import daemon
from replug.token import hardening
hardening.refuse_tracing()
try:
    daemon.execute(tuple(sys.argv[1:]))
except OSError as error:
    sys.exit(error.strerror)
"""


def execute(*command: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", EXECUTE, *command],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_environment_is_the_callers() -> None:
    # In the C locale Python exports LC_CTYPE to its children.
    assert execute("/usr/bin/env", env={"LANG": "C"}).stdout == "LANG=C\n"


def test_a_locale_of_the_callers_stays() -> None:
    environment = {"LANG": "C", "LC_CTYPE": "C.UTF-8"}
    assert execute("/usr/bin/env", env=environment).stdout == "LANG=C\nLC_CTYPE=C.UTF-8\n"


def test_no_signal_is_ignored() -> None:
    # But for 32 and 33, which are glibc's own: GNU make leaves them ignored, and Python cannot mend that.
    done = execute("cat", "/proc/self/status", env={"PATH": "/usr/bin:/bin"})
    (ignored,) = re.findall(r"^SigIgn:\s*(\S+)$", done.stdout, re.MULTILINE)
    assert int(ignored, 16) & 0x7FFF_FFFF == 0


def test_the_command_is_found_on_the_path(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text('#!/bin/sh\necho "$0 $@"\n')
    program.chmod(0o755)
    done = execute("program", "a b", "-c", env={"PATH": f"/nonexistent:{tmp_path}"})
    assert done.stdout == f"{program} a b -c\n"


def test_a_script_without_an_interpreter_line_is_the_shells(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text('echo "$1"\n')
    script.chmod(0o755)
    assert execute("script", "a b", env={"PATH": str(tmp_path)}).stdout == "a b\n"
    assert execute(str(script), "a b").stdout == "a b\n"


def test_no_such_command() -> None:
    assert execute("/nonexistent/program").stderr == "No such file or directory\n"
    assert execute("/").stderr == "Permission denied\n"
