"""How even the load of every router is, with intervals over documents where the run is small enough to count them at once."""

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from moescope.app.queries import store_access

BALANCE = """
select s.stack, s.layer, s.router, s.load_entropy_bits / nullif(s.max_bits, 0) as load_entropy,
       s.routing_entropy / nullif(ln(s.experts), 0) as routing_entropy, d.entropy_sd / nullif(ln(s.experts), 0) as sd,
       s.margin, s.max_violation, s.dropped_share, s.dead, s.experts, s.decisions
from router_summary s left join decision_rollup d using (router) where s.run = ? order by s.stack, s.layer, s.router"""
BY_DOCUMENT = """
select a.router, a.expert, {document} as document, count(*) as n
from assignments a join tokens t using (token) join sequences s using (sequence)
where a.run = ? and not a.dropped group by all order by all"""
SMALL = 1_000_000  # assignments that are counted by document without being asked
Row = dict[str, Any]


def figures(run: Row) -> pd.DataFrame:
    """One row per router; in small runs with `<measure>_low` and `_high`, 95 % from a bootstrap over documents."""
    frame = store_access.frame(BALANCE, run["run"])
    return frame.merge(bounds(run)[0], on="router", how="left") if counted(run) and len(frame) else frame


def shares(run: Row, frame: pd.DataFrame) -> pd.DataFrame:
    """The frame (router, expert, share) with the 95 % interval of the share over documents, as `low` and `high`, if small."""
    return frame.merge(bounds(run)[1], on=["router", "expert"], how="left") if counted(run) and len(frame) else frame


def counted(run: Row) -> bool:
    """Whether the run is small enough."""
    return (run["assignments"] or SMALL + 1) <= SMALL


def bounds(run: Row) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Intervals of every router's measures, and of every expert's share."""
    return _bounds(str(store_access.path()), store_access.held().look(), run["run"])


@st.cache_data(max_entries=20, show_spinner=False)
def _bounds(where: str, state: tuple[Any, ...], run: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    from moescope import statistics  # SciPy is behind it
    from moescope.analyses._shared import scope

    counts = store_access.frame(BY_DOCUMENT.format(document=scope.DOCUMENT), run)
    sizes = store_access.frame(BALANCE, run).set_index("router")["experts"]
    document, documents = pd.factorize(counts["document"])
    weights, rows = statistics.bootstrap_weights(max(len(documents), 1)), []
    experts = [pd.DataFrame(columns=["router", "expert", "low", "high"])]
    for router, places in counts.groupby("router").indices.items():
        table = np.zeros((len(documents), int(sizes[router])))
        expert = counts["expert"].to_numpy(int)[places]
        keep = expert < table.shape[1]
        np.add.at(table, (document[places][keep], expert[keep]), counts["n"].to_numpy(float)[places][keep])
        total, drawn = table.sum(0), statistics.resampled(weights, table)
        most = max(float(np.log2(table.shape[1])), 1e-9)
        row: dict[str, Any] = {"router": router}
        for name, value, draws in (
            ("load_entropy", statistics.entropy(total) / most, statistics.entropy(drawn) / most),
            ("max_violation", statistics.max_violation(total), statistics.max_violation(drawn)),
        ):
            low, high = statistics.interval(value, draws, len(documents))
            row |= {f"{name}_low": float(low), f"{name}_high": float(high)}
        rows.append(row)
        low, high = statistics.interval(statistics.shares(total), statistics.shares(drawn), len(documents))
        span = {"low": low.clip(0, 1), "high": high.clip(0, 1)}
        experts.append(pd.DataFrame({"router": router, "expert": range(table.shape[1]), **span}))
    names = [f"{name}_{end}" for name in ("load_entropy", "max_violation") for end in ("low", "high")]
    return pd.DataFrame(rows, columns=["router", *names]), pd.concat(
        [f for f in experts if len(f)] or experts, ignore_index=True
    )
