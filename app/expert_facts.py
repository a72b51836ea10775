"""What the store knows about one expert: its tokens, contexts, labels and neighbours."""

from typing import Any

import numpy as np
import pandas as pd
import sampling
import stored
from pickers import Layer

Row = dict[str, Any]

LOAD = """
select expert, share, assignments, first, dropped, weight / nullif(assignments, 0) as mean_weight
from expert_load where router = ? order by expert"""
TOKENS = """
with seen as (
  select t.vocab_id, count(*) as n from decisions a join tokens t using (token) where a.router = ?{few} group by all),
mine as (
  select t.vocab_id, count(*) as n, avg(a.weight) as weight from assignments a join tokens t using (token)
  where a.router = ? and a.expert = ? and not a.dropped{few} group by all)
select v.text, mine.n as tokens, seen.n as occurrences, mine.n / seen.n as rate, mine.weight
from mine join seen using (vocab_id) join runs u on u.run = ?
left join vocab v on v.model = u.model and v.vocab_id = mine.vocab_id
order by mine.n desc limit 400"""
CONTEXTS = """
with mine as materialized (
  select token, weight from assignments where router = ? and expert = ? and rank = 0 and not dropped {only}
  order by hash(token), token limit 14),
best as materialized (select m.token, m.weight, t.sequence, t.position from mine m join tokens t using (token)),
near as (
  select * from tokens where sequence in (select sequence from best)
  and sequence between (select min(sequence) from best) and (select max(sequence) from best))
select b.token, b.weight, b.sequence, b.position, s.document, t.position::bigint - b.position as distance, v.text
from best b join near t on t.sequence = b.sequence and abs(t.position::bigint - b.position) <= 10
join sequences s on s.sequence = b.sequence join runs u on u.run = t.run
left join vocab v on v.model = u.model and v.vocab_id = t.vocab_id order by b.token, t.position"""
ONLY = """and token in (
    select t.token from tokens t join runs u using (run) join vocab v on v.model = u.model and v.vocab_id = t.vocab_id
    where v.text = ?)"""
BY_SEQUENCE_LABEL = """
with n as (
  select t.sequence, a.expert, count(*) as n from assignments a join tokens t using (token)
  where a.router = ? and not a.dropped{few} group by all)
select s.document, l.label, n.expert, sum(n)::bigint as n
from n join sequences s using (sequence) join sequence_labels l using (sequence) where l.kind = ? group by all order by all"""
BY_TOKEN_LABEL = """
with n as (
  select t.sequence, l.label, a.expert, count(*) as n
  from assignments a join tokens t using (token) join token_labels l using (token)
  where a.router = ? and not a.dropped{few} and l.kind = ? group by all)
select s.document, n.label, n.expert, sum(n)::bigint as n from n join sequences s using (sequence) group by all order by all"""
COACTIVE = """
select other, sum(share) as share, sum(n)::bigint as n from coactivation where router = ? and expert = ?
group by other order by share desc, other limit 12"""
FROM = """select 'from layer ' || layer as side, expert as other, n, share from transitions
where run = ? and stack = ? and next_layer = ? and next_expert = ? order by n desc limit 6"""
TO = """select 'to layer ' || next_layer as side, next_expert as other, n, share from transitions
where run = ? and stack = ? and layer = ? and expert = ? order by n desc limit 6"""
PROFILE = """
select a.expert, coalesce(t.vocab_id, t.position) as thing, count(*) as n from assignments a join tokens t using (token)
where a.router = ? and not a.dropped{few} group by all"""
FIND_LABEL = """
select r.router, x.layer, x.stack, x.expert, x.kind || ': ' || x.label as what, x.assignments as n, x.share, x.overall,
       x.share / nullif(x.overall, 0) as lift
from label_load x join routers r using (router) where x.run = ? and x.label ilike ? and x.assignments >= 20
order by lift desc limit 60"""
FIND_TOKEN = """
with wanted as (select vocab_id, text from vocab where model = ? and trim(replace(replace(text, '▁', ' '), 'Ġ', ' ')) ilike ?),
hit as (
  select router, expert, sum(assignments) as n from vocab_rollup
  where run = ? and vocab_id in (select vocab_id from wanted) group by all)
select h.router, l.layer, l.stack, h.expert, 'token' as what, h.n, h.n / sum(h.n) over (partition by h.router) as share,
       l.share as overall, (h.n / sum(h.n) over (partition by h.router)) / nullif(l.share, 0) as lift
from hit h join expert_load l on l.router = h.router and l.expert = h.expert qualify h.n >= 5 order by lift desc limit 60"""
DRAWS = 400


def part_of(run: Row, layer: Layer) -> tuple[str, float]:
    """The condition and the share of what is counted of a layer: see `sampling.few`."""
    return sampling.few(run, sampling.LAYER, layer.top_k or 1)


def top_tokens(run: Row, layer: Layer, expert: int, overall: float) -> tuple[pd.DataFrame, str, list[Any]]:
    """Tokens by how much more often they go to this expert than tokens do; the bound is Wilson's 95 %."""
    sql, params = TOKENS.format(few=part_of(run, layer)[0]), [layer.router, layer.router, expert, run["run"]]
    frame = stored.frame(sql, *params).copy()
    n, p, z = frame["occurrences"].clip(lower=1), frame["rate"].clip(0, 1), 1.96
    low = (p + z * z / (2 * n) - z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))) / (1 + z * z / n)
    frame["lift"], frame["at_least"] = frame["rate"] / (overall or 1), low / (overall or 1)
    return frame.sort_values("at_least", ascending=False).head(40), sql, params


def by_label(run: Row, layer: Layer, expert: int, kind: str, of_tokens: bool) -> tuple[pd.DataFrame, str, list[Any]]:
    """Share of each label's assignments that go to this expert, with a bootstrap interval over documents."""
    sql = (BY_TOKEN_LABEL if of_tokens else BY_SEQUENCE_LABEL).format(few=part_of(run, layer)[0])
    counts = stored.frame(sql, layer.router, kind)
    if counts.empty:
        return counts, sql, [layer.router, kind]
    (document, documents), (label, labels) = pd.factorize(counts["document"]), pd.factorize(counts["label"], sort=True)
    shape = len(documents) + bool((document < 0).any()), len(labels)  # those without a name are one document
    n = counts["n"].to_numpy(float)
    cell = np.where(document < 0, len(documents), document) * shape[1] + label
    every = np.bincount(cell, n, shape[0] * shape[1]).reshape(shape)
    mine = np.bincount(cell, n * (counts["expert"].to_numpy() == expert), shape[0] * shape[1]).reshape(shape)
    frame = pd.DataFrame({"label": labels, "share": mine.sum(0) / every.sum(0), "assignments": every.sum(0).astype(int)})
    frame["documents"] = (every > 0).sum(0)
    weights = np.random.default_rng(0).multinomial(shape[0], np.full(shape[0], 1 / shape[0]), size=DRAWS)
    with np.errstate(invalid="ignore", divide="ignore"):
        draws = (weights @ mine) / (weights @ every)
        frame["low"], frame["high"] = np.nanquantile(draws, 0.025, axis=0), np.nanquantile(draws, 0.975, axis=0)
    frame.loc[frame["documents"] < 3, ["low", "high"]] = np.nan
    return frame.sort_values("share", ascending=False).head(24), sql, [layer.router, kind]


def nearest(run: Row, layer: Layer, expert: int) -> tuple[pd.DataFrame, str, list[Any]]:
    """Cosine between what experts see: counts of vocabulary ids (of positions, for patches)."""
    sql = PROFILE.format(few=part_of(run, layer)[0])
    counts = stored.frame(sql, layer.router)
    thing, things = pd.factorize(counts["thing"])
    table = np.zeros((layer.experts, max(len(things), 1)), dtype=np.float32)
    if len(counts):
        table[counts["expert"].to_numpy(int), thing] = counts["n"].to_numpy(float)
    table /= np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-9)
    cosine = table @ table[expert]
    frame = pd.DataFrame({"other": np.arange(layer.experts), "cosine": cosine})
    frame = frame[frame["other"] != expert].sort_values("cosine", ascending=False).head(12)
    return frame, sql, [layer.router]


def find(run: int, model: int, text: str) -> tuple[pd.DataFrame, str, list[Any]]:
    """Experts that a label or a token prefers."""
    params: list[Any] = [run, text]
    frame = stored.frame(FIND_LABEL, *params)
    if len(frame):
        return frame, FIND_LABEL, params
    params = [model, text, run]
    return stored.frame(FIND_TOKEN, *params), FIND_TOKEN, params


def contexts(layer: Layer, expert: int, token: str) -> tuple[pd.DataFrame, str, list[Any]]:
    """Up to 14 places where this was the first expert, with ten tokens to either side."""
    sql = CONTEXTS.format(only=ONLY if token else "")
    params = [layer.router, expert, *([token] if token else [])]
    return stored.frame(sql, *params), sql, params
