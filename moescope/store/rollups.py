"""Small sums that answer the everyday questions without a scan, made once when a run joins its store."""

import duckdb

_PAIRS = """
insert into coactivation_rollup
select {run}, router, least(a, b), greatest(a, b), sum(n)::ubigint
from ({pairs}) where a <> b group by router, least(a, b), greatest(a, b)"""

_LOAD = """
insert into load_rollup
select run, router, expert, count(*) filter (not dropped), count(*) filter (not dropped and rank = 0),
       count(*) filter (dropped), coalesce(sum(weight) filter (not dropped), 0)
from assignments where run = {run} group by all"""

_DECISIONS = """
insert into decision_rollup
select run, router, count(*), sum(selected), count(*) filter (selected = 0), avg(entropy) filter (isfinite(entropy)),
       stddev_pop(entropy) filter (isfinite(entropy)), avg(margin) filter (isfinite(margin)),
       avg(log_sum_exp::double * log_sum_exp) filter (isfinite(log_sum_exp)),
       count(*) filter (not isfinite(entropy) or not isfinite(log_sum_exp))
from decisions where run = {run} group by all"""

_TRANSITIONS = """
insert into transition_rollup
with ordered as (
  select router, lead(router) over (partition by stack order by layer, router) as next_router from routers where run = {run}),
first as (select router, forward, iteration, token, expert from assignments where run = {run} and rank = 0 and not dropped)
select {run}, a.router, b.router, a.expert, b.expert, count(*)
from first a join ordered o on o.router = a.router
join first b on b.router = o.next_router and b.forward = a.forward and b.token = a.token and b.iteration = a.iteration
group by all"""

_LABELS = """
insert into label_rollup
with by_sequence as (
  select a.router, t.sequence, a.expert, count(*) as n, count(*) filter (rank = 0) as first, sum(weight) as weight
  from assignments a join tokens t using (token) where a.run = {run} and not a.dropped group by all),
by_label as (
  select router, kind, label, expert, sum(n) as n, sum(first) as first, sum(weight) as weight
  from by_sequence join sequence_labels using (sequence) group by all),
cells as (select distinct b.router, b.kind, b.label, e.expert from by_label b join experts e using (router))
select {run}, c.*, coalesce(n, 0), coalesce(first, 0), coalesce(weight, 0)
from cells c left join by_label b using (router, kind, label, expert)"""


def add_rollups(con: duckdb.DuckDBPyConnection, run: int) -> None:
    """Replace the kept sums of `run` by what its rows say now."""
    for table in ("load", "coactivation", "transition", "label", "decision"):
        con.execute(f"delete from {table}_rollup where run = {run}")
    for statement in (_LOAD, _DECISIONS, _TRANSITIONS, _LABELS):
        con.execute(statement.format(run=run))
    if pairs := _pairs(con):
        con.execute(_PAIRS.format(run=run, pairs=pairs.format(run=run)))


def _pairs(con: duckdb.DuckDBPyConnection) -> str:
    """Counts of pairs of ranks, by physical table: one grouping per pair is far cheaper than a self-join."""
    from .routes import widths

    wide = [
        f"select router, e{i} as a, e{j} as b, count(*) as n from routes_{k} where run = {{run}} "
        f"and (dropped & {1 << i | 1 << j}) = 0 and e{i} is not null and e{j} is not null group by all"
        for k in widths(con) for i in range(k) for j in range(i + 1, k)
    ]  # fmt: skip
    long = (
        "select x.router, x.expert as a, y.expert as b, count(*) as n from assignments_long x join assignments_long y "
        "using (run, forward, router, iteration, token) where run = {run} and x.expert < y.expert and not x.dropped "
        "and not y.dropped group by all"
    )
    return " union all ".join([*wide, long])
