"""A training run as it ended: load, dead experts and evenness over its last steps, by step, and whether routing collapsed."""

from typing import Any

import pandas as pd

from moescope.app.queries import store_access

STEPS = "select distinct step from training where run = ? and phase = 'train' order by step"
LAST = 10  # steps at most, and at most a tenth of those recorded
COLLAPSED = 0.5  # of even: load entropy below it is collapse, as for `moescope.RoutingCallback`; or so many experts dead
COUNTED = """
with n as (
  select a.router, a.expert, count(*) filter (not a.dropped) as assignments, count(*) as asked
  from assignments a join forwards f using (forward)
  where a.run = ? and f.phase = 'train' and f.step between ? and ? group by all)
select r.stack, r.layer, r.router, e.expert, coalesce(n.asked, 0) as asked, coalesce(n.assignments, 0) as assignments,
       coalesce(n.asked, 0) - coalesce(n.assignments, 0) as lost,
       coalesce(n.assignments, 0) / nullif(sum(n.assignments) over one, 0) as share,
       coalesce(n.asked, 0) / nullif(sum(n.asked) over one, 0) as demand
from routers r join experts e using (router) left join n on n.router = e.router and n.expert = e.expert
where r.run = ? and e.role = 'routed' window one as (partition by r.router) order by r.stack, r.layer, r.router, e.expert"""
MEASURED = """
select t.router, r.experts, min(t.dead) as dead, avg(t.load_entropy) as even
from training t join routers r using (router) where t.run = ? and t.phase = 'train' and t.step between ? and ?
group by all order by t.router"""
BY_STEP = """
select f.step, a.expert, count(*) as assignments, count(*) / sum(count(*)) over (partition by f.step) as share
from assignments a join forwards f using (forward)
where a.router = ? and f.phase = 'train' and not a.dropped and list_contains(?::int[], f.step) group by f.step, a.expert
order by f.step, a.expert"""
SINCE = """
with h as (
  select t.router, t.step, coalesce(t.load_entropy < ?, false) or t.dead * 2 >= r.experts as bad
  from training t join routers r using (router) where t.run = ? and t.phase = 'train'),
s as (select *, bool_and(bad) over (partition by router order by step desc rows unbounded preceding) as stays from h)
select router, min(step) as step from s where stays group by router order by step, router"""
Row = dict[str, Any]


def steps(run: int) -> list[int]:
    """The steps of training that were recorded; none, or one, where the run is no training."""
    return [int(row["step"]) for row in store_access.rows(STEPS, run)]


def last(run: int) -> tuple[int, int] | None:
    """The first and the last of the steps by which a training run is judged; None where it is none."""
    known = steps(run)
    return None if len(known) < 2 else (known[-max(min(LAST, len(known) // 10), 1)], known[-1])


def loads(run: int) -> tuple[pd.DataFrame, str, list[Any]]:
    """What every expert was asked and ran in the last steps."""
    ends = last(run) or (0, 0)
    params = [run, *ends, run]
    return store_access.frame(COUNTED, *params), COUNTED, params


def since(run: int) -> dict[int, int]:
    """Of the routers that ended collapsed, the step from which on every recorded one was: {router: step}, the first first."""
    ended = routers(run)
    lost = {int(router) for router in ended[ended["collapsed"]]["router"]}
    return {int(r["router"]): int(r["step"]) for r in store_access.rows(SINCE, COLLAPSED, run) if r["router"] in lost}


def routers(run: int) -> pd.DataFrame:
    """Per router at the end: experts, dead ones, evenness (load entropy of its maximum), and whether it collapsed.

    Dead is an expert that ran for no token in any of the last steps. Where decisions were not kept: the least number of dead
    experts of these steps, and their mean evenness, as they were measured.
    """
    ends = last(run) or (0, 0)
    found = store_access.frame(MEASURED, run, *ends)
    counted = loads(run)[0]
    if counted["assignments"].sum():
        import numpy as np

        share = counted["share"].fillna(0).to_numpy(float)
        bits = -np.where(share > 0, share * np.log(np.where(share > 0, share, 1)), 0)
        by = counted.assign(dead=counted["assignments"] == 0, bits=bits).groupby("router")
        own = by.agg(dead=("dead", "sum"), bits=("bits", "sum"), many=("expert", "size"), ran=("assignments", "sum"))
        own = own[own["ran"] > 0]
        even = own["bits"] / np.log(own["many"].clip(lower=2))
        found = found.set_index("router")
        found.loc[own.index.intersection(found.index), "dead"] = own["dead"]
        found.loc[own.index.intersection(found.index), "even"] = even
        found = found.reset_index()
    return found.assign(collapsed=(found["even"] < COLLAPSED) | (found["dead"] >= COLLAPSED * found["experts"]))


def kept(known: list[int], most: int) -> list[int]:
    """Every n-th of the steps, the last one among them."""
    return known[::-1][:: -(-len(known) // most)][::-1] if known else []


def by_step(router: int, some: list[int], experts: int) -> tuple[pd.DataFrame, str, list[Any]]:
    """Share of every expert in each of these steps: 0 where it did not run."""
    params: list[Any] = [router, some]
    frame = store_access.frame(BY_STEP, router, tuple(some)) if some else pd.DataFrame()
    if frame.empty:
        return frame, BY_STEP, params
    every = pd.MultiIndex.from_product([sorted(frame["step"].unique()), range(experts)], names=["step", "expert"])
    return frame.set_index(["step", "expert"]).reindex(every, fill_value=0).reset_index(), BY_STEP, params
