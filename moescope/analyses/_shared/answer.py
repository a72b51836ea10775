"""What an analysis answers with: a verdict, tidy frames, their SQL, notes and charts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from ... import statistics as st
from ...errors import AnalysisError
from .verdicts.columns import COLUMNS, KEYS, WHOLE
from .verdicts.verdict import Verdict, of_figures

TAILS = {"count": "count of", "t": "Student's t through", "curve": "Pearson III through"}


@dataclass(frozen=True)
class Chart:
    """A chart, what it draws, and where that is from; `_charts` makes them."""

    chart: Any  # Altair
    frame: pd.DataFrame  # the chart's own data: what it draws, row for row
    sql: str  # the query that gives `frame`, or behind a comment that says so the one that it is computed from


@dataclass
class Answer:
    """The answer of one analysis about one run.

    `frames["figures"]` has COLUMNS (words in WORDS), one row per figure; other frames are tables to read.
    `sql[name]` is the query that frame `name` is computed from, and every frame has one (else AnalysisError); there may be
    others. `notes` say limits, and how to get what is missing. `verdict` is what was `said`; of a sentence alone, the figures
    with the least q are what carries it.
    """

    name: str
    title: str
    said: InitVar[Verdict | str]
    run: int
    frames: dict[str, pd.DataFrame]
    sql: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    draw: Callable[["Answer"], dict[str, Chart]] | None = field(default=None, repr=False)
    groups: Mapping[int, str] = field(default_factory=dict, repr=False)  # see `_scope.groups`
    verdict: Verdict = field(init=False)
    chosen: str = ""  # which run was taken where nobody named one, and which others there are

    def __post_init__(self, said: Verdict | str) -> None:
        known = self.frames.get("figures", pd.DataFrame())
        self.verdict = of_figures(said, known) if isinstance(said, str) else said
        if missing := sorted(set(self.frames) - set(self.sql)):
            raise AnalysisError(
                f"the analysis {self.name} says for {missing[0]!r} not which query it is computed from: it has to give that as "
                f"sql[{missing[0]!r}]"
            )

    @property
    def reading(self) -> str:
        """The verdict's sentence."""
        return self.verdict.sentence

    def charts(self) -> dict[str, Chart]:
        """Charts by a name that is read beside them; the routers of a layer that has two stand apart."""
        shown = replace(self, said=self.verdict, frames={name: self._apart(frame) for name, frame in self.frames.items()})
        return self.draw(shown) if self.draw else {}

    def _apart(self, frame: pd.DataFrame) -> pd.DataFrame:
        if not self.groups or not {"router", "stack"} <= set(frame):
            return frame
        return frame.assign(stack=frame["router"].map(self.groups).fillna(frame["stack"]))

    def figures(self, name: str | None = None, **where: Any) -> pd.DataFrame:
        """The figures, or those of one name whose columns equal `where`."""
        frame = self.frames["figures"]
        for column, wanted in (({"name": name} if name else {}) | where).items():
            frame = frame[frame[column] == wanted]
        return frame

    def to_json(self) -> dict[str, Any]:
        """Plain lists and dicts; missing numbers are null."""
        frames = {name: _records(frame) for name, frame in self.frames.items()}
        verdict = {key: getattr(self.verdict, key) for key in ("sentence", "follows", "evidence", "limits", "ask")}
        verdict["rows"] = _records(self.verdict.rows)
        words = {"name": self.name, "title": self.title, "run": self.run, "chosen": self.chosen, "verdict": verdict}
        return words | {"notes": self.notes, "sql": self.sql, "frames": frames}


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{key: _plain(value) for key, value in row.items()} for row in frame.to_dict("records")]


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(v) for v in value]
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and not np.isfinite(value)):
        return None
    return value


def figures(
    where: Mapping[str, Any],
    name: Any,
    value: Any,
    *,
    source: Any,
    estimator: str = "definition",
    chance: Any = np.nan,
    draws: Any = None,
    null: Any = None,
    null_name: str = "",
    side: str = "greater",
    tail: str = "count",
    skew: float = 0.0,
    information: bool = False,
    bounds: tuple[Any, Any] = (-np.inf, np.inf),
    n: Any = pd.NA,
    units: Any = pd.NA,
) -> pd.DataFrame:
    """Figure rows, one per element of `value` (flattened); `where` gives KEYS as columns or single values, as do the others.

    `draws` (draws, rows) are bootstrap values, `null` (permutations, rows) permuted ones; `units` counts documents;
    the interval is cut to `bounds`, which the measure cannot leave (never so that the value is outside of it); `tail` is how
    p is had from the null: `count` of draws, `t` or `curve` where there are too few to count (`statistics.t_tail`, whose null
    is known to have `skew`; `statistics.curve_tail`, for "greater"); `information`: less its null mean, so that its interval
    is `statistics.information_interval`.
    """
    value = np.atleast_1d(np.asarray(value, dtype=float)).ravel()
    known = units if draws is not None else 0
    drawn, known = None if draws is None else _rows(draws, value), np.asarray(known, dtype=int).ravel()
    if information and drawn is not None:
        low, high = st.information_interval(value, drawn, _rows(null, value), known)
    else:
        low, high = st.interval(value, drawn, known)
    columns: dict[str, Any] = {key: where.get(key, "" if key in ("stack", "subset") else pd.NA) for key in KEYS}
    columns |= {"name": name, "estimator": estimator, "source": source, "value": value, "chance": chance}
    low, high = np.minimum(np.clip(low, *bounds), value), np.maximum(np.clip(high, *bounds), value)
    columns |= {"ci_low": low, "ci_high": high, "n": n, "units": units}
    columns |= {
        "null": null_name,
        "null_mean": np.nan,
        "p": np.nan,
        "q": np.nan,
        "p_from": "",
        "tests": pd.NA,
        "families": pd.NA,
    }
    if null is not None:
        null = _rows(null, value)
        columns |= {"null_mean": null.mean(axis=0), "p": _tail(value, null, side, tail, skew)}
        columns["p_from"] = f"{TAILS[tail]} {len(null)} draws" + (f", of skewness {skew:.2f}" if skew else "")
    plain = {key: np.ravel(v) if isinstance(v, np.ndarray) else v for key, v in columns.items()}
    plain |= {key: _whole(plain[key], len(value)) for key in (*WHOLE, "tests", "families")}
    return pd.DataFrame({key: plain[key] for key in COLUMNS}, index=range(len(value)))


def _tail(value: Any, null: Any, side: str, tail: str, skew: float) -> Any:
    if tail == "curve":
        return st.curve_tail(value, null)
    return st.p_value(value, null, side) if tail == "count" else st.t_tail(value, null, side, skew)


def information(
    where: dict[str, Any], name: str, table: st.Array, draws: Any, null: Any, **common: Any
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of the information in bits of a `table` (A, B) of counts: plug-in, and less its mean under the null.

    No interval reaches beyond the smaller entropy of the two, which is all that there is to be told.
    """
    value, most = st.mutual_information(table), min(st.entropy(table.sum(0)), st.entropy(table.sum(1)))
    common = {"draws": draws, "source": "Shannon 1948", **common}
    bias = np.asarray(null).mean()
    plain = figures(where, name, value, estimator="plug-in", null=null, bounds=(0, most), **common)
    common |= {"null": null - bias, "bounds": (-np.inf, most)}
    return plain, figures(where, name, value - bias, estimator="less null mean", information=True, **common)


def _whole(values: Any, n: int) -> Any:
    """`n` integers, or missing ones."""
    some = isinstance(values, np.ndarray | list | pd.Series | pd.api.extensions.ExtensionArray)
    return pd.array(
        np.broadcast_to(values, n) if isinstance(values, np.ndarray) else values if some else [values] * n, dtype="Int64"
    )


def _rows(draws: Any, value: Any) -> Any:
    return np.asarray(draws, dtype=float).reshape(-1, len(value))


def gather(
    frames: list[pd.DataFrame], cells: pd.DataFrame | None = None, family: Sequence[str] = ("name", "estimator")
) -> pd.DataFrame:
    """One frame of figures; q: `statistics.fdr`, rows that agree in `family` being one (name and estimator; (): all rows).

    `cells`, another frame with p, is one more family of the same answer, and gets its q. Where cells are of an `attribute`,
    each is a family, and figures that have it as their subset are apart too: what is true of one makes no room for chance in
    another. AnalysisError where there is not one figure.
    """
    if not (some := [f for f in frames if len(f)]):
        raise AnalysisError("nothing that this question compares varies in this run; trace more inputs, or inputs with labels")
    frame = pd.concat(some, ignore_index=True)
    names, p = np.full(len(frame), ""), frame["p"].to_numpy(float)
    for column in family:
        names = np.char.add(np.char.add(names, "\n"), frame[column].to_numpy(str))
    if cells is not None:
        cells["q"] = np.nan
    if cells is None or not len(cells):
        return _adjusted(frame, p, names)
    of = cells["attribute"].to_numpy(str) if "attribute" in cells else np.full(len(cells), "cells")
    own = frame["subset"].to_numpy(str)
    names = np.char.add(names, np.where(np.isin(own, of), own, ""))
    every, families = np.concatenate([p, cells["p"].to_numpy(float)]), np.concatenate([names, of])
    cells["q"] = st.fdr(every, families)[len(frame) :]
    return _adjusted(frame, every, families)


def _adjusted(frame: pd.DataFrame, p: Any, family: Any) -> pd.DataFrame:
    """The figures, the first of the tests with these p, with q and what that was taken over."""
    (tests, times), tested = st.families(p, family), np.isfinite(p[: len(frame)])
    over, by = (
        pd.arrays.IntegerArray(np.broadcast_to(x, len(p)).astype(np.int64)[: len(frame)], ~tested) for x in (tests, times)
    )
    return frame.assign(q=st.fdr(p, family)[: len(frame)], tests=over, families=by)


def queries(*sql: str) -> str:
    """One query that gives the rows of several, columns by name."""
    return sql[0] if len(sql) == 1 else "\nunion all by name\n".join(f"from (\n{query}\n)" for query in sql)


def few_units(frame: pd.DataFrame) -> list[str]:
    """The note that explains empty intervals, where there are any."""
    short = frame[(frame["units"] < st.MIN_UNITS) & frame["ci_low"].isna() & frame["value"].notna()]
    if short.empty:
        return []
    return [
        f"{len(short)} figures stand on fewer than {st.MIN_UNITS} documents and have no interval: trace more documents "
        "(a long text is one document unless the data names its documents)."
    ]
