"""What a picture is asked of: a store, its runs, layers, sequences, experts; what is not there is said in a sentence."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import InputError
from ..pictures.wording import clean
from ..store import Store, imported, open_store
from ..store.groups import GROUPS
from ..store.remote.addresses import called
from . import demand
from .layers import ROUTERS, Layer, named

RUNS = """
select r.run, r.name, r.status, r.dataset, r.tokens, r.decisions, r.assignments, r.capture, r.model, m.name as model_name
from runs r left join models m using (model) order by r.run"""
Row = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """A store that answers with frames and rows."""

    store: Store

    def frame(self, sql: str, *params: Any) -> pd.DataFrame:
        """The rows of a query."""
        return self.store.con.execute(sql, list(params)).df()

    def rows(self, sql: str, *params: Any) -> list[Row]:
        """The rows of a query as dicts; missing values are None."""
        found = self.store.con.execute(sql, list(params))
        names = [column[0] for column in found.description or ()]
        return [{n: None if v != v else v for n, v in zip(names, row, strict=True)} for row in found.fetchall()]

    def run(self, number: int | None) -> Row:
        """A run, or the newest complete one that has a router. InputError where there is none."""
        number, runs = whole("run", number), {row["run"]: row for row in self.rows(RUNS)}
        if number is not None and number not in runs:
            raise InputError(f"there is no run {number} in {self.store.path}; it has {span('run', sorted(runs))}")
        if number is not None:
            return runs[number]
        routed = [row["run"] for row in self.rows("select distinct run from routers order by run")]
        finished = [run for run in routed if runs[run]["status"] == "complete"]
        if not (found := finished or routed):
            raise InputError(f"{self.store.path} has no run of a model with routers; trace one into it: moescope trace MODEL")
        return runs[found[-1]]

    def layers(self, run: Row) -> list[Layer]:
        """Its routers by stack and layer. InputError where it has none."""
        groups = {row["router"]: row["group"] for row in self.rows(GROUPS, run["run"])}
        found = named(self.rows(ROUTERS, run["run"]), groups)
        if not found:
            raise InputError(f"the model of run {run['run']} has no router, so nothing was routed; ask for another run")
        return found

    def layer(self, run: Row, asked: int | str | None, stack: str | None = None) -> Layer:
        """The layer of that number (of `stack`, where its sequence tells) or name; the middle one with None."""
        every = self.layers(run)
        known = [layer for layer in every if stack is None or layer.stack == stack] or every
        if asked is None:
            return known[len(known) // 2]
        if isinstance(asked, str):
            found = [layer for layer in every if asked in (layer.label, layer.group + f" {layer.layer}")]
        else:
            number = whole("layer", asked)
            found = [layer for layer in known if layer.layer == number]
        if len(found) == 1:
            return found[0]
        some = found or known
        names = ", ".join(repr(layer.label) for layer in some[:12]) + (", …" if len(some) > 12 else "")
        what = f"{len(found)} routers in layer {asked}" if found else f"no layer {clean(str(asked))!r}"
        raise InputError(f"run {run['run']} has {what}; name one of: {names}")

    def counted(self, run: Row, asked: str | None) -> str:
        """What is counted of a run: `asked`, or its demand where some was dropped, else what ran. InputError for another."""
        return demand.ways(self.frame, run["run"])[0] if asked is None else of("counted", asked, tuple(demand.COUNTED))

    def sequence(self, number: int | None, run: int | None) -> tuple[Row, Row]:
        """A sequence and its run; the first of the run with None. InputError where there is none."""
        number = whole("sequence", number)
        if number is None:
            here = decided(self.run(run))
            found = self.rows("select * exclude (text) from sequences where run = ? order by sequence limit 1", here["run"])
        else:
            found = self.rows("select * exclude (text) from sequences where sequence = ?", number)
            here = self.run(found[0]["run"] if found and run is None else run)
        if not found or found[0]["run"] != here["run"]:
            ends = self.rows("select min(sequence) as low, max(sequence) as high from sequences where run = ?", here["run"])[0]
            have = "it has none" if ends["low"] is None else f"its sequences are {ends['low']} to {ends['high']}"
            wanted = "" if number is None else f" {number}"
            raise InputError(f"run {here['run']} of {self.store.path} has no sequence{wanted}; {have}")
        return found[0], here


@contextmanager
def asking(store: Store | str | Path) -> Iterator[Asked]:
    """A store, opened for as long as the block lasts where it is named by its path. StoreError as of `moescope.open`."""
    if isinstance(store, Store):
        yield Asked(store)
    elif isinstance(store, str | Path):
        with open_store(store) as opened:
            yield Asked(opened)
    else:
        raise InputError(f"a store is a path or what moescope.open gives, not {type(store).__name__}")


def decided(run: Row) -> Row:
    """The run. InputError where it was imported as counts alone."""
    if imported.counts_only(run["capture"]):
        raise InputError(
            f"run {run['run']} was imported as counts of experts, without tokens or decisions; ask its load: show.load"
        )
    return run


def whole(what: str, value: Any) -> int | None:
    """A number that is none below 0, or None. InputError for anything else."""
    number = value.item() if hasattr(value, "item") else value
    if number is None or (isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 1 << 62):
        return number
    raise InputError(f"{what} is a whole number from 0 on, not {clean(repr(value), 80)}")


def of(what: str, value: Any, known: Sequence[str]) -> str:
    """One of several words. InputError for another."""
    if value in known:
        return str(value)
    raise InputError(f"{what} is one of {', '.join(known)}, not {clean(repr(value), 80)}")


def span(what: str, known: Sequence[int]) -> str:
    """As in "runs 0, 1, 2", or "no run"."""
    if not known:
        return f"no {what}"
    return f"{what} {known[0]}" if len(known) == 1 else f"{what}s {', '.join(map(str, known[:20]))}" + ", …" * (len(known) > 20)


def signed(run: Row, *more: str) -> str:
    """Which run, and what of it: below every picture."""
    name = clean(run["name"] or run["model_name"] or "", 60)
    return " · ".join([f"run {run['run']}: {name}", *filter(None, more)])


def stem(asked: Asked, run: Row, *more: str) -> str:
    """A name for files that says what is in them."""
    words = "-".join([f"moescope-{Path(called(asked.store.path)).stem}-run-{run['run']}", *more])
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in words)[:120]
