"""Heat maps of layer × expert, one for each stack, in which a click opens the expert."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from moescope.app import url_state
from moescope.app.parts import figures, pickers
from moescope.app.wording import share
from moescope.charts import span

EVEN = "blue: less than even ({}); orange: more; full colour at none and at twice even"
TIMES = "× even"


def show(
    run: int,
    frame: pd.DataFrame,
    value: str,
    title: str,
    sql: str,
    params: Sequence[Any],
    *,
    name: str,
    even: bool = False,
    **look: Any,
) -> None:
    """One map for each stack of `frame` (router, stack, layer, expert, `value`), side by side; `look` as in `figures.heat`.

    All have the same colours: with `even` from none to twice an even share of experts (differences: an even share to either
    side), else those of all values together.
    """
    layers = pickers.layers(run)
    frame = pickers.grouped(run, frame)
    there = set(frame["stack"])
    stacks = [stack for stack in dict.fromkeys(x.group for x in layers) if stack in there]
    evens = {x.router: x.even for x in layers}
    scale = fixed(frame, value, evens) if even else {"limits": common(frame[value], look)}
    for column, stack in zip(st.columns(len(stacks)), stacks, strict=True):
        known = {x.layer: x for x in layers if x.group == stack}
        some, shown, words = frame[frame["stack"] == stack], value, dict(look) | scale
        if even and len({x.even for x in known.values()}) > 1 and "centre" not in look:  # layers of unlike width
            some = some.assign(**{TIMES: some[value] / some["router"].map(evens)})
            shown, extra = TIMES, {"chance": 1.0, "limits": (0.0, 2.0), "format": ".3~g", "subtitle": EVEN.format(f"1 {TIMES}")}
            words |= extra | {"tooltip": [value, *look.get("tooltip", ())]}
        with column:
            figures.heat(
                some, "expert", "layer", shown, f"{title}, {stack}", sql, params,
                name=f"{name}-{stack}", clicked=partial(_open, run, known), **words,
            )  # fmt: skip


def fixed(frame: pd.DataFrame, value: str, evens: dict[int, float]) -> dict[str, Any]:
    """Colours of shares and of their differences, by what is even in the widest layer that is shown."""
    even = min(evens[router] for router in frame["router"].unique())
    if value == "difference":
        return {"limits": (-even, even), "subtitle": f"orange: more; full colour at an even share ({share(even)}) more or less"}
    return {"chance": even, "limits": (0.0, 2 * even), "subtitle": EVEN.format(share(even))}


def common(values: pd.Series, look: dict[str, Any]) -> tuple[float, float]:
    """Ends of the colours for all stacks."""
    low, _, high = span(values, look.get("chance"), look.get("centre"))
    return low, high


def _open(run: int, known: dict[int, pickers.Layer], expert: int, layer: int) -> None:
    url_state.request_page("experts", run=run, layer=known[layer].label, expert=expert)
