"""Flow from layer to layer as the browser draws it (browser/flow_ribbons.js).

Files of the same picture are made by `moescope.charts.flow`, from the same geometry.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ..charts import ribbons


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
