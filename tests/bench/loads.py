"""Listing and signing under load."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from bench.contestants import KINDS, LISTING, Contestant, request
from bench.figures import Figure, Reach, interleaved
from bench.processes import all_of, cpu_seconds
from bench.programs import Programs
from rigs.agent import frame
from rigs.softhsm import Token

CLIENTS = (1, 8, 64)
UNITS = {"throughput": "/s", "p50": "µs", "p99": "µs", "CPU per request": "µs"}
_WARM_UP = 0.05
"""Seconds before each run, for a contestant that has stood idle meanwhile."""
REACHES = {
    ("listing, 1 client, persistent", "throughput"): Reach(2.0, least=True),
    ("listing, 1 client, persistent", "p50"): Reach(0.4),
    ("listing, 64 clients, persistent", "throughput"): Reach(2.0, least=True),
    ("listing, 8 clients, reconnecting", "throughput"): Reach(1.2, least=True),
    ("p256, 1 client, persistent", "p50"): Reach(0.5),
    ("p256, 64 clients, persistent", "throughput"): Reach(4.0, least=True, contestant="workers"),
    ("rsa2048, 8 clients, persistent", "throughput"): Reach(1.9, least=True, contestant="workers"),
}


def under_load(
    programs: Programs, token: Token, contestants: dict[str, Contestant], runs: int, seconds: float
) -> Iterator[Figure]:
    """Every combination of operation, number of clients and kind of connection, as it is measured."""
    for what in (LISTING, *KINDS):
        able = [one for one in contestants.values() if what == LISTING or what in one.kinds]
        # Listing asks no worker.
        able = [one for one in able if what != LISTING or one.name != "workers"]
        for clients in CLIENTS:
            for reconnect in (False, True):
                plural = "client" if clients == 1 else "clients"
                scenario = f"{what}, {clients} {plural}, {'reconnecting' if reconnect else 'persistent'}"
                measures = {
                    one.name: partial(_measure, programs, token, one, what, clients, reconnect, seconds)
                    for one in able
                }
                for name, samples in interleaved(runs, measures).items():
                    reach = REACHES.get((scenario, name))
                    yield Figure(f"{scenario}: {name}", UNITS[name], samples, reach)


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
    programs: Programs,
    token: Token,
    contestant: Contestant,
    what: str,
    clients: int,
    reconnect: bool,
    seconds: float,
) -> dict[str, float]:
    load = partial(
        programs.load, contestant.agent.socket, request(token, what), clients=clients, reconnect=reconnect
    )
    load(seconds=_WARM_UP)
    pids = all_of(contestant.agent)
    before = cpu_seconds(pids)
    figures = load(seconds=seconds)
    used = cpu_seconds(pids) - before
    assert figures.failures == 0, f"{contestant.name}, {what}: {figures}\n{contestant.agent.log[-4000:]}"
    return {
        "throughput": figures.throughput,
        "p50": figures.p50,
        "p99": figures.p99,
        "CPU per request": used / figures.replies * 1e6,
    }
