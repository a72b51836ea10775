"""What a chart draws."""

from typing import Any

import altair as alt
import pandas as pd


def drawn(chart: Any) -> pd.DataFrame:
    """The frame whose rows the chart draws, itself; ValueError if the chart has none.

    Of a chart in layers it is that of the first layer that has one: `rule` adds a level of chance, which is no data.
    """
    if isinstance(own := getattr(chart, "data", alt.Undefined), pd.DataFrame):
        return own
    parts = [*getattr(chart, "layer", []), *([chart.spec] if hasattr(chart, "spec") else [])]
    for part in parts:
        try:
            return drawn(part)
        except ValueError:
            continue
    raise ValueError("this chart draws no data frame")
