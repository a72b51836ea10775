"""Tokens of a sequence and their routes through a router, asked of whatever holds the store."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from ..store import spelling

Ask = Callable[..., pd.DataFrame]  # (sql, *params): the rows
PAGE = 1500  # tokens shown at once
TOKENS = """
select t.token, t.position, t.unit, coalesce(t.text, '#' || t.vocab_id, case when t.unit = 'text' then '?' end) as text,
       t.generated, t.special, t.y, t.x
from token_text t where t.sequence = ? order by t.position limit ? offset ?"""
HOME = "select run from sequences where sequence = ?"
ROUTES = """
select token, list(expert order by coalesce(rank, slot)) as experts,
  list(weight order by coalesce(rank, slot)) as weights, list(dropped order by coalesce(rank, slot)) as drops
from assignments where router = ? and token between ? and ? and iteration = 0
  and token in (select token from tokens where sequence = ?){step}
group by token, forward qualify row_number() over (partition by token order by forward desc) = 1"""
DECISIONS = """
select token, entropy, margin from decisions
where router = ? and token between ? and ? and iteration = 0{step}
qualify row_number() over (partition by token order by forward desc) = 1"""
LABELS = """
select token, string_agg(kind || ' ' || label, ' · ' order by kind) as labels,
       max(case when kind = 'frame' then try_cast(label as integer) end) as frame,
       max(case when kind = 'medium' then label end) as medium, max(case when kind = 'view' then label end) as view
from token_labels where token between ? and ? group by token"""
ROUTE = """
select r.stack, r.layer, r.router, r.experts, a.iteration, a.rank, a.expert, a.weight, a.dropped, a.buffer_position
from assignments a join routers r using (router) where a.token = ? and a.run = ?{step}
order by r.layer, a.iteration, coalesce(a.rank, a.slot)"""
SURE = """
select r.layer, d.router, d.iteration, d.entropy, d.margin, d.log_sum_exp, d.selected, f.phase
from decisions d join routers r using (router) left join forwards f using (forward) where d.token = ? and d.run = ?{step}
order by r.layer, d.iteration"""
ABOUT = """
select t.token, t.sequence, t.position, t.unit,
       coalesce(t.text, '#' || t.vocab_id, case when t.unit = 'text' then '?' end) as text,
       t.vocab_id, t.y, t.x, t.generated, t.special, t.document, t.stack,
       (select string_agg(distinct kind || ': ' || label, ' · ') from labels l where l.token = t.token) as labels
from token_text t where t.token = ? and t.run = ?"""


def about(ask: Ask, rows: Callable[..., list[dict[str, Any]]], token: int, run: int) -> dict[str, Any] | None:
    """What is known of one token: the row of ABOUT, its text as one reads it; None where the run has no such token."""
    found = rows(ABOUT, token, run)
    return found[0] | {"text": spelling.of(ask, run)(found[0]["text"])} if found else None


def at(sql: str, forward: int | None) -> str:
    """The query of one forward, of all (of the last one, where a token has one row) with None."""
    return sql.format(step="" if forward is None else f" and forward = {int(forward)}")


def tokens(ask: Ask, sequence: int, router: int, begin: int = 0, most: int = PAGE, forward: int | None = None) -> pd.DataFrame:
    """So many tokens of a sequence from `begin` on with their route through one router: in one forward, or their last."""
    return routed(ask, texts(ask, sequence, begin, most), sequence, router, forward)


def texts(ask: Ask, sequence: int, begin: int = 0, most: int = PAGE) -> pd.DataFrame:
    """So many tokens of a sequence from `begin` on: columns of TOKENS and LABELS."""
    frame = ask(TOKENS, sequence, most, begin)
    if frame.empty:
        return frame
    frame = spelling.of(ask, int(ask(HOME, sequence)["run"].iloc[0])).column(frame)
    frame = frame.merge(ask(LABELS, int(frame["token"].min()), int(frame["token"].max())), on="token", how="left")
    return frame.assign(labels=frame["labels"].fillna(""))


def routed(ask: Ask, frame: pd.DataFrame, sequence: int, router: int, forward: int | None = None) -> pd.DataFrame:
    """The frame of `texts` with columns of ROUTES and DECISIONS, lists as plain lists; as it is where it has no row."""
    if frame.empty:
        return frame
    low, high = int(frame["token"].min()), int(frame["token"].max())
    frame = frame.merge(ask(at(ROUTES, forward), router, low, high, sequence), on="token", how="left")
    frame = frame.merge(ask(at(DECISIONS, forward), router, low, high), on="token", how="left")
    return frame.assign(**{column: [plain(v) for v in frame[column]] for column in ("experts", "weights", "drops")})


def plain(values: Any) -> list[Any]:
    """A cell that holds a list, as plain values; what is missing as None."""
    if not isinstance(values, list | np.ndarray):
        return []
    return [None if v is None or v != v else v.item() if hasattr(v, "item") else v for v in values]
