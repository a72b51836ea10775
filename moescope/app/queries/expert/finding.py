"""Which experts prefer a label or a token: shares of its tokens beside the same share of all tokens like it."""

from typing import Any

import pandas as pd

from moescope.app.queries import loads, sampling, store_access

Row = dict[str, Any]
LEAST, MOST = 20, 60  # tokens that must bear a label; experts that are listed
LABEL = """
with of_token as (
  select distinct t.token, l.kind, l.label from tokens t join token_labels l using (token) where t.run = ?{near}
  union
  select t.token, l.kind, l.label from tokens t join sequence_labels l using (sequence) where t.run = ?{near}),
mine as (
  select *, label ilike ? as it from of_token where kind in (select kind from of_token where label ilike ?)),
looked as (
  select a.router, m.kind, m.label, m.it, count(*) as n from decisions a join mine m using (token) where a.run = ?{few}
  group by all),
ran as (
  select a.router, a.expert, m.kind, m.label, m.it, count(*) as n from assignments a join mine m using (token)
  where a.run = ? and not a.dropped{few} group by all),
every as (
  select router, expert, kind, x.n / y.n as overall from
    (select router, expert, kind, sum(n) as n from ran group by all) x
    join (select router, kind, sum(n) as n from looked group by all) y using (router, kind))
select r.router, r.layer, r.stack, x.expert, x.kind || ': ' || x.label as what, x.n as here, y.n as tokens, x.n / y.n as share,
       e.overall, x.n / y.n / nullif(e.overall, 0) as lift, count(*) over () as found
from ran x join looked y using (router, kind, label) join every e on (e.router, e.expert, e.kind) = (x.router, x.expert, x.kind)
join routers r on r.router = x.router where x.it and y.n >= {least} and x.expert < r.experts
order by lift desc, r.router, x.expert limit {most}"""
TOKEN = """
with wanted as (select vocab_id from vocab where model = ? and trim(replace(replace(text, '▁', ' '), 'Ġ', ' ')) ilike ?),
mine as (
  select t.token, t.vocab_id is not null and t.vocab_id in (from wanted) as it from tokens t where t.run = ?{near}),
looked as (
  select a.router, count(*) filter (m.it) as n, count(*) as every from decisions a join mine m using (token)
  where a.run = ?{few} group by all),
ran as (
  select a.router, a.expert, count(*) filter (m.it) as n, count(*) as every from assignments a join mine m using (token)
  where a.run = ? and not a.dropped{few} group by all)
select r.router, r.layer, r.stack, x.expert, 'token' as what, x.n as here, y.n as tokens, x.n / y.n as share,
       x.every / y.every as overall, (x.n / y.n) / nullif(x.every / y.every, 0) as lift, count(*) over () as found
from ran x join looked y using (router) join routers r using (router)
where x.n >= 5 and y.n > 0 and x.expert < r.experts order by lift desc, r.router, x.expert limit {most}"""
EXAMPLES = """
select kind, mode(label) as label from (
  select l.kind, l.label from sequence_labels l join sequences s using (sequence) where s.run = ?
  union all
  select l.kind, l.label from (select * from token_labels where kind in ('upos', 'role', 'modality') limit 20000) l
  join tokens t using (token) where t.run = ?)
group by kind order by kind limit 3"""


def find(run: Row, text: str) -> tuple[pd.DataFrame, str, list[Any]]:
    """Experts that a label (of sequences or of tokens) prefers, or where there is none of that name, a token."""
    few, near = (sampling.filter_sql(run, sampling.EVERY, loads.each(run["run"]), name)[0] for name in ("a.", "t."))
    number = run["run"]
    sql = LABEL.format(few=few, near=near, least=LEAST, most=MOST)
    params: list[Any] = [number, number, text, text, number, number]
    frame = store_access.frame(sql, *params)
    if frame.empty:
        written = store_access.spelling(number).written(text)
        sql, params = TOKEN.format(few=few, near=near, most=MOST), [run["model"], written, number, number, number]
        frame = store_access.frame(sql, *params)
    return frame, sql, params


def kept(run: Row) -> float:
    """The share of the run that is counted."""
    return sampling.filter_sql(run, sampling.EVERY, loads.each(run["run"]))[1]


def examples(run: int) -> list[str]:
    """A label of each of the first kinds that this run has."""
    return [str(row["label"]) for row in store_access.rows(EXAMPLES, run, run) if row["label"]]
