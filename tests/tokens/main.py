"""The journey with every token, several at a time, and the table of it: `make tokens`.

It ends with 0 only if every step of every token has passed; then the table of all tokens is written to the
document, if one is named. Else it is printed. Needs root, or sudo that asks no password.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

from rigs.root import AS_ROOT  # noqa: E402
from rigs.tried_all import TOKENS  # noqa: E402
from rigs.written_outcomes import outcomes_of  # noqa: E402
from tokens.table import Outcome, document  # noqa: E402


def main() -> int:
    """Runs it; the exit status."""
    if AS_ROOT:
        return subprocess.run([*AS_ROOT, sys.executable, *sys.argv]).returncode
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tokens", nargs="*", default=list(TOKENS))
    parser.add_argument("--document", type=Path, help="the file to write")
    given = parser.parse_args()
    chosen = given.tokens
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        outcomes = dict(zip(chosen, pool.map(try_token, chosen), strict=True))
    text = document(outcomes)
    steps = {step for of_token in outcomes.values() for step in of_token}
    passed = all(
        of_token.keys() == steps and all(outcome.result == "passed" for outcome in of_token.values())
        for of_token in outcomes.values()
    )
    if given.document and steps and passed and chosen == list(TOKENS):
        given.document.write_text(text)
        print(f"{given.document} is written")
    else:
        print(text)
    return 0 if steps and passed else 1


def try_token(token: str) -> dict[str, Outcome]:
    """What each step came to; what failed is printed."""
    _, steps = outcomes_of("--token", token, TESTS / "tokens" / "journey.py")
    return {step: Outcome(result, remark) for step, result, remark in steps}


if __name__ == "__main__":
    sys.exit(main())
