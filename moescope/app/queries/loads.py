"""Load of every expert, demand and execution apart: what was asked, what ran, what was dropped; of all tokens or of some."""

from typing import Any

import pandas as pd

from moescope.app.queries import balance, sampling, store_access
from moescope.show import demand
from moescope.store import imported

KEPT = """
select stack, layer, router, expert, assignments + dropped as asked, assignments, dropped as lost,
       share, (assignments + dropped) / nullif(sum(assignments + dropped) over one, 0) as demand,
       first / nullif(sum(first) over one, 0) as first, dropped / nullif(assignments + dropped, 0) as dropped,
       weight / nullif(assignments, 0) as mean
from expert_load where run = ? window one as (partition by router) order by stack, layer, router, expert"""
COUNTED = """
with units as (select sequence, coalesce(document, sequence::varchar) as unit from sequences where run = ?),
{mine}n as (
  select a.router, a.expert, u.unit, count(*) filter ({it}) as asked, count(*) filter ({it} and not a.dropped) as assignments,
         count(*) filter ({it} and a.rank = 0) as first, sum(a.weight) filter ({it} and not a.dropped) as weight,
         count(*) filter ({it} and {part})::double as part, count(*) filter ({part})::double as every
  from assignments a join tokens t using (token) join units u using (sequence){join} where a.run = ?{few} group by all),
w as (select router, unit, sum(part) as whole, sum(every) as every from n group by all),
r as (
  select router, sum(whole) as total, sum(whole * whole) as squares, count(*) filter (whole > 0) as units, sum(every) as every
  from w group by router),
x as (
  select n.router, n.expert, sum(asked) as asked, sum(assignments) as assignments, sum(first) as first, sum(weight) as weight,
         sum(part) as part, sum(part * part) as own, sum(part * whole) as mixed, sum(n.every) as every
  from n join w using (router, unit) group by all),
y as (
  select r.*, e.expert, coalesce(asked, 0)::bigint as asked, coalesce(assignments, 0)::bigint as assignments, first, weight,
         coalesce(part, 0) as part, own, mixed, coalesce(x.every, 0) / nullif(r.every, 0) as overall,
         coalesce(part, 0) / nullif(total, 0) as part_of, {half} as half
  from experts e join r using (router) left join x on x.router = e.router and x.expert = e.expert where e.role = 'routed')
select q.stack, q.layer, y.router, y.expert, asked, assignments, asked - assignments as lost,
       assignments / nullif(sum(assignments) over one, 0) as share, asked / nullif(sum(asked) over one, 0) as demand,
       coalesce(first, 0) / nullif(sum(first) over one, 0) as first, (asked - assignments) / nullif(asked, 0) as dropped,
       weight / nullif(assignments, 0) as mean, {low} as low, {high} as high, overall, part_of - overall as difference
from y join routers q using (router) window one as (partition by y.router) order by q.stack, q.layer, y.router, y.expert"""
HALF = sampling.half_width_sql(
    "(coalesce(part, 0) / total)", "coalesce(own, 0)", "coalesce(mixed, 0)", "squares", "total", "units"
)
PARTS = {"share": "not a.dropped", "demand": "true", "first": "a.rank = 0"}
VALUES = {
    "demand": "share of what was asked for",
    "share": "share of what ran",
    "first": "share of first choices",
    "dropped": "share dropped, of what was asked of it",
    "mean": "mean weight where it ran",
}
PLAIN = {"share": "share of assignments", "first": VALUES["first"], "mean": VALUES["mean"]}  # where nothing was dropped
OF_LABEL = """mine as (
  select token, bool_or(label = ?) as it from (
    select l.token, l.label from token_labels l where l.kind = ?
    union all select t.token, l.label from tokens t join sequence_labels l using (sequence) where t.run = ? and l.kind = ?)
  group by token),
"""
SPLITS = {
    "everything": "",
    "prompts": "f.phase in ('prefill', 'forward') and not t.generated",
    "generated tokens": "(f.phase = 'decode' or t.generated)",
    "first token": "t.position = 0",
    "positions 1–15": "t.position between 1 and 15",
    "positions 16–": "t.position >= 16",
}
Row = dict[str, Any]


def drops(run: int) -> bool:
    """Whether this run dropped anything: then what was asked and what ran are two things."""
    return demand.drops(store_access.frame, run)


def values(run: int) -> dict[str, str]:
    """What a map of the load may show; demand first, where some of it was dropped; nothing that was not captured."""
    capture = store_access.rows("select capture from runs where run = ?", run)[0]["capture"]
    known = {"first": imported.ranked(capture), "mean": imported.weighted(capture)}
    return {key: words for key, words in (VALUES if drops(run) else PLAIN).items() if known.get(key, True)}


def of(run: Row, value: str, label: tuple[str, str] | None, split: str) -> tuple[pd.DataFrame, str, list[Any], float]:
    """Loads, their SQL and its parameters, and the share of the run that was counted.

    Where that is not kept: counted, of tokens of one label among all with a label of its kind, or of one split among all; with
    `overall` of those and the `difference` to it, and `low` and `high` (95 % over documents) of shares.
    """
    if not label and split == "everything" and not (value == "first" and drops(run["run"])):
        frame = store_access.frame(KEPT, run["run"])
        return (balance.shares(run, frame) if value == "share" else frame), KEPT, [run["run"]], 1.0
    few, kept = sampling.filter_sql(run, sampling.EVERY, each(run["run"]))
    sql = _sql(value, bool(label), split, few)
    mine = [label[1], label[0], run["run"], label[0]] if label else []
    params = [run["run"], *mine, run["run"]]
    return store_access.frame(sql, *params), sql, params, kept


def _sql(value: str, label: bool, split: str, few: str) -> str:
    bounds = [bound.format(share="part_of") for bound in sampling.BOUNDS]
    low, high = bounds if value in PARTS else ("null::double", "null::double")
    return COUNTED.format(
        mine=OF_LABEL if label else "", it="m.it" if label else SPLITS[split] or "true", few=few, half=HALF,
        join=" join mine m using (token)" if label else " join forwards f using (forward)" if "f." in SPLITS[split] else "",
        part=PARTS.get(value, PARTS["share"]), low=low, high=high,
    )  # fmt: skip


def each(run: int) -> float:
    """Assignments of a token, over all routers."""
    found = store_access.rows("select sum(coalesce(top_k, 1)) as each from routers where run = ?", run)
    return float(found[0]["each"] or 1)
