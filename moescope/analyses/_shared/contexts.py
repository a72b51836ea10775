"""The tokens on which an expert carried the most weight, in their surroundings."""

import pandas as pd

from .scope import Scope

AROUND = 6  # tokens on either side


def words(here: Scope) -> pd.DataFrame:
    """Text of every vocabulary id of the run's model: vocab_id, text."""
    return here.store.sql(
        f"select vocab_id, any_value(text) as text from vocab join runs using (model) where run = {here.run} group by vocab_id"
    ).df()


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
  select w.token, string_agg(if(n.token = w.token, '[' || coalesce(n.text, '?') || ']', coalesce(n.text, '?')),
    '' order by n.position) as context, any_value(n.text) filter (n.token = w.token) as text
  from wanted w join token_text n
    on n.sequence = w.sequence and n.position between w.position::int - {AROUND} and w.position + {AROUND}
  where n.run = {here.run} group by w.token)
select stack, layer, router, expert, place, weight, coalesce(text, 'patch ' || y || ', ' || x, '') as text,
  case when text is null then '' else context end as context, sequence, position
from numbered join said using (token) join tokens using (token) join routers using (router)
order by stack, layer, router, expert, place"""
    return here.store.sql(sql).df(), sql
