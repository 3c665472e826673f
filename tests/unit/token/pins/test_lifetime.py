"""When a remembered PIN expires, on a machine that sleeps."""

from __future__ import annotations

import time

import pytest

from replug.token.boottime import boottime
from replug.token.pins.lifetime import PinLifetime

HOUR = 3600.0


class Machine:
    """Clocks of a machine that was started a while ago."""

    def __init__(self) -> None:
        self.boot_clock = 1000.0
        self.monotonic_clock = 1000.0

    def run(self, seconds: float) -> None:
        self.boot_clock += seconds
        self.monotonic_clock += seconds

    def sleep(self, seconds: float) -> None:
        """Suspend: CLOCK_MONOTONIC, asyncio's, stands still."""
        self.boot_clock += seconds

    def boottime(self) -> float:
        return self.boot_clock

    def monotonic(self) -> float:
        return self.monotonic_clock


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_for_the_session(machine: Machine) -> None:
    pin = PinLifetime(None, None, machine.boottime)
    machine.run(1e9)
    assert (pin.expired, pin.expires_at) == (False, None)


def test_the_time_to_live_is_not_prolonged_by_use(machine: Machine) -> None:
    pin = PinLifetime(8 * HOUR, None, machine.boottime)
    assert pin.expires_at == 1000 + 8 * HOUR
    for _ in range(7):
        machine.run(HOUR)
        pin.used()
        assert not pin.expired
    machine.run(HOUR - 1)
    assert not pin.expired
    machine.run(1)
    assert pin.expired


def test_the_idle_time_is_prolonged_by_use(machine: Machine) -> None:
    pin = PinLifetime(None, HOUR, machine.boottime)
    for _ in range(9):
        machine.run(HOUR - 1)
        assert not pin.expired
        pin.used()
    assert pin.expires_at == machine.boottime() + HOUR
    machine.run(HOUR)
    assert pin.expired


def test_the_earlier_of_both_counts(machine: Machine) -> None:
    pin = PinLifetime(90.0, 60.0, machine.boottime)
    assert pin.expires_at == 1060
    machine.run(50)
    pin.used()
    assert pin.expires_at == 1090
    machine.run(40)
    assert pin.expired


def test_use_does_not_bring_it_back(machine: Machine) -> None:
    pin = PinLifetime(None, 60.0, machine.boottime)
    machine.run(61)
    pin.used()
    assert pin.expired


@pytest.mark.parametrize(("time_to_live", "idle_time"), [(8 * HOUR, None), (None, HOUR)])
def test_a_night_asleep_counts(machine: Machine, time_to_live: float | None, idle_time: float | None) -> None:
    pin = PinLifetime(time_to_live, idle_time, machine.boottime)
    on_asyncios_clock = PinLifetime(time_to_live, idle_time, machine.monotonic)
    machine.run(60)
    machine.sleep(10 * HOUR)
    assert pin.expired
    assert not on_asyncios_clock.expired, "with that clock it would have lived through the night"


def test_the_agents_clock_is_the_one_that_goes_on() -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= boottime() <= time.clock_gettime(time.CLOCK_BOOTTIME)
