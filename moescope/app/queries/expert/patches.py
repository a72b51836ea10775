"""Patches of images that come to an expert: where in the image, and which."""

from typing import Any

import pandas as pd

from moescope.app.queries import store_access
from moescope.app.queries.expert import experts
from moescope.app.queries.layers import Layer

Row = dict[str, Any]
POSITIONS = """
with looked as (
  select t.y, t.x, count(*) as n from decisions a join tokens t using (token)
  where a.router = ? and t.unit = 'patch' and t.y is not null{few} group by all),
ran as (
  select t.y, t.x, count(*) as n from assignments a join tokens t using (token)
  where a.router = ? and a.expert = ? and not a.dropped and t.unit = 'patch' and t.y is not null{few} group by all)
select y, x, coalesce(ran.n, 0) as here, looked.n as patches, coalesce(ran.n, 0) / looked.n as share
from looked left join ran using (y, x) order by y, x"""
PLACES = """
with mine as materialized (
  select token, weight from assignments a where router = ? and expert = ? and coalesce(rank, 0) = 0 and not dropped{few}
  and token in (select token from tokens where unit = 'patch' and y is not null and run = ?)
  order by {order} token limit {most})
select m.token, m.weight, t.sequence, t.y, t.x, s.height, s.width, s.source_row, s.document,
       coalesce(s.class, s.domain) as label
from mine m join tokens t using (token) join sequences s using (sequence)
where s.height is not null and s.width is not null order by {outer} m.token"""
ORDERS = {"most": ("weight desc,", "m.weight desc,"), "random": ("hash(token),", "")}
MOST = 18  # places in the gallery


def positions(run: Row, layer: Layer, expert: int) -> tuple[pd.DataFrame, str, list[Any]]:
    """Of the patches at each place of the image, the share for which this expert ran; nothing where the run has no patches."""
    sql, params = POSITIONS.format(few=experts.part_of(run, layer)[0]), [layer.router, layer.router, expert]
    return store_access.frame(sql, *params), sql, params


def places(run: Row, layer: Layer, expert: int, by: str) -> tuple[pd.DataFrame, str, list[Any]]:
    """Patches whose first choice it was: of highest weight ("most"), or a fixed random sample; each with its image's size."""
    order, outer = ORDERS[by]
    sql = PLACES.format(few=experts.part_of(run, layer)[0], order=order, outer=outer, most=MOST)
    params = [layer.router, expert, run["run"]]
    return store_access.frame(sql, *params), sql, params
