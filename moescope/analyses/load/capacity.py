"""What capacity would drop: every decision dealt into buffers again, at several capacity ratios.

Places per expert: C = ceil(n k ratio / E), rounded up to a multiple of 4 (V-MoE, google-research/vmoe compute_capacity), with
n the tokens of the pool (of the whole forward pass where the run had no pools). First choices of all tokens take places before
second choices; what is no routed expert (identity, skip) has no buffer and is left out. `vanilla` takes tokens in their order;
`batch prioritized` (V-MoE 2106.05974, section 4) by their largest weight. Both drop as many assignments; they differ in which:
see the share of weight dropped and of tokens left without expert.
Chance: the share of assignments that would be dropped if every expert had as many (of weight and of tokens there is none).
`weight saved by batch priority`: share of weight dropped in token order less that by priority, of the same documents.
Intervals: documents. In token order the loads are drawn and put into buffers again (`capacity_resampled.py`); for batch
priority, and for tokens without expert, it is what each document lost that is drawn, with the competition for the buffers taken
as it was.
"""

from typing import Any

import numpy as np
import pandas as pd

from ... import statistics as st
from ...statistics import Array
from .._shared.answer import figures
from .._shared.scope import Scope, place
from .capacity_resampled import redealt

RATIOS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
MOST = 1_000_000  # assignments dealt again, in whole forward passes
SOURCE = "V-MoE 2106.05974; compute_capacity rounds up to a multiple of 4"
COLUMNS = ["lost", "n", "lost_weight", "weight", "even", "unrouted", "tokens"]
OF = {"lost": "n", "lost_weight": "weight", "even": "n", "unrouted": "tokens"}
CELLS = """
select router, forward, iteration, c.pool, any_value(s.n) as tokens, any_value(coalesce(r.top_k, s.k)) as k, units.unit, rank,
  expert, count(*) as n, sum(weight) as weight
from chosen c join sizes s using (forward, router, iteration) join routers r using (router) join tokens t using (token)
join units using (sequence) where routed and c.pool is not distinct from s.pool group by all"""
SUMMED = """
select any_value(stack) as stack, any_value(layer) as layer, router, ratio, "order", sum(lost) / sum(b.n) as dropped_share,
  sum(lost_weight) / nullif(sum(weight), 0) as dropped_weight, sum(unrouted) / sum(b.tokens) as unrouted,
  sum(b.tokens)::bigint as n
from by_unit b join routers using (router) group by router, ratio, "order" order by stack, layer, router, ratio, "order" desc"""


def what_if(here: Scope, notes: list[str], ratios: tuple[float, ...] = RATIOS, multiple: int = 4) -> tuple[pd.DataFrame, str]:
    """Frame (stack, layer, router, ratio, order, dropped_share, dropped_weight, unrouted, n) and its SQL."""
    sql = _sql(here, _forwards(here, notes), ratios, multiple) + SUMMED
    return here.store.sql(sql).df().assign(source=SOURCE), sql


def what_if_figures(here: Scope, notes: list[str], multiple: int = 4) -> tuple[list[pd.DataFrame], pd.DataFrame, str]:
    """Figures with intervals over documents, and what `what_if` gives."""
    sql = _sql(here, _forwards(here, notes), RATIOS, multiple)
    by_unit, cells = (here.store.sql(sql + rest).df() for rest in ("\nfrom by_unit", CELLS))
    units = int(by_unit["unit"].max()) + 1 if len(by_unit) else 0
    rows = []
    for router, part in by_unit.groupby("router"):
        row, sums = here.routers.loc[router], _array(part, units)
        again = redealt(cells[cells["router"] == router], units, int(row["experts"]), RATIOS, multiple)
        rows += _figures(row, sums, st.resampled(st.bootstrap_weights(units), sums), again)
    con = here.store.con
    con.register("capacity_by_unit", by_unit)
    try:
        frame = con.sql(f"with by_unit as (from capacity_by_unit) {SUMMED}").df()
    finally:
        con.unregister("capacity_by_unit")
    return rows, frame.assign(source=SOURCE), sql + SUMMED


def _array(part: pd.DataFrame, units: int) -> Array:
    """(documents, ratios, orders, COLUMNS) of one router; vanilla first."""
    sums = np.zeros((units, len(RATIOS), 2, len(COLUMNS)))
    ratio = np.searchsorted(RATIOS, part["ratio"].to_numpy(float))
    sums[part["unit"], ratio, (part["order"] != "vanilla").to_numpy(int)] = part[COLUMNS].to_numpy(float)
    return sums


def _figures(router: pd.Series, sums: Array, drawn: Array, again: Array | None) -> list[pd.DataFrame]:
    """`drawn` (draws, ...) are `sums` (documents, ...) of documents drawn again, `again` what `redealt` gives."""
    total, units = sums.sum(0), int((sums[:, 0, 0, 1] > 0).sum())
    common: dict[str, Any] = {"source": SOURCE, "units": units, "null_name": "none: a share beside that of even load"}
    common["where"] = place(router) | {"subset": np.array([f"ratio={ratio:g}" for ratio in RATIOS])}
    n, tokens = (total[:, 0, COLUMNS.index(c)].astype(int) for c in ("n", "tokens"))

    def share(column: str, order: int, x: Array) -> Array:
        a, b = COLUMNS.index(column), COLUMNS.index(OF[column])
        return np.asarray(x[..., order, a] / np.maximum(x[..., order, b], 1e-12))

    def add(name: str, estimator: str, column: str, order: int, draws: Any = None, **more: Any) -> pd.DataFrame:
        draws = share(column, order, drawn) if draws is None else draws
        value = share(column, order, total)
        return figures(name=name, value=value, estimator=estimator, draws=draws, bounds=(0, 1), **common | more)

    shares, weight = (None, None) if again is None else (again[:, :, 0], again[:, :, 1])
    even = {"chance": share("even", 0, total), "n": n}
    rows = [add("dropped share at another capacity", "either order", "lost", 0, shares, **even)]
    orders = ("vanilla", "batch prioritized")
    rows += [
        add("dropped weight at another capacity", form, "lost_weight", i, weight if i == 0 else None, n=n)
        for i, form in enumerate(orders)
    ]
    rows += [add("tokens without expert at another capacity", form, "unrouted", i, n=tokens) for i, form in enumerate(orders)]
    plain = share("lost_weight", 0, drawn) if weight is None else weight
    saved = share("lost_weight", 0, total) - share("lost_weight", 1, total)
    draws = plain - share("lost_weight", 1, drawn)
    name = "weight saved by batch priority"
    return [*rows, figures(name=name, value=saved, chance=0.0, draws=draws, bounds=(-1, 1), n=n, **common)]


def _forwards(here: Scope, notes: list[str]) -> str:
    """Which forward passes: all, or as many as hold MOST decisions, chosen by hash."""
    rows = here.store.rows(
        f"select forward, sum(selected) from decisions where run = {here.run} group by forward order by hash(forward)"
    )
    chosen: list[int] = []
    total = 0
    for forward, n in rows:
        if chosen and total + int(n) > MOST:
            break
        chosen.append(forward)
        total += int(n)
    if len(chosen) < len(rows):
        notes.append(
            f"Other capacities: computed on {len(chosen)} of {len(rows)} forward passes, chosen by hash ({total} assignments)."
        )
    return ", ".join(map(str, chosen)) or "-1"


def _sql(here: Scope, forwards: str, ratios: tuple[float, ...], multiple: int) -> str:
    values = ", ".join(f"({r})" for r in ratios)
    return f"""with chosen as (
  select a.forward, a.router, a.iteration, a.token, d.pool, a.rank, a.expert, a.weight, a.expert < r.experts as routed,
    first(a.weight order by a.rank) over (partition by a.forward, a.router, a.iteration, a.token) as best
  from assignments a join decisions d using (run, forward, router, iteration, token) join routers r using (router)
  where a.run = {here.run} and a.forward in ({forwards})),
placed as (
  select *, row_number() over (vanilla) as vanilla, row_number() over (prioritized) as prioritized from chosen where routed
  window vanilla as (partition by forward, router, iteration, pool, expert order by rank, token),
    prioritized as (partition by forward, router, iteration, pool, expert order by rank, best desc, token)),
sizes as (
  select forward, router, iteration, pool, coalesce(any_value(p.tokens), count(distinct c.token)) as n,
    count(*) filter (routed) as assignments, count(*) / count(distinct c.token) as k
  from chosen c left join (from pools where run = {here.run}) p using (forward, router, pool) group by all),
limits as (
  select s.forward, s.router, s.iteration, s.pool, ratio,
    ceil(ceil(round(s.n * coalesce(r.top_k, s.k) * ratio / r.experts, 9)) / {multiple}) * {multiple} as places,
    greatest(0, 1 - places * r.experts / s.assignments) as even
  from sizes s join routers r using (router), (values {values}) as v(ratio)),
dealt as (
  select p.forward, p.router, p.iteration, p.token, ratio, "order", weight, even,
    case "order" when 'vanilla' then vanilla else prioritized end > places as lost
  from placed p join limits l on l.forward = p.forward and l.router = p.router and l.iteration = p.iteration
    and l.pool is not distinct from p.pool, (values ('vanilla'), ('batch prioritized')) as o("order")),
by_token as (
  select router, ratio, "order", token, count(*) as n, count(*) filter (lost) as lost, sum(weight) as weight,
    coalesce(sum(weight) filter (lost), 0) as lost_weight, sum(even) as even
  from dealt group by router, ratio, "order", forward, iteration, token),
units as ({here.units_sql(groups=st.GROUPS)}),
by_unit as (
  select units.unit, router, ratio, "order", sum(lost) as lost, sum(n) as n, sum(lost_weight) as lost_weight,
    sum(weight) as weight, sum(even) as even, count(*) filter (lost = n) as unrouted, count(*) as tokens
  from by_token join tokens t using (token) join units using (sequence) group by all)"""
