"""How even the load of every router is, with intervals over documents where the run is small enough to count them at once."""

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from moescope.app.queries import store_access

BALANCE = """
select s.stack, s.layer, s.router,
       case when s.max_violation is not null then s.load_entropy_bits / nullif(s.max_bits, 0) end as load_entropy,
       s.routing_entropy / nullif(ln(s.experts), 0) as routing_entropy, d.entropy_sd / nullif(ln(s.experts), 0) as sd,
       s.margin, s.max_violation, s.dropped_share, s.dead, s.experts, s.decisions
from router_summary s left join decision_rollup d using (router) where s.run = ? order by s.stack, s.layer, s.router"""
BY_DOCUMENT = """
with units as ({units})
select a.router, a.expert, u.unit, count(*) as n
from assignments a join tokens t using (token) join units u using (sequence)
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

    counts = store_access.frame(BY_DOCUMENT.format(units=scope.Scope(store_access.reader(), run).units_sql()), run)
    sizes, rows = store_access.frame(BALANCE, run).set_index("router")["experts"], []
    experts = [pd.DataFrame(columns=["router", "expert", "low", "high"])]
    for router, part in counts.groupby("router"):
        part = part[part["expert"] < sizes[router]]
        table = np.zeros((int(counts["unit"].max()) + 1, int(sizes[router])))
        table[part["unit"], part["expert"]] = part["n"]
        most = max(float(np.log2(table.shape[1])), 1e-9)
        row: dict[str, Any] = {"router": router}
        for name, statistic, top in (
            ("load_entropy", lambda n, most=most: statistics.entropy(n) / most, 1.0),
            ("max_violation", statistics.max_violation, np.inf),
        ):
            _, low, high = statistics.over_documents(statistic, table, bounds=(0, top))
            row |= {f"{name}_low": float(low), f"{name}_high": float(high)}
        rows.append(row)
        _, low, high = statistics.over_documents(statistics.shares, table, bounds=(0, 1))
        experts.append(pd.DataFrame({"router": router, "expert": range(table.shape[1]), "low": low, "high": high}))
    names = [f"{name}_{end}" for name in ("load_entropy", "max_violation") for end in ("low", "high")]
    return pd.DataFrame(rows, columns=["router", *names]), pd.concat(
        [f for f in experts if len(f)] or experts, ignore_index=True
    )
