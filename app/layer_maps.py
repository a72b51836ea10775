"""Heat maps of layer × expert, one for each stack, in which a click opens the expert."""

from collections.abc import Sequence
from typing import Any

import linked
import pandas as pd
import panels
import pickers
import streamlit as st

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
    even: str = "",
    **look: Any,
) -> None:
    """One map for each stack of `frame` (router, stack, layer, expert, `value`), beside each other; `look` as in `panels.heat`.

    With `even`, chance is an even share of the stack's experts, and `even` the words for it, with {} for the number.
    """
    known = {(layer.group, layer.layer): layer for layer in pickers.layers(run)}
    frame = pickers.grouped(run, frame)
    stacks = [(stack, frame[frame["stack"] == stack]) for stack in dict.fromkeys(group for group, _ in known)]
    stacks = [(stack, some) for stack, some in stacks if len(some)]
    for column, (stack, some) in zip(st.columns(len(stacks)), stacks, strict=True):
        counts = set(some.groupby("router")["expert"].nunique())
        chance = 1 / max(counts) if even and len(counts) == 1 else None  # layers of unlike width have no common one
        words = {"chance": chance, "subtitle": even.format(f"{chance:.3g}")} if chance else {}
        with column:
            pick = panels.heat(
                some,
                "expert",
                "layer",
                value,
                f"{title}, {stack}",
                sql,
                params,
                name=f"{name}-{stack}",
                click=True,
                **words,
                **look,
            )
        if pick and (layer := known.get((stack, pick["y"]))):
            linked.go("experts", run=run, layer=layer.label, expert=pick["x"])
