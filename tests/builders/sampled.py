"""Which cases of a test run with every change, and which only when all are asked for (MOESCOPE_ALL=1, `make test-all`).

A test marked `sampled(n)` has cases of one kind, which go the same way through the code: n of them, spread evenly over the
list, run always. `sampled(0)` runs only when all are asked for: use it where another test covers the kind.
"""

import os
from collections import defaultdict

import pytest

ALL = bool(os.environ.get("MOESCOPE_ALL"))


def how_many(cases: int, always: int) -> int:
    """How many of a number of generated cases to run: `cases` when all are asked for, else `always`."""
    return cases if ALL else always


def left_out(items: list[pytest.Item]) -> list[pytest.Item]:
    """The items that wait until all are asked for."""
    tests: dict[tuple[str, str], list[pytest.Item]] = defaultdict(list)
    for item in items:
        if item.get_closest_marker("sampled"):
            tests[str(item.path), getattr(item, "originalname", None) or item.name].append(item)
    return [item for cases in tests.values() for item in _beyond(cases)]


def _beyond(cases: list[pytest.Item]) -> list[pytest.Item]:
    marker = cases[0].get_closest_marker("sampled")
    assert marker is not None
    (wanted,) = marker.args
    taken = {round(place * (len(cases) - 1) / max(wanted - 1, 1)) for place in range(min(wanted, len(cases)))}
    return [case for place, case in enumerate(cases) if place not in taken]
