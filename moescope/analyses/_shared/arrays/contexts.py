"""The tokens on which an expert carried the most weight, in their surroundings."""

from typing import Any

import pandas as pd

from ....store import spelling
from ..scope import Scope

AROUND = 6  # tokens on either side


def words(here: Scope) -> pd.DataFrame:
    """Text of every vocabulary id of the run's model: vocab_id, text."""
    known = spelling.words(here.store, here.run)
    return pd.DataFrame({"vocab_id": list(known), "text": list(known.values())})


def contexts(here: Scope, taken: str, each: int = 3) -> tuple[pd.DataFrame, str]:
    """Frame (stack, layer, router, expert, place, weight, text, context, sequence, position) and its SQL.

    `taken` is SQL for the tokens to look at.
    """
    sql = f"""with best as (
  select router, expert, unnest(max_by({{'token': token, 'weight': weight}}, weight, {each}), recursive := true)
  from assignments where run = {here.run} and not dropped and token in (select token from ({taken}))
  group by router, expert),
numbered as (
  select *, row_number() over (partition by router, expert order by weight desc, token) as place from best),
wanted as (select distinct t.token, t.sequence, t.position from numbered join tokens t using (token)),
said as (
  select w.token, any_value(n.text) filter (n.token = w.token) as text,
    list(coalesce(n.text, '?') order by n.position) filter (n.position < w.position) as before,
    list(coalesce(n.text, '?') order by n.position) filter (n.position > w.position) as behind
  from wanted w join token_text n
    on n.sequence = w.sequence and n.position between w.position::int - {AROUND} and w.position + {AROUND}
  where n.run = {here.run} group by w.token)
select stack, layer, router, expert, place, weight, coalesce(text, 'patch ' || y || ', ' || x, '') as text,
  text is not null as said, before, behind, sequence, position
from numbered join said using (token) join tokens using (token) join routers using (router)
order by stack, layer, router, expert, place"""
    frame = here.store.sql(sql).df()
    spelled = spelling.of_store(here.store, here.run)
    frame = spelled.column(frame)
    around = [
        f"{spelled.joined(_plain(row.before))}[{row.text}]{spelled.joined(_plain(row.behind))}" if row.said else ""
        for row in frame.itertuples()
    ]
    frame.insert(7, "context", around)
    return frame.drop(columns=["said", "before", "behind"]), sql


def _plain(tokens: Any) -> list[str]:
    """A cell that holds a list, or none."""
    return [] if tokens is None or isinstance(tokens, float) or tokens is pd.NA else list(tokens)
