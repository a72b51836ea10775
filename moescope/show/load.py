"""Load of every expert, layer by layer, on one scale for all models: 0 to 2 times an even load."""

from pathlib import Path
from typing import Any

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
with l as (select *, assignments + dropped as asked from expert_load where run = ?)
select stack, layer, router, expert, {share} * count(*) over one as times_even, {share} as share, asked, assignments, dropped
from l window one as (partition by router) order by stack, layer, router, expert"""
SHARES = {"ran": "share", "asked": "asked / nullif(sum(asked) over one, 0)"}
LIMITS = (0.0, 2.0)
WORDS = "1 = an even load; blue: {} less, orange: more, from 0 to 2 times even and beyond"
VERBS = {"ran": "used", "asked": "asked for"}
TOOLTIP = ("share", "asked", "assignments", "dropped")


def load(store: Store | str | Path, run: int | None = None, *, counted: str | None = None, theme: str = "auto") -> Picture:
    """How often every expert ran, in times of an even load, as a map of layer × expert for each stack.

    Where a run dropped tokens for want of capacity: how often each was asked for, unless `counted` is "ran". Colours always
    span 0 to 2 times even, so that maps can be laid beside each other. InputError for what is not there.
    """
    of("theme", theme, THEMES)
    with asking(store) as asked:
        here = asked.run(run)
        groups = {layer.router: layer.group or "all layers" for layer in asked.layers(here)}
        what = asked.counted(here, counted)
        sql = LOAD.format(share=SHARES[what])
        frame = asked.frame(sql, here["run"]).assign(group=lambda f: f["router"].map(groups))
        if frame.empty or not frame["asked"].sum():
            raise InputError(f"nothing was routed in run {here['run']} of {asked.store.path} so far; ask for another run")
        ran, lost = int(frame["assignments"].sum()), int(frame["dropped"].sum())
        words = signed(here, f"n = {ran:,} assignments that ran" + (f", {lost:,} dropped for want of capacity" if lost else ""))
        maps = {str(group): some for group, some in frame.groupby("group", sort=False)}
        parts = [_part(group, some, what) for group, some in maps.items()]
        title = "Demand of every expert" if what == "asked" else "Load of every expert"
        return Picture(
            title, words, stem(asked, here, "load"), parts, lambda dark: charts.to_svg(_chart(maps, words, what), dark), frame,
            sql, theme, 300 * len(parts),
        )  # fmt: skip


def _look(group: str, counted: str) -> dict[str, Any]:
    """What a map says and how it is coloured: the same in a browser and in files."""
    title = f"{'Demand' if counted == 'asked' else 'Load'}, {group}"
    return {"title": title, "chance": 1.0, "subtitle": WORDS.format(VERBS[counted]), "format": ".2f", "limits": LIMITS}


def _part(group: str, frame: pd.DataFrame, counted: str) -> Part:
    data = heat_map.data_of(frame, "expert", "layer", "times_even", tooltip=TOOLTIP, **_look(group, counted))
    return Part("heat_map", "heat", data | {"sign": group})


def _chart(maps: dict[str, pd.DataFrame], words: str, counted: str) -> alt.VConcatChart:
    drawn = [charts.heatmap(some, "expert", "layer", "times_even", **_look(group, counted)) for group, some in maps.items()]
    return alt.vconcat(*drawn, title=alt.TitleParams(words, anchor="start", fontSize=12, fontWeight=400, orient="bottom"))
