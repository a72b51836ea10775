"""Two runs side by side: routers matched by stack and layer, tokens by where they stand in the same input."""

from typing import Any

import pandas as pd
import stored

LOADS = """
with a as (from expert_load where run = ?), b as (from expert_load where run = ?)
select a.stack, a.layer, a.expert, a.share as share_a, b.share as share_b, b.share - a.share as difference
from a join b on a.stack is not distinct from b.stack and a.layer = b.layer and a.expert = b.expert order by all"""
PAIRS = """
select ra.router as a, rb.router as b, ra.stack, ra.layer, ra.experts, rb.experts as experts_b
from routers ra join routers rb on ra.stack is not distinct from rb.stack and ra.layer = rb.layer
  and ra.site is not distinct from rb.site
where ra.run = ? and rb.run = ? order by ra.stack, ra.layer"""
SEQUENCES = """
select a.sequence as a, b.sequence as b, a.document, a.stack, coalesce(a.domain, a.class, '') as label, left(a.text, 80) as text
from sequences a join sequences b on b.run = ? and a.source is not distinct from b.source
  and a.source_row is not distinct from b.source_row
  and a.part is not distinct from b.part and a.beam is not distinct from b.beam and a.stack is not distinct from b.stack
where a.run = ? order by a.sequence limit {limit}"""
TOKENS = """
with s as ({sequences}),
pair as (
  select ta.token as a, tb.token as b, s.document, s.stack, ta.position from s
  join tokens ta on ta.sequence = s.a join tokens tb on tb.sequence = s.b and tb.position = ta.position
  where ta.vocab_id is not distinct from tb.vocab_id),
one as (select a.token, a.router, a.expert from assignments a
  where a.run = ? and a.rank = 0 and a.token in (select a from pair)),
two as (select a.token, a.router, a.expert from assignments a
  where a.run = ? and a.rank = 0 and a.token in (select b from pair)),
m as ({pairs})
select p.a as token, p.document, p.position, m.stack, m.layer, one.expert as expert_a, two.expert as expert_b
from pair p join one on one.token = p.a join m on m.a = one.router and m.stack is not distinct from p.stack
join two on two.token = p.b and two.router = m.b"""
AGREE = """
with t as ({tokens}),
ca as (select stack, layer, expert_a as e, count(*) as n from t group by all),
cb as (select stack, layer, expert_b as e, count(*) as n from t group by all),
pa as (select stack, layer, e, n / sum(n) over (partition by stack, layer) as p from ca),
pb as (select stack, layer, e, n / sum(n) over (partition by stack, layer) as p from cb),
c as (select pa.stack, pa.layer, sum(pa.p * pb.p) as chance from pa join pb using (stack, layer, e) group by all),
d as (select stack, layer, document, count(*) as n, count(*) filter (expert_a = expert_b) as same from t group by all)
select d.stack, d.layer, sum(same) / sum(n) as agreement, any_value(c.chance) as chance,
       sum(n)::bigint as tokens, count(*) as documents,
       list(same / n) as per_document, list(n) as sizes
from d left join c using (stack, layer) group by d.stack, d.layer order by d.stack, d.layer"""
CHANGED = """
with t as ({tokens}),
n as (select token, count(*) filter (expert_a <> expert_b) as changed, count(*) as layers from t group by token)
select n.token, x.sequence, x.position, x.text, x.document, n.changed, n.layers, n.changed / n.layers as share
from n join token_text x using (token) order by n.changed desc, n.token limit 200"""
LIMIT = 200  # sequences that are compared token by token


def _tokens() -> str:
    return TOKENS.format(sequences=SEQUENCES.format(limit=LIMIT), pairs=PAIRS)


def _params(a: int, b: int) -> list[Any]:
    return [b, a, a, b, a, b]


def loads(a: int, b: int) -> tuple[pd.DataFrame, str, list[Any]]:
    """Share of every expert in both runs."""
    return stored.frame(LOADS, a, b), LOADS, [a, b]


def agreement(a: int, b: int) -> tuple[pd.DataFrame, str, list[Any]]:
    """By layer, the share of tokens with the same first expert, what chance gives, and a bootstrap interval over documents."""
    import numpy as np

    sql = AGREE.format(tokens=_tokens())
    frame = stored.frame(sql, *_params(a, b)).copy()
    rng, bounds = np.random.default_rng(0), []
    for same, sizes in zip(frame["per_document"], frame["sizes"], strict=True):
        share, n = np.asarray(same, dtype=float), np.asarray(sizes, dtype=float)
        pick = rng.integers(0, len(n), (400, len(n)))
        bounds.append(
            np.quantile((share * n)[pick].sum(1) / n[pick].sum(1), [0.025, 0.975]) if len(n) > 2 else [np.nan, np.nan]
        )
    frame["low"], frame["high"] = [x[0] for x in bounds], [x[1] for x in bounds]
    return frame.drop(columns=["per_document", "sizes"]), sql, _params(a, b)


def changed(a: int, b: int) -> tuple[pd.DataFrame, str, list[Any]]:
    """Tokens whose first expert changed in most layers."""
    sql = CHANGED.format(tokens=_tokens())
    return stored.frame(sql, *_params(a, b)), sql, _params(a, b)


def shared(a: int, b: int) -> list[dict[str, Any]]:
    """Sequences that both runs have."""
    return stored.rows(SEQUENCES.format(limit=300), b, a)
