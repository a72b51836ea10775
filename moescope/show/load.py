"""Load of every expert, layer by layer, on one scale for all models: 0 to 2 times an even load."""

from pathlib import Path

import altair as alt
import pandas as pd

from .. import charts
from ..errors import InputError
from ..pictures import heat_map
from ..pictures.page import THEMES, Part
from ..pictures.picture import Picture
from ..store import Store
from .asked import asking, of, signed, stem

LOAD = """
select stack, layer, router, expert, share * count(*) over (partition by router) as times_even, share, assignments, dropped
from expert_load where run = ? order by stack, layer, router, expert"""
LIMITS = (0.0, 2.0)
WORDS = "1 = an even load; blue: used less, orange: more, from 0 to 2 times even and beyond"
TOOLTIP = ("share", "assignments", "dropped")


def load(store: Store | str | Path, run: int | None = None, *, theme: str = "auto") -> Picture:
    """How often every expert ran, in times of an even load, as a map of layer × expert for each stack.

    Colours always span 0 to 2 times even, so that maps can be laid beside each other. InputError for what is not there.
    """
    of("theme", theme, THEMES)
    with asking(store) as asked:
        here = asked.run(run)
        groups = {layer.router: layer.group or "all layers" for layer in asked.layers(here)}
        frame = asked.frame(LOAD, here["run"]).assign(group=lambda f: f["router"].map(groups))
        if frame.empty or not frame["assignments"].sum():
            raise InputError(f"nothing was routed in run {here['run']} of {asked.store.path} so far; ask for another run")
        ran, lost = int(frame["assignments"].sum()), int(frame["dropped"].sum())
        words = signed(here, f"n = {ran:,} assignments that ran" + (f", {lost:,} dropped for want of capacity" if lost else ""))
        maps = {str(group): some for group, some in frame.groupby("group", sort=False)}
        parts = [_part(group, some) for group, some in maps.items()]
        return Picture("Load of every expert", words, stem(asked, here, "load"), parts,
                       lambda dark: charts.to_svg(_chart(maps, words), dark), frame, LOAD, theme, 300 * len(parts))  # fmt: skip


def _part(group: str, frame: pd.DataFrame) -> Part:
    data = heat_map.data_of(
        frame,
        "expert",
        "layer",
        "times_even",
        f"Load, {group}",
        chance=1.0,
        subtitle=WORDS,
        format=".2f",
        tooltip=TOOLTIP,
        limits=LIMITS,
    )
    return Part("heat_map", "heat", data | {"sign": group})


def _chart(maps: dict[str, pd.DataFrame], words: str) -> alt.VConcatChart:
    drawn = [
        charts.heatmap(
            some, "expert", "layer", "times_even", f"Load, {group}", chance=1.0, subtitle=WORDS, format=".2f", limits=LIMITS
        )
        for group, some in maps.items()
    ]
    return alt.vconcat(*drawn, title=alt.TitleParams(words, anchor="start", fontSize=12, fontWeight=400, orient="bottom"))
