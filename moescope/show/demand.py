"""What was asked for and what ran: two things where capacity drops tokens, and never one colour."""

from typing import Protocol

import pandas as pd

COUNTED = {"asked": "what was asked for", "ran": "what ran"}
DROPS = "select coalesce(sum(dropped), 0) > 0 as dropped from load_rollup where run = ?"


class Ask(Protocol):
    """A store that answers a query with a frame."""

    def __call__(self, sql: str, *params: object) -> pd.DataFrame:
        """The rows."""


def drops(ask: Ask, run: int) -> bool:
    """Whether this run dropped anything."""
    return bool(ask(DROPS, run)["dropped"].iloc[0])


def ways(ask: Ask, run: int) -> list[str]:
    """What can be counted, the first unless another is chosen: demand first where some of it was dropped, else what ran."""
    return ["asked", "ran"] if drops(ask, run) else ["ran"]
