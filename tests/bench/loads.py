"""Listing and signing under load, with more and more keys on the token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.contestants import LISTING, SOFTWARE, Contestant, on, request, softhsm
from bench.figures import Figure, Reach, interleaved
from bench.processes import all_of, cpu_seconds
from bench.programs import Programs
from rigs.agent import frame
from rigs.key_files import make_key
from rigs.softhsm import Token

UNITS = {"throughput": "/s", "p50": "µs", "p99": "µs", "CPU per request": "µs"}
_WARM_UP = 0.05
"""Seconds before each slice, for a contestant that has stood idle meanwhile."""
_CEILING_CLIENTS = (1, 8, 64)


@dataclass(frozen=True)
class Load:
    """What is asked, by how many clients at a time, and whether each connects anew for each request."""

    what: str
    clients: int
    reconnect: bool = False

    def __str__(self) -> str:
        clients = "1 client" if self.clients == 1 else f"{self.clients} clients"
        return f"{self.what}, {clients}{', reconnecting' if self.reconnect else ''}"


def _throughput(one: float, two: float | None = None) -> tuple[Reach, ...]:
    ours = Reach(one, least=True)
    return (ours,) if two is None else (ours, Reach(two, least=True, contestant="workers"))


KEYS = (1, 3, 24)
"""How many there are on the token; a YubiKey has room for 24."""
REACHES: dict[tuple[Load, str], tuple[tuple[Reach, ...], ...]] = {
    (Load(LISTING, 1), "throughput"): (_throughput(1.6), _throughput(2.2), _throughput(10)),
    (Load(LISTING, 8, True), "throughput"): (_throughput(1.3), _throughput(1.7), _throughput(6)),
    (Load(LISTING, 64), "throughput"): (_throughput(2), _throughput(3), _throughput(20)),
    (Load("p256", 1), "p50"): ((Reach(0.9),), (Reach(0.8),), (Reach(0.35),)),
    (Load("p256", 1), "CPU per request"): ((Reach(1.0),), (Reach(0.7),), (Reach(0.3),)),
    (Load("p256", 64), "throughput"): (_throughput(1.3, 1.8), _throughput(1.8, 2.5), _throughput(4, 6)),
    (Load("p256", 8, True), "throughput"): (_throughput(1.1, 1.5), _throughput(1.3, 2), _throughput(3, 5)),
    (Load("rsa2048", 8), "throughput"): (_throughput(1, 1.6), _throughput(1, 1.7), _throughput(1.5, 2.5)),
    (Load(SOFTWARE, 1), "throughput"): (_throughput(1), _throughput(1), ()),
    (Load(SOFTWARE, 64), "throughput"): (_throughput(1), _throughput(1), ()),
}
"""For each load and figure, and each of `KEYS`."""
LOADS = tuple(dict.fromkeys(load for load, _ in REACHES))
_MANY = 256
"""With so many keys only listings are measured."""
ALL_KEYS = (*KEYS, _MANY)


def under_load(
    programs: Programs,
    counts: Sequence[int],
    two_workers: str | None,
    others: Sequence[Path],
    runs: int,
    seconds: float,
) -> Iterator[Figure]:
    """Every load with these numbers of keys; `two_workers` and `others` as for `on`."""
    for keys in counts:
        # A single key is of the kind that is asked for.
        groups: dict[str, list[Load]] = {}
        for load in LOADS:
            if keys != _MANY or load.what == LISTING:
                single = "rsa2048" if load.what == "rsa2048" else "p256"
                groups.setdefault(single if keys == 1 else "", []).append(load)
        for kind, loads in groups.items():
            with softhsm(keys, kind) as token, on(token, two_workers, others) as contestants:
                for load in loads:
                    yield from _compared(programs, token, contestants, load, keys, runs, seconds)


def _compared(
    programs: Programs,
    token: Token,
    contestants: dict[str, Contestant],
    load: Load,
    keys: int,
    runs: int,
    seconds: float,
) -> Iterator[Figure]:
    able = [one for one in contestants.values() if _takes_part(one, load.what)]
    if load.what == SOFTWARE:
        key = token.home.folder / SOFTWARE
        if not key.exists():
            make_key(token.home, SOFTWARE)
        for one in able:
            assert one.agent.ssh_add(key).status == 0, one.agent.log
    measures = {one.name: partial(_measure, programs, token, one, load, seconds) for one in able}
    for name, samples in interleaved(runs, measures).items():
        reaches = REACHES.get((load, name), ((),) * len(KEYS))
        wanted = reaches[KEYS.index(keys)] if keys in KEYS else ()
        yield Figure(f"{load}: {name}", UNITS[name], samples, wanted, keys)


def _takes_part(contestant: Contestant, what: str) -> bool:
    # Only signatures by the token are made by its workers.
    return contestant.name != "workers" if what in (LISTING, SOFTWARE) else what in contestant.kinds


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
        for clients in _CEILING_CLIENTS:
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
