"""How often each expert of a layer ran for the tokens of each label, document by document."""

import math
from typing import Any

import numpy as np
import pandas as pd

from ..store import documents

BY_SEQUENCE_LABEL = """
with units as ({units}),
n as (
  select t.sequence, a.expert, count(*) as n from assignments a join tokens t using (token)
  where a.router = ? and not a.dropped{few} group by all
  union all
  select t.sequence, null, count(*) from decisions a join tokens t using (token) where a.router = ?{few} group by all)
select unit, label, expert, sum(n)::bigint as n from n join units using (sequence) group by all order by all"""
BY_TOKEN_LABEL = """
with units as ({units}),
common as (
  select l.label from token_labels l join tokens t using (token) where t.run = ? and l.kind = ? and l.label is not null
  group by l.label order by count(*) desc, l.label limit {most}),
of_token as (
  select distinct l.token, l.label from token_labels l where l.kind = ? and l.label in (from common)),
n as (
  select t.sequence, l.label, a.expert, count(*) as n
  from assignments a join tokens t using (token) join of_token l using (token)
  where a.router = ? and not a.dropped{few} group by all
  union all
  select t.sequence, l.label, null, count(*) from decisions a join tokens t using (token) join of_token l using (token)
  where a.router = ?{few} group by all)
select unit, n.label, expert, sum(n)::bigint as n from n join units using (sequence) group by all order by all"""
KINDS = """
select kind, bool_or(of_tokens) as of_tokens, count(distinct label) as n from (
  select kind, label, false as of_tokens from label_rollup where run = ?
  union all select l.kind, l.label, true from token_labels l join tokens t using (token) where t.run = ?)
group by kind order by of_tokens, kind <> 'upos', kind"""
LABELS = 60  # the commonest labels of tokens that are counted


def query(run: int, router: int, kind: str, of_tokens: bool, few: str = "") -> tuple[str, list[Any]]:
    """SQL (unit, label, expert, n) and its parameters; expert is null for tokens looked at. `few` leaves tokens out."""
    units = documents.units_sql(run, None if of_tokens else kind)
    sql = (BY_TOKEN_LABEL if of_tokens else BY_SEQUENCE_LABEL).format(few=few, units=units, most=LABELS)
    return sql, [run, kind, kind, router, router] if of_tokens else [router, router]


def counts(counts: pd.DataFrame, experts: int) -> tuple[np.ndarray, np.ndarray, Any]:
    """Rows of `query`: what ran, float32 [documents, labels, experts]; tokens looked at [documents, labels]; the labels."""
    label, labels = pd.factorize(counts["label"], sort=True)
    shape = int(counts["unit"].max()) + 1 if len(counts) else 0, len(labels)
    cell = counts["unit"].to_numpy(int) * shape[1] + label
    looked = counts["expert"].isna().to_numpy()
    every = np.bincount(cell[looked], counts["n"].to_numpy(float)[looked], math.prod(shape)).reshape(shape)
    some = (counts["expert"] < experts).to_numpy(bool, na_value=False)  # the others are no routed experts
    place = cell[some] * experts + counts["expert"].to_numpy(float, na_value=0)[some].astype(int)
    ran = np.bincount(place, counts["n"].to_numpy(float)[some], math.prod(shape) * experts)
    return ran.reshape(*shape, experts).astype(np.float32), every, labels


def lifted(ran: np.ndarray, every: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(labels, experts): share of a label's tokens for which an expert ran, its lift, and the ends of the lift's 95 % interval.

    `ran` (documents, labels, experts), `every` (documents, labels). The wider of two at each end: linearized over documents, as
    in `sampling`, and Wilson's over tokens, without which a share of all tokens would be certain. The share that the lift
    is over is taken as it is.
    """
    mine, whole, units = ran.sum(0), every.sum(0)[:, None], (every > 0).sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = mine / whole
        mixed = np.einsum("dle,dl->le", ran, every)
        off = (ran**2).sum(0) - 2 * shares * mixed + shares**2 * (every**2).sum(0)[:, None]
        half = 1.96 * np.sqrt(np.maximum(off, 0) * (units / np.maximum(units - 1, 1))[:, None]) / whole
        z = 1.96**2 / whole
        middle, wide = (shares + z / 2) / (1 + z), 1.96 * np.sqrt(shares * (1 - shares) / whole + z / whole / 4) / (1 + z)
        low, high = np.minimum(shares - half, middle - wide), np.maximum(shares + half, middle + wide)
        overall = mine.sum(0) / whole.sum()
        return shares, shares / overall, np.maximum(low, 0) / overall, np.minimum(high, 1) / overall
