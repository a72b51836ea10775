"""Flow from layer to layer: a component of the browser that draws ribbons and gives back the expert that was clicked.

Files of the same picture are made by `moescope.charts.flow`, from the same geometry.
"""

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import streamlit as st

from moescope.app.components import drawing
from moescope.charts import ribbons


def data_of(
    frame: pd.DataFrame, title: str, subtitle: str | None, focus: tuple[int, int] | None, names: Mapping[int, str]
) -> dict[str, Any]:
    """What the browser needs; heights are shares of the picture's. `names` say what a layer is called."""
    nodes, links, places = ribbons(frame)
    edges = links[["low", "high", "next_low", "next_high"]].round(5).to_numpy().tolist()
    return {
        "title": title, "subtitle": subtitle, "focus": focus, "layers": list(places),
        "names": [names[layer] for layer in places],
        "nodes": [[places[r.layer], r.expert, r.tokens, round(r.share, 5), round(r.bottom, 5), round(r.top, 5)]
                  for r in nodes.itertuples()],
        "links": [[places[r.layer], r.expert, r.next_expert, r.n, *edge]
                  for r, edge in zip(links.itertuples(), edges, strict=True)],
    }  # fmt: skip


def show(data: dict[str, Any], key: str, follow: Callable[[tuple[int, int] | None], None]) -> None:
    """Draw it; `follow` gets (layer, expert) when one is clicked, or None when it is let go."""

    def clicked() -> None:
        node = (st.session_state.get(key) or {}).get("node")
        follow(tuple(node) if node else None)

    drawing.show(
        "flow_ribbons", data | {"sign": drawing.sign({**data, "focus": None})}, key, root="flow", on_node_change=clicked
    )
