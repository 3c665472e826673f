"""A short run of what `make fuzz` does for as long as you like: the same examples each time."""

from __future__ import annotations

import pytest
from fuzz.campaign import connections, parsers
from fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_a_parser_minds_nothing(name: str) -> None:
    parsers(200, name, derandomize=True)()


def test_a_connection_minds_nothing() -> None:
    connections(60, derandomize=True)()


def test_a_fault_is_found() -> None:
    """A target that minds something, to see that it would come out."""
    target = TARGETS["requests"]
    with pytest.MonkeyPatch.context() as patch:

        def fails(data: bytes) -> None:
            if data[:1] == b"\x0d" and len(data) > 40 and b"\xff" in data:
                raise ZeroDivisionError

        patch.setitem(TARGETS, "requests", type(target)(target.seeds, fails))
        with pytest.raises(ZeroDivisionError):
            parsers(2000, "requests", derandomize=True)()
