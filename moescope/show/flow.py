"""From experts of one layer to experts of the next."""

from pathlib import Path

import pandas as pd

from .. import charts
from ..errors import InputError
from ..pictures import flow_ribbons
from ..pictures.page import THEMES, Part
from ..pictures.picture import Picture
from ..store import Store, imported
from .asked import asking, of, signed, stem
from .experts_of import expert_of

FLOW = """
with few as (
  select router from routers where run = ? and stack = ? and (layer, router) >= (?, ?) order by layer, router limit 4)
select t.router as layer, t.expert, t.next_router as next_layer, t.next_expert, t.n,
       sum(t.n) over (partition by t.router) as every
from transition_rollup t where t.router in (from few) and t.next_router in (from few)
qualify row_number() over (partition by t.router order by t.n desc) <= 80 order by t.router, t.n desc"""


def flow(
    store: Store | str | Path,
    layer: int | str | None = None,
    *,
    run: int | None = None,
    follow: int | None = None,
    theme: str = "auto",
) -> Picture:
    """First choices from `layer` (the first) over the next three of its stack: a ribbon is as wide as its number of tokens.

    `follow` lights one expert of the layer. InputError for what the store does not have.
    """
    of("theme", theme, THEMES)
    with asking(store) as asked:
        here = asked.run(run)
        at = asked.layer(here, asked.layers(here)[0].label if layer is None else layer)
        if not imported.ranked(here["capture"]):
            raise InputError(
                f"first choices of run {here['run']} are not known: its capture has sets of experts without their order"
            )
        frame = asked.frame(FLOW, here["run"], at.stack, at.layer, at.router)
        if frame.empty:
            raise InputError(f"no layer follows {at.label} in its stack; ask for an earlier one")
        focus = None if follow is None else (at.router, expert_of(at, follow))
        labels = {x.router: x.label for x in asked.layers(here)}
        first = frame[frame["layer"] == frame["layer"].iloc[0]]
        words = signed(
            here, f"from {at.label}", f"n = {int(first['every'].iloc[0]):,} first choices that have a next one", _part(frame)
        )
        title = f"Flow from {at.label}"
        data = flow_ribbons.data_of(frame, title, None, focus, labels)
        return Picture(
            title, words, stem(asked, here, at.label, "flow"), [Part("flow_ribbons", "flow", data | {"sign": "flow"})],
            lambda dark: charts.to_svg(charts.flow(frame, title=title, subtitle=words, focus=focus, names=labels), dark),
            frame, FLOW, theme, 540,
        )  # fmt: skip


def _part(frame: pd.DataFrame) -> str:
    """Which part of the tokens the ribbons hold, where it is not all."""
    drawn = frame["n"].sum() / frame.groupby("layer")["every"].first().sum()
    return "" if drawn > 0.999 else f"the widest ribbons, {drawn:.0%} of the tokens"
