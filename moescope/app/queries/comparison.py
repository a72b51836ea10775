"""Two runs side by side: routers matched by stack and layer, tokens by where they stand in the same input."""

from typing import Any

import pandas as pd

from moescope.app.queries import store_access

PAIRS = """
with r as (select *, row_number() over (partition by run, stack, block_type, layer order by router) as nth from routers)
select a.router as a, b.router as b, a.stack, a.layer, a.experts, b.experts as experts_b
from r a join r b on a.stack is not distinct from b.stack and a.layer is not distinct from b.layer
  and a.block_type is not distinct from b.block_type and a.nth = b.nth
where a.run = ? and b.run = ? order by a.stack, a.layer, a.router"""
LOADS = """
with m as ({pairs}),
l as (
  select router, expert, {share} as share from expert_load where run in (?, ?) window one as (partition by router))
select m.a as router, m.stack, m.layer, a.expert, a.share as share_a, b.share as share_b, b.share - a.share as difference
from m join l a on a.router = m.a join l b on b.router = m.b and b.expert = a.expert order by all"""
SHARES = {"asked": "(assignments + dropped) / nullif(sum(assignments + dropped) over one, 0)", "ran": "share"}
SEQUENCES = """
select a.sequence as a, b.sequence as b, a.document, a.stack, coalesce(a.domain, a.class, '') as label, left(a.text, 80) as text
from sequences a join sequences b on b.run = ? and a.source is not distinct from b.source
  and a.source_row is not distinct from b.source_row
  and a.part is not distinct from b.part and a.beam is not distinct from b.beam and {stacks}
where a.run = ? order by a.sequence limit {limit}"""
SAME_STACK = "a.stack is not distinct from b.stack"
COMMON = """
select count(*) filter (t.run = ?) as a, count(*) filter (t.run = ?) as b,
       count(*) filter (t.run = ? and t.sequence in (select a from s)) as a_shared,
       count(*) filter (t.run = ? and t.sequence in (select b from s)) as b_shared
from tokens t where t.run in (?, ?)"""
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
select p.a as token, p.document, p.position, m.a as router, m.stack, m.layer, one.expert as expert_a, two.expert as expert_b
from pair p join one on one.token = p.a join m on m.a = one.router and m.stack is not distinct from p.stack
join two on two.token = p.b and two.router = m.b"""
AGREE = """
with t as ({tokens}),
ca as (select router, expert_a as e, count(*) as n from t group by all),
cb as (select router, expert_b as e, count(*) as n from t group by all),
pa as (select router, e, n / sum(n) over (partition by router) as p from ca),
pb as (select router, e, n / sum(n) over (partition by router) as p from cb),
c as (select pa.router, sum(pa.p * pb.p) as chance from pa join pb using (router, e) group by all),
d as (select router, stack, layer, document, count(*) as n, count(*) filter (expert_a = expert_b) as same from t group by all)
select d.router, d.stack, d.layer, sum(same) / sum(n) as agreement, any_value(c.chance) as chance,
       sum(n)::bigint as tokens, count(*) as documents,
       list(same order by document) as same, list(n order by document) as sizes
from d left join c using (router) group by all order by d.stack, d.layer, d.router"""
CHANGED = """
with t as ({tokens}),
n as (select token, count(*) filter (expert_a <> expert_b) as changed, count(*) as layers from t group by token)
select n.token, x.sequence, x.position, x.text, x.document, n.changed, n.layers, n.changed / n.layers as share,
       count(*) over () as found
from n join token_text x using (token) where n.changed > 0 order by n.changed desc, n.token limit {most}"""
LIMIT, MOST, SHOWN = 200, 200, 300  # sequences compared token by token; tokens that are listed; sequences to choose from


def _tokens() -> str:
    return TOKENS.format(sequences=SEQUENCES.format(limit=LIMIT, stacks=SAME_STACK), pairs=PAIRS)


def _params(a: int, b: int) -> list[Any]:
    return [b, a, a, b, a, b]


def alike(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """True where expert 3 of one run may be expert 3 of the other: one family, and the same routers with as many experts."""
    pairs = store_access.rows(PAIRS, a["run"], b["run"])
    counts = [store_access.rows("select count(*) as n from routers where run = ?", run["run"])[0]["n"] for run in (a, b)]
    same = all(pair["experts"] == pair["experts_b"] for pair in pairs)
    return a["family"] == b["family"] and same and counts == [len(pairs)] * 2


def loads(a: int, b: int, counted: str = "ran") -> tuple[pd.DataFrame, str, list[Any]]:
    """Share of every expert in both runs, of what was asked for or of what ran (`demand.COUNTED`)."""
    sql, params = LOADS.format(pairs=PAIRS, share=SHARES[counted]), [a, b, a, b]
    return store_access.frame(sql, *params), sql, params


def agreement(a: int, b: int) -> tuple[pd.DataFrame, str, list[Any]]:
    """By layer, the share of tokens with the same first expert, what chance gives, and a bootstrap interval over documents."""
    import numpy as np

    from moescope import statistics  # SciPy is behind it

    sql = AGREE.format(tokens=_tokens())
    frame = store_access.frame(sql, *_params(a, b)).copy()
    counts = [np.stack([same, n], -1).astype(float) for same, n in zip(frame["same"], frame["sizes"], strict=True)]
    bounds = [statistics.over_documents(lambda x: x[..., 0] / x[..., 1], one, bounds=(0, 1))[1:] for one in counts]
    frame["low"], frame["high"] = [float(low) for low, _ in bounds], [float(high) for _, high in bounds]
    return frame.drop(columns=["same", "sizes"]), sql, _params(a, b)


def changed(a: int, b: int) -> tuple[pd.DataFrame, str, list[Any]]:
    """Tokens whose first expert changed, those in most layers first; `found` says how many there are."""
    sql = CHANGED.format(tokens=_tokens(), most=MOST)
    return store_access.spelling(a).column(store_access.frame(sql, *_params(a, b))), sql, _params(a, b)


def shared(a: int, b: int, stack: str | None = None, other: str | None = None) -> list[dict[str, Any]]:
    """Inputs that both runs have: of one stack in A and of another in B, or of the same with None."""
    if stack is None:
        return store_access.rows(SEQUENCES.format(limit=SHOWN, stacks=SAME_STACK), b, a)
    stacks = "coalesce(a.stack, '') = ? and coalesce(b.stack, '') = ?"
    return store_access.rows(SEQUENCES.format(limit=SHOWN, stacks=stacks), b, stack, other or "", a)


def overlap(a: int, b: int) -> dict[str, int]:
    """Tokens of A and of B, and of each those in sequences that both have (`a_shared`, `b_shared`)."""
    pairs = SEQUENCES.format(limit=1 << 40, stacks=SAME_STACK)
    sql = f"with s as ({pairs}){COMMON}"
    return {name: int(n) for name, n in store_access.rows(sql, b, a, a, b, a, b, a, b)[0].items()}
