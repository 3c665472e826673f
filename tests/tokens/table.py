"""The table of the journey, steps by tokens, as a document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rigs.packages import system, versions
from rigs.tried_all import TOKENS

_HEAD = """# What it was tried with

One user's journey (`tests/tokens/journey.py`), from the first listing to the locked PIN, on tokens that
others wrote. `.ci/run` repeats it; `make tokens` does, too, and writes this page. The modules and the
services behind them are real, from Debian's packages. The TPM is swtpm, the card is `tests/rigs/piv_card.py`
in a real pcscd.

With other releases of OpenSSH: `make test` runs the programs of Debian 12's (9.2), `make newest` those of
Debian sid (10.6 in November 2026) in a root made for it, and `make machines` logs in with Debian 12's
and 13's.

"""


@dataclass(frozen=True)
class Outcome:
    """What one step came to with one token; `result` is pytest's word."""

    result: str
    remark: str = ""


def document(outcomes: Mapping[str, Mapping[str, Outcome]]) -> str:
    """The page; `outcomes` by token, then by step."""
    remarks: list[str] = []
    steps = list(dict.fromkeys(step for of_token in outcomes.values() for step in of_token))
    rows = [
        ["", *(TOKENS[token].title for token in outcomes)],
        ["---"] * (len(outcomes) + 1),
        *([step, *(_cell(of_token.get(step), remarks) for of_token in outcomes.values())] for step in steps),
    ]
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    notes = "".join(f"{number}. {remark}\n" for number, remark in enumerate(remarks, 1))
    packages = [package for kind in TOKENS.values() for package in kind.packages]
    found = ", ".join(versions(packages))
    return f"{_HEAD}{table}\n{notes}\nOn {system()}, with {found}.\n"


def _cell(outcome: Outcome | None, remarks: list[str]) -> str:
    if outcome is None:
        return "not run"
    if outcome.result != "passed":
        return f"**{outcome.result}**"
    if not outcome.remark:
        return "yes"
    if outcome.remark not in remarks:
        remarks.append(outcome.remark)
    return f"({remarks.index(outcome.remark) + 1})"
