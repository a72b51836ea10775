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
    stacks = list(pickers.grouped(run, frame).groupby("stack", sort=False))
    for column, (stack, some) in zip(st.columns(len(stacks)), stacks, strict=True):
        chance = 1 / max(int(some["expert"].nunique()), 1) if even else None
        words = {"chance": chance, "subtitle": even.format(f"{chance:.3g}")} if even else {}
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
