"""From experts of one layer to experts of the next."""

from pathlib import Path
from typing import Any

import pandas as pd

from .. import charts
from ..errors import InputError
from ..pictures import flow_ribbons
from ..pictures.page import THEMES, Part
from ..pictures.picture import Picture
from ..pictures.wording import share
from ..store import Store, imported
from .asked import asking, decided, of, signed, stem
from .experts_of import expert_of
from .layers import Layer

FEW = """
with few as (
  select router from routers
  where run = ? and coalesce(stack, '') = ? and (layer, router) >= (?, ?) order by layer, router limit 4)"""
RIBBONS = """
select t.router as layer, t.expert, t.next_router as next_layer, t.next_expert, t.n,
       sum(t.n) over (partition by t.router) as every
from {counts} t where t.router in (from few) and t.next_router in (from few)
qualify row_number() over (partition by t.router order by t.n desc) <= 80 order by t.router, t.n desc"""
FLOW = FEW + RIBBONS.format(counts="transition_rollup")  # of tokens that ran in both layers
ASKED = (
    FEW
    + """,
firsts as materialized (
  select a.router, a.forward, a.iteration, a.token, a.expert from assignments a
  where a.run = ? and a.rank = 0 and a.router in (from few){part}),
ordered as (
  select router, lead(router) over (order by layer, router) as next_router from routers where router in (from few)),
asked as (
  select a.router, b.router as next_router, a.expert, b.expert as next_expert, count(*) as n
  from firsts a join ordered o using (router)
  join firsts b on b.router = o.next_router and b.forward = a.forward and b.token = a.token and b.iteration = a.iteration
  group by all)"""
    + RIBBONS.format(counts="asked")
)  # of all of them, whether their experts were full or not; `part` leaves tokens out


def query(run: int, layer: Layer, counted: str, part: str = "") -> tuple[str, list[Any]]:
    """SQL of the ribbons from `layer` on and its parameters; `counted` as in `demand.COUNTED`."""
    few = [run, layer.stack, layer.layer, layer.router]
    return (ASKED.format(part=part), [*few, run]) if counted == "asked" else (FLOW, few)


def flow(
    store: Store | str | Path,
    layer: int | str | None = None,
    *,
    run: int | None = None,
    follow: int | None = None,
    counted: str | None = None,
    theme: str = "auto",
) -> Picture:
    """First choices from `layer` (the first) over the next three of its stack: a ribbon is as wide as its number of tokens.

    `follow` lights one expert of the layer. `counted` is "asked" (whether or not the experts were full; so where a run dropped
    tokens, unless "ran" is asked for) or "ran" (in both layers). InputError for what the store does not have.
    """
    of("theme", theme, THEMES)
    with asking(store) as asked:
        here = decided(asked.run(run))
        at = asked.layer(here, asked.layers(here)[0].label if layer is None else layer)
        if not imported.ranked(here["capture"]):
            raise InputError(
                f"first choices of run {here['run']} are not known: its capture has sets of experts without their order"
            )
        what = asked.counted(here, counted)
        sql, params = query(here["run"], at, what)
        frame = asked.frame(sql, *params)
        if frame.empty:
            raise InputError(f"no layer follows {at.label} in its stack in this record; ask for an earlier one")
        focus = None if follow is None else (at.router, expert_of(at, follow))
        labels = {x.router: x.label for x in asked.layers(here)}
        first = frame[frame["layer"] == frame["layer"].iloc[0]]
        said = f"n = {int(first['every'].iloc[0]):,} first choices that have a next one, {said_of(what)}"
        words = signed(here, f"from {at.label}", said, _part(frame))
        title = f"Flow from {at.label}"
        data = flow_ribbons.data_of(frame, title, None, focus, labels)
        return Picture(
            title, words, stem(asked, here, at.label, "flow"), [Part("flow_ribbons", "flow", data | {"sign": "flow"})],
            lambda dark: charts.to_svg(charts.flow(frame, title=title, subtitle=words, focus=focus, names=labels), dark),
            frame, sql, theme, 540,
        )  # fmt: skip


def said_of(counted: str) -> str:
    """Which first choices are counted."""
    return "whether they ran or were dropped" if counted == "asked" else "that ran in both layers"


def _part(frame: pd.DataFrame) -> str:
    """Which part of the tokens the ribbons hold, where it is not all."""
    drawn = frame["n"].sum() / frame.groupby("layer")["every"].first().sum()
    return "" if drawn > 0.999 else f"the widest ribbons, {share(drawn)} of the tokens"
