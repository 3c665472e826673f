"""Listing and signing under load."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from bench.contestants import FULL_TOKEN, KINDS, LISTING, Contestant, request
from bench.figures import Figure, Reach, interleaved
from bench.processes import all_of, cpu_seconds
from bench.programs import Programs
from rigs.agent import frame
from rigs.softhsm import Token

CLIENTS = (1, 8, 64)
UNITS = {"throughput": "/s", "p50": "µs", "p99": "µs", "CPU per request": "µs"}
_WARM_UP = 0.05
"""Seconds before each run, for a contestant that has stood idle meanwhile."""


@dataclass(frozen=True)
class Load:
    """What is asked, by how many clients at a time, and whether each connects anew for each request."""

    what: str
    clients: int
    reconnect: bool = False

    def __str__(self) -> str:
        clients = "1 client" if self.clients == 1 else f"{self.clients} clients"
        return f"{self.what}, {clients}, {'reconnecting' if self.reconnect else 'persistent'}"


REACHES = {
    (Load(LISTING, 1), "throughput"): Reach(2.0, least=True),
    (Load(LISTING, 1), "p50"): Reach(0.4),
    (Load(LISTING, 64), "throughput"): Reach(2.0, least=True),
    (Load(LISTING, 8, reconnect=True), "throughput"): Reach(1.2, least=True),
    (Load("p256", 1), "p50"): Reach(0.5),
    (Load("p256", 64), "throughput"): Reach(4.0, least=True, contestant="workers"),
    (Load("rsa2048", 8), "throughput"): Reach(1.9, least=True, contestant="workers"),
}


def under_load(
    programs: Programs, token: Token, contestants: dict[str, Contestant], runs: int, seconds: float
) -> Iterator[Figure]:
    """Every combination of operation, number of clients and kind of connection, as it is measured."""
    for what in (LISTING, *KINDS):
        for clients in CLIENTS:
            for reconnect in (False, True):
                load = Load(what, clients, reconnect)
                yield from _compared(programs, token, contestants, load, runs, seconds)


def with_many_keys(
    programs: Programs, token: Token, contestants: dict[str, Contestant], runs: int, seconds: float
) -> Iterator[Figure]:
    """The loads that something is to be reached for, on a token that is full of keys."""
    for load in dict.fromkeys(load for load, _ in REACHES):
        for figure in _compared(programs, token, contestants, load, runs, seconds):
            figure.what = f"{FULL_TOKEN} keys, {figure.what}"
            yield figure


def _compared(
    programs: Programs,
    token: Token,
    contestants: dict[str, Contestant],
    load: Load,
    runs: int,
    seconds: float,
) -> Iterator[Figure]:
    # Listing asks no worker, so two of them are no contestant of their own.
    able = [
        one
        for one in contestants.values()
        if (one.name != "workers" if load.what == LISTING else load.what in one.kinds)
    ]
    measures = {one.name: partial(_measure, programs, token, one, load, seconds) for one in able}
    for name, samples in interleaved(runs, measures).items():
        yield Figure(f"{load}: {name}", UNITS[name], samples, REACHES.get((load, name)))


def ceiling(
    programs: Programs, token: Token, replug: Contestant, runs: int, seconds: float
) -> Iterator[Figure]:
    """What the load does against an agent that costs nothing and sends the same answer."""
    asked = request(token, LISTING)
    with replug.agent.connect() as connection:
        reply = frame(connection.ask(asked))
    socket = token.home.folder / "trivial.sock"

    def measure(clients: int, reconnect: bool) -> dict[str, float]:
        load = programs.load(socket, asked, seconds=seconds, clients=clients, reconnect=reconnect)
        return {"throughput": load.throughput, "p50": load.p50}

    with programs.trivial_agent(socket, reply):
        for clients in CLIENTS:
            for reconnect in (False, True):
                kind = "reconnecting" if reconnect else "persistent"
                found = interleaved(runs, {"trivial": partial(measure, clients, reconnect)})
                for name, samples in found.items():
                    yield Figure(f"{clients}, {kind}: {name}", UNITS[name], samples)


def _measure(
    programs: Programs, token: Token, contestant: Contestant, load: Load, seconds: float
) -> dict[str, float]:
    run = partial(
        programs.load,
        contestant.agent.socket,
        request(token, load.what),
        clients=load.clients,
        reconnect=load.reconnect,
    )
    run(seconds=_WARM_UP)
    pids = all_of(contestant.agent)
    before = cpu_seconds(pids)
    figures = run(seconds=seconds)
    used = cpu_seconds(pids) - before
    assert figures.failures == 0, f"{contestant.name}, {load}: {figures}\n{contestant.agent.log[-4000:]}"
    return {
        "throughput": figures.throughput,
        "p50": figures.p50,
        "p99": figures.p99,
        "CPU per request": used / figures.replies * 1e6,
    }
