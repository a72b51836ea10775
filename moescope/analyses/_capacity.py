"""What capacity would drop: every decision dealt into buffers again, at several capacity ratios.

Places per expert: C = ceil(n k ratio / E), rounded up to a multiple of 4 (V-MoE, google-research/vmoe compute_capacity), with
n the tokens of the pool (of the whole forward pass where the run had no pools). First choices of all tokens take places before
second choices. `vanilla` takes tokens in their order; `batch prioritized` (V-MoE 2106.05974, section 4) by their largest
weight. Both drop as many assignments; they differ in which: see the share of weight dropped and of tokens left without expert.
"""

import pandas as pd

from ._scope import Scope

RATIOS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
MOST = 1_000_000  # assignments dealt again, in whole forward passes
SOURCE = "V-MoE 2106.05974; compute_capacity rounds up to a multiple of 4"


def what_if(here: Scope, notes: list[str], ratios: tuple[float, ...] = RATIOS, multiple: int = 4) -> tuple[pd.DataFrame, str]:
    """Frame (stack, layer, router, ratio, order, dropped_share, dropped_weight, unrouted, n) and its SQL."""
    sql = _sql(here, _forwards(here, notes), ratios, multiple)
    frame = here.store.sql(sql).df()
    frame["source"] = SOURCE
    return frame, sql


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
  select a.forward, a.router, a.iteration, a.token, d.pool, a.rank, a.expert, a.weight,
    first(a.weight order by a.rank) over (partition by a.forward, a.router, a.iteration, a.token) as best
  from assignments a join decisions d using (run, forward, router, iteration, token)
  where a.run = {here.run} and a.forward in ({forwards})),
placed as (
  select *, row_number() over (vanilla) as vanilla, row_number() over (prioritized) as prioritized from chosen
  window vanilla as (partition by forward, router, iteration, pool, expert order by rank, token),
    prioritized as (partition by forward, router, iteration, pool, expert order by rank, best desc, token)),
sizes as (
  select forward, router, iteration, pool, coalesce(any_value(p.tokens), count(distinct c.token)) as n,
    count(*) / count(distinct c.token) as k
  from chosen c left join (from pools where run = {here.run}) p using (forward, router, pool) group by all),
limits as (
  select s.forward, s.router, s.iteration, s.pool, ratio,
    ceil(ceil(round(s.n * coalesce(r.top_k, s.k) * ratio / r.experts, 9)) / {multiple}) * {multiple} as places
  from sizes s join routers r using (router), (values {values}) as v(ratio)),
dealt as (
  select p.forward, p.router, p.iteration, p.token, ratio, "order", weight,
    case "order" when 'vanilla' then vanilla else prioritized end > places as lost
  from placed p join limits l on l.forward = p.forward and l.router = p.router and l.iteration = p.iteration
    and l.pool is not distinct from p.pool, (values ('vanilla'), ('batch prioritized')) as o("order")),
by_token as (
  select router, ratio, "order", count(*) as n, count(*) filter (lost) as lost, sum(weight) as weight,
    coalesce(sum(weight) filter (lost), 0) as lost_weight
  from dealt group by router, ratio, "order", forward, iteration, token)
select any_value(stack) as stack, any_value(layer) as layer, router, ratio, "order", sum(lost) / sum(n) as dropped_share,
  sum(lost_weight) / nullif(sum(weight), 0) as dropped_weight, avg((lost = b.n)::int) as unrouted, count(*) as n
from by_token b join routers using (router) group by router, ratio, "order"
order by stack, layer, router, ratio, "order" desc"""
