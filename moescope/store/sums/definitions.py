"""Small sums that answer the everyday questions without a scan, kept for every run.

Each is said once as SQL over the rows; a shard brings its own (from_shard.py), and then they are only added up.
"""

from collections.abc import Mapping

import duckdb

from ..physical.tables import STEPS, ran, widths
from ..schema import here

ADDED = ("load", "decision", "transition", "label", "coactivation")

_LOAD = """
select router, expert, count(*) filter (not dropped) as assignments, count(*) filter (not dropped and rank = 0) as first,
       count(*) filter (dropped) as dropped, coalesce(sum(weight) filter (not dropped), 0) as weight
from assignments where run = {run} group by all"""

_MOMENTS = ", ".join(
    f"count(*) filter (isfinite({x})) as {x}_n, sum({x}::double) filter (isfinite({x})) as {x}_sum, "
    f"sum({x}::double * {x}) filter (isfinite({x})) as {x}_squares"
    for x in STEPS
)
_DECISION = f"""
select router, count(*) as decisions, sum(selected) as selected, count(*) filter (selected = 0) as unrouted, {_MOMENTS},
       count(*) filter (not isfinite(entropy) or not isfinite(log_sum_exp)) as nonfinite
from decisions where run = {{run}} group by all"""

_TRANSITION = """
select a.router, b.router as next_router, a.expert, b.expert as next_expert, count(*) as n
from {first} a join {ordered} o on o.router = a.router
join {first} b on b.router = o.next_router and b.forward = a.forward and b.token = a.token and b.iteration = a.iteration
group by all"""
_ORDERED = """(
  select router, lead(router) over (partition by stack order by layer, router) as next_router from routers where run = {run})"""
_FIRST = "(select router, forward, iteration, token, expert from assignments where run = {run} and rank = 0 and not dropped)"

_LABEL = """
select router, kind, label, expert, sum(n) as assignments, sum(first) as first, sum(weight) as weight
from (
  select a.router, t.sequence, a.expert, count(*) as n, count(*) filter (rank = 0) as first, sum(weight) as weight
  from assignments a join tokens t using (token) where a.run = {run} and t.run = {run} and not a.dropped group by all)
join sequence_labels using (sequence) group by all"""

_VOCAB = """
select {run}::uinteger as run, router, vocab_id, expert, count(*)::ubigint as assignments,
       (count(*) filter (rank = 0))::ubigint as first
from assignments a join tokens t using (token)
where a.run = {run} and t.run = {run} and not dropped and vocab_id is not null group by all"""

_KEEP = {
    "load": "select {run}, router, expert, sum(assignments), sum(first), sum(dropped), sum(weight) from {rows} group by all",
    "coactivation": "select {run}, router, expert, other, sum(n) from {rows} group by all",
    "transition": "select {run}, router, next_router, expert, next_expert, sum(n) from {rows} group by all",
    "label": """
with kept as (
  select router, kind, label, expert, sum(assignments) as n, sum(first) as first, sum(weight) as weight
  from {rows} group by all),
cells as (select distinct k.router, k.kind, k.label, e.expert from kept k join experts e using (router))
select {run}, c.*, coalesce(n, 0), coalesce(first, 0), coalesce(weight, 0)
from cells c left join kept using (router, kind, label, expert)""",
    "decision": """
select {run}, router, sum(decisions), sum(selected), sum(unrouted), sum(entropy_sum) / nullif(sum(entropy_n), 0) as mean,
       sqrt(greatest(sum(entropy_squares) / nullif(sum(entropy_n), 0) - mean * mean, 0)),
       sum(margin_sum) / nullif(sum(margin_n), 0), sum(log_sum_exp_squares) / nullif(sum(log_sum_exp_n), 0), sum(nonfinite)
from {rows} group by router""",
}


def add_rollups(con: duckdb.DuckDBPyConnection, run: int, sums: Mapping[str, str] | None = None) -> None:
    """Replace the kept sums of `run`: by `sums` (SQL for the shards' own, by rollup) where they are given, else by its rows."""
    for name in ADDED:
        con.execute(f"delete from {name}_rollup where run = {run}")
        rows = (sums or {}).get(name) if sums is not None else counted(con, run, name)
        if rows:
            con.execute(f"insert into {name}_rollup " + _KEEP[name].format(run=run, rows=f"({rows})"))


def add_vocabulary(con: duckdb.DuckDBPyConnection, run: int) -> None:
    """Replace what `vocab_rollup` says of a run by what its rows say."""
    kept = here(con, "vocab_rollup")
    con.execute(f"delete from {kept} where run = {run}")
    con.execute(f"insert into {kept} {vocabulary(run)}")


def vocabulary(run: int) -> str:
    """SQL that counts `vocab_rollup` from the rows of a run."""
    return _VOCAB.format(run=run)


def counted(con: duckdb.DuckDBPyConnection, run: int, name: str) -> str:
    """SQL that counts one of the kept sums from the rows of a run."""
    if name == "coactivation":
        return _pairs(con).format(run=run)
    if name == "transition":
        return _TRANSITION.format(first=_FIRST.format(run=run), ordered=_ORDERED.format(run=run))
    return {"load": _LOAD, "decision": _DECISION, "label": _LABEL}[name].format(run=run)


def _pairs(con: duckdb.DuckDBPyConnection) -> str:
    """Counts of pairs of ranks, by physical table: one grouping per pair is far cheaper than a self-join."""
    wide = [
        f"select router, least(e{i}, e{j}) as expert, greatest(e{i}, e{j}) as other, count(*) as n from routes_{k} "
        f"where run = {{run}} and e{i} <> e{j} and {ran(there, i, j)} group by all"
        for k, there in widths(con).items() for i in range(k) for j in range(i + 1, k)
    ]  # fmt: skip
    long = (
        "select x.router, x.expert, y.expert as other, count(*) as n from assignments_long x join assignments_long y "
        "using (run, forward, router, iteration, token) where run = {run} and x.expert < y.expert and not x.dropped "
        "and not y.dropped group by all"
    )
    return " union all ".join([*wide, long])
