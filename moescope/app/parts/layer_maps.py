"""Heat maps of layer × expert, one for each stack, in which a click opens the expert."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from moescope.app import url_state
from moescope.app.parts import panels, pickers

EVEN = "blue: used less than evenly ({}); orange: more"


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
    """One map for each stack of `frame` (router, stack, layer, expert, `value`), beside each other; `look` as in `panels.heat`.

    With `even`, chance is an even share of the stack's experts.
    """
    layers = pickers.layers(run)
    frame = pickers.grouped(run, frame)
    there = set(frame["stack"])
    stacks = [stack for stack in dict.fromkeys(x.group for x in layers) if stack in there]
    for column, stack in zip(st.columns(len(stacks)), stacks, strict=True):
        known = {x.layer: x for x in layers if x.group == stack}
        evens = {x.even for x in known.values()}
        chance = evens.pop() if even and len(evens) == 1 else None  # layers of unlike width have none in common
        words = {"chance": chance, "subtitle": EVEN.format(f"{chance:.3g}")} if chance else {}
        with column:
            panels.heat(
                frame[frame["stack"] == stack], "expert", "layer", value, f"{title}, {stack}", sql, params,
                name=f"{name}-{stack}", clicked=partial(_open, run, known), **words, **look,
            )  # fmt: skip


def _open(run: int, known: dict[int, pickers.Layer], expert: int, layer: int) -> None:
    url_state.request_page("experts", run=run, layer=known[layer].label, expert=expert)
