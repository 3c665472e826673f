"""`make fuzz`: every target for its share of the time, with new examples each time it is run."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

from fuzz.connection import SEEDS, Agent, attack
from fuzz.mutations import mutated
from fuzz.targets import TARGETS

from replug.agent.clients.waiting import ClientLoop

_AT_ONCE = 500  # examples between two looks at the clock


def parsers(examples: int, name: str, **how: object) -> Callable[[], None]:
    """A test of one parser with so many examples; `how` is for hypothesis' settings."""
    target = TARGETS[name]

    @settings(max_examples=examples, deadline=None, database=None, **how)  # type: ignore[arg-type]
    @given(mutated(target.seeds))
    def test(data: bytes) -> None:
        target(data)

    return test


def connections(examples: int, **how: object) -> Callable[[], None]:
    """A test of whole connections, likewise; all of them to one agent."""
    message = mutated(SEEDS).filter(lambda data: 0 < len(data) <= 256 * 1024)
    pieces = st.lists(st.integers(1, 3000), max_size=8)

    def test() -> None:
        with asyncio.Runner(loop_factory=ClientLoop) as runner:

            async def start() -> Agent:
                return Agent()

            agent = runner.run(start())

            @settings(
                max_examples=examples,
                deadline=None,
                database=None,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
                **how,  # type: ignore[arg-type]
            )
            @given(st.lists(message, max_size=5), pieces, st.just(b"") | mutated(SEEDS))
            def fire(messages: list[bytes], sizes: list[int], raw: bytes) -> None:
                runner.run(attack(agent, messages, sizes, raw))

            fire()
            runner.run(agent.close())

    return test


def main() -> int:
    """Runs all for `--seconds` in sum and says how many examples each had; the exit status."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--seconds", type=float, default=600)
    seconds = arguments.parse_args().seconds
    logging.getLogger("replug").addHandler(logging.NullHandler())  # every refusal is a line
    share = seconds / (len(TARGETS) + 3)
    phases = {"phases": [Phase.generate, Phase.shrink]}
    runs: dict[str, Callable[[], Callable[[], None]]] = {
        name: lambda name=name: parsers(_AT_ONCE, name, **phases)  # type: ignore[misc]
        for name in TARGETS
    }
    runs["connections"] = lambda: connections(_AT_ONCE // 5, **phases)
    for name, run in runs.items():
        end = time.monotonic() + (3 * share if name == "connections" else share)
        examples = 0
        while time.monotonic() < end:
            run()()
            examples += _AT_ONCE // 5 if name == "connections" else _AT_ONCE
        print(f"{name:25} {examples:8} examples", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
