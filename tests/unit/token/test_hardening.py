"""What the kernel says about a hardened process."""

from __future__ import annotations

import json
import subprocess
import sys

STATE = """
import ctypes, json, resource, sys
from contextlib import suppress
from replug.token import hardening

PR_GET_DUMPABLE = 3

def state():
    dumpable = ctypes.CDLL(None).prctl(PR_GET_DUMPABLE, 0, 0, 0, 0)
    return [dumpable, resource.getrlimit(resource.RLIMIT_CORE)]

with suppress(ValueError):  # fails only where the limit is 0 already and cannot be raised
    resource.setrlimit(resource.RLIMIT_CORE, (4096, 4096))
states = [state()]
for step in (hardening.refuse_tracing, hardening.refuse_core_dumps, hardening.permit_tracing):
    step()
    states.append(state())
json.dump(states, sys.stdout)
"""


def test_each_step() -> None:
    done = subprocess.run([sys.executable, "-c", STATE], capture_output=True, check=True)
    (_, cores), *hardened = json.loads(done.stdout)
    assert hardened == [[0, cores], [0, [0, 0]], [1, [0, 0]]]
