"""An expert's company: who runs with it, who sees the same tokens, who came before and who comes after.

Each is counted of what was asked for, or of what ran (`moescope.show.demand`): with the first no token is left out because an
expert was full.
"""

from typing import Any

import pandas as pd

from moescope.app.queries import sampling, store_access
from moescope.app.queries.expert import experts
from moescope.app.queries.layers import Layer

Row = dict[str, Any]
Asked = tuple[pd.DataFrame, str, list[Any]]  # rows, their SQL, its parameters

COACTIVE = """
select other, sum(share) as share, sum(n)::bigint as n from coactivation where router = ? and expert = ?
group by other order by share desc, other limit 12"""
COACTIVE_ASKED = """
with mine as materialized (
  select a.forward, a.iteration, a.token from assignments a where a.router = ? and a.expert = ?{few})
select a.expert as other, count(*) / (select count(*) from mine) as share, count(*) as n
from assignments a join mine using (forward, iteration, token) where a.router = ? and a.expert <> ?
group by a.expert order by share desc, other limit 12"""
FROM = """select expert as other, router, n, share, sum(n) over () as every from transitions
where next_router = ? and next_expert = ? order by share desc, other limit 6"""
TO = """select next_expert as other, next_router as router, n, share, sum(n) over () as every from transitions
where router = ? and expert = ? order by n desc, other limit 6"""
PAIRS = """
with o as (
  select router, lead(router) over (partition by stack order by layer, router) as next_router from routers where run = ?),
pair as (select router, next_router from o where {end} = ?),
firsts as materialized (
  select a.router, a.forward, a.iteration, a.token, a.expert from assignments a
  where a.run = ? and a.rank = 0 and a.router in (select unnest([router, next_router]) from pair){few}),
n as (
  select a.expert, b.expert as next_expert, p.router, p.next_router, count(*) as n
  from pair p join firsts a on a.router = p.router
  join firsts b on b.router = p.next_router and b.forward = a.forward and b.token = a.token and b.iteration = a.iteration
  group by all),
s as (select *, n / sum(n) over (partition by expert) as share from n)"""
FROM_ASKED = (
    PAIRS
    + """
select expert as other, router, n, share, sum(n) over () as every from s where next_expert = ?
order by share desc, other limit 6"""
)
TO_ASKED = (
    PAIRS
    + """
select next_expert as other, next_router as router, n, share, sum(n) over () as every from s where expert = ?
order by n desc, other limit 6"""
)
FIRST = """
select count(*) filter (expert = ?) / nullif(count(*), 0) as share from assignments a where router = ? and rank = 0{few}"""
PROFILE_KEPT = """
with n as (select expert, vocab_id as thing, assignments::double as n from vocab_rollup where run = ? and router = ?)"""
PROFILE = """
with n as (
  select a.expert, coalesce(t.vocab_id, t.position) as thing, count(*)::double as n
  from assignments a join tokens t using (token) where a.router = ?{ran}{few} group by all)"""
COSINE = """,
norm as (select expert, sqrt(sum(n * n)) as norm from n group by expert)
select b.expert as other, sum(a.n * b.n) / any_value(x.norm * y.norm) as cosine
from n a join n b using (thing) join norm x on x.expert = a.expert join norm y on y.expert = b.expert
where a.expert = ? and b.expert <> a.expert group by b.expert order by cosine desc, other limit 12"""


def together(run: Row, layer: Layer, expert: int, counted: str) -> Asked:
    """Of its tokens, the share for which another was there as well."""
    if counted == "asked":
        return _asked(COACTIVE_ASKED.format(few=_part(run, layer)), [layer.router, expert] * 2)
    return _asked(COACTIVE, [layer.router, expert])


def before(run: Row, layer: Layer, expert: int, counted: str) -> Asked:
    """Of the tokens that had another first one layer before, the share that has this one first."""
    if counted == "asked":
        sql = FROM_ASKED.format(end="next_router", few=_part(run, layer, 2))
        return _asked(sql, [run["run"], layer.router, run["run"], expert])
    return _asked(FROM, [layer.router, expert])


def after(run: Row, layer: Layer, expert: int, counted: str) -> Asked:
    """Of the tokens that had this one first, the share that has another first one layer later."""
    if counted == "asked":
        sql = TO_ASKED.format(end="router", few=_part(run, layer, 2))
        return _asked(sql, [run["run"], layer.router, run["run"], expert])
    return _asked(TO, [layer.router, expert])


def first_share(run: Row, layer: Layer, expert: int, counted: str) -> float | None:
    """Of the first choices of a layer, the share that this expert had: so chance one layer before."""
    if counted == "asked":
        found = store_access.frame(FIRST.format(few=_part(run, layer, 1)), expert, layer.router)["share"].iloc[0]
        return None if pd.isna(found) else float(found)
    frame = store_access.frame(experts.LOAD, layer.router)
    every = float(frame["first"].sum())
    return float(frame[frame["expert"] == expert]["first"].iloc[0]) / every if every else None


def nearest(run: Row, layer: Layer, expert: int, counted: str) -> Asked:
    """Cosine between what experts see: counts of vocabulary ids (of positions, for patches)."""
    if counted == "ran" and experts.exact(layer):
        return _asked(PROFILE_KEPT + COSINE, [run["run"], layer.router, expert])
    ran = "" if counted == "asked" else " and not a.dropped"
    sql = PROFILE.format(ran=ran, few=experts.part_of(run, layer)[0]) + COSINE
    return _asked(sql, [layer.router, expert])


def _part(run: Row, layer: Layer, each: int | None = None) -> str:
    """The condition on the tokens that are counted, `each` assignments of them per token."""
    return experts.part_of(run, layer)[0] if each is None else sampling.filter_sql(run, sampling.LAYER, each)[0]


def _asked(sql: str, params: list[Any]) -> Asked:
    return store_access.frame(sql, *params), sql, params
