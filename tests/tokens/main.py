"""The journey with every token, several at a time, and the table of it: `make tokens`.

Run as `python tests/tokens/main.py DOCUMENT [TOKEN ...]`. The document is written if every step of every
token has passed; else the table is only printed, and the exit status is 1. Needs root, or sudo that asks no
password.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

from rigs.root import AS_ROOT  # noqa: E402
from rigs.tried_all import TOKENS  # noqa: E402
from tokens.table import Outcome, document  # noqa: E402


def main() -> int:
    """Runs it; the exit status."""
    if AS_ROOT:
        return subprocess.run([*AS_ROOT, sys.executable, *sys.argv]).returncode
    path, chosen = Path(sys.argv[1]), sys.argv[2:] or list(TOKENS)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        outcomes = dict(zip(chosen, pool.map(try_token, chosen), strict=True))
    text = document(outcomes)
    steps = {step for of_token in outcomes.values() for step in of_token}
    passed = all(
        of_token.keys() == steps and all(outcome.result == "passed" for outcome in of_token.values())
        for of_token in outcomes.values()
    )
    if not steps or not passed or chosen != list(TOKENS):
        print(text)
        return 0 if steps and passed else 1
    path.write_text(text)
    print(f"{path} is written")
    return 0


def try_token(token: str) -> dict[str, Outcome]:
    """What each step came to; what failed is printed."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--token", token,
             "--outcomes", file.name, TESTS / "tokens" / "journey.py"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        written = Path(file.name).read_text()
    last = done.stdout.rstrip().rpartition("\n")[2]
    print(f"{token}: {last}" if done.returncode == 0 else f"{token}:\n{done.stdout}", flush=True)
    steps = json.loads(written) if written else []
    return {step: Outcome(result, remark) for step, result, remark in steps}


if __name__ == "__main__":
    sys.exit(main())
