"""Forward passes in which the same tokens were looked at again: the steps of a denoiser, epochs of training."""

from typing import Any

from moescope.app.queries import store_access

STEPS = """
with looks as (
  select distinct token, forward from decisions where router = ? and token between ? and ? and iteration = 0
    and token in (select token from tokens where sequence = ?)),
again as (select max(n) as n from (select count(*) as n from looks group by token))
select forward, f.step, count(*) as tokens,
       (select string_agg(distinct c.kind || ' ' || coalesce(c.label, format('{:g}', c.value)), ' · ') from conditions c
        where c.forward = l.forward and (c.sequence is null or c.sequence = ?)) as told
from looks l join forwards f using (forward), again where again.n > 1 group by forward, f.step order by forward"""
SPAN = "select min(token) as low, max(token) as high from tokens where sequence = ?"


def of(sequence: int, router: int) -> dict[int, str]:
    """{forward: what it was told, or its step} of a sequence; nothing where every token was looked at once."""
    span = store_access.rows(SPAN, sequence)[0]
    if span["low"] is None:
        return {}
    found: list[dict[str, Any]] = store_access.rows(STEPS, router, span["low"], span["high"], sequence, sequence)
    names = [row["told"] or f"step {row['step'] if row['step'] is not None else row['forward']}" for row in found]
    return {
        row["forward"]: name if names.count(name) == 1 else f"{name} · forward {row['forward']}"
        for row, name in zip(found, names, strict=True)
    }
