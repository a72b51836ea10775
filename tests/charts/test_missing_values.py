"""Frames with figures of all layers together, of none, or of nothing: pictures leave out what has no place, and say no NaN."""

import re
from base64 import b64decode
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from moescope import charts
from moescope.pictures import bars, heat_map

NUMBERS = {"value": [0.1, np.nan, 0.3], "low": [0.0, np.nan, 0.1], "high": [0.2, np.nan, 0.4]}
FRAMES = {
    "NaN": pd.DataFrame({"layer": [0, 1, np.nan], "stack": ["a", "a", None], "expert": [0, np.nan, 1], **NUMBERS}),
    "NA": pd.DataFrame({
        "layer": pd.array([0, 1, pd.NA], "Int64"), "stack": pd.array(["a", pd.NA, "b"], "string"),
        "expert": pd.array([0, pd.NA, 1], "Int64"), "value": pd.array([0.1, pd.NA, 0.3], "Float64"),
        "low": [0.0, 0.1, 0.2], "high": [0.2, 0.3, 0.4],
    }),
    "None": pd.DataFrame({c: pd.Series([0, None, 0.3], dtype=object) for c in ("layer", "expert", "value", "low", "high")} |
                         {"stack": [None] * 3}),
    "nothing": pd.DataFrame({c: [np.nan] * 3 for c in ("layer", "expert", "value", "low", "high")} | {"stack": [None] * 3}),
    "no row": pd.DataFrame({c: [] for c in ("layer", "stack", "expert", "value", "low", "high")}),
    "infinite": pd.DataFrame({"layer": [0, 1, 2], "stack": "a", "expert": [0, 1, 2], "value": [0.1, np.inf, -np.inf],
                              "low": 0.0, "high": [np.inf, 1, 1]}),
}  # fmt: skip
FORMS: dict[str, Callable[[pd.DataFrame], Any]] = {
    "bars": lambda f: charts.to_svg(charts.bars(f, "layer", "value", "low", "high", chance=0.3, color="stack")),
    "bars down": lambda f: charts.to_svg(charts.bars(f, "stack", "value", "low", "high", horizontal=True, sort="-y")),
    "lines": lambda f: charts.to_svg(charts.lines(f, "layer", "value", "stack", "low", "high", chance=0.3)),
    "heat map": lambda f: charts.to_svg(charts.heatmap(f, "expert", "layer", "value", chance=0.2)),
    "ranking": lambda f: bars.drawn(f, "stack", "value", "low", "high", 0.3, "T", format=".0%", tooltip=["layer"]),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", FRAMES)
def test_pictures_say_no_missing_number(name: str, form: str) -> None:
    made = FORMS[form](FRAMES[name].copy())
    assert re.findall(r">[^<>]*(?:NaN|nan|None|null|&lt;NA|undefined)[^<>]*<", made) == []


def test_a_row_without_a_place_is_in_no_cell() -> None:
    """The figure of no expert was drawn as that of the last one, in the row above."""
    frame = pd.DataFrame({"layer": [0, 1, 1], "expert": [0, 1, np.nan], "value": [0.25, 0.5, 9.0]})
    data = heat_map.data_of(frame, "expert", "layer", "value", "T")
    assert (data["x"], data["y"], data["keys"]) == (["0", "1"], ["1", "0"], [[0, 1], [1, 0]])
    values = np.frombuffer(b64decode(data["values"][1]), "<f4").tolist()
    assert [v for v in values if v == v] == [0.5, 0.25]


def test_a_frame_without_gaps_is_drawn_itself() -> None:
    frame = FRAMES["NaN"].iloc[:1]
    for chart in (charts.bars(frame, "layer", "value"), charts.lines(frame, "layer", "value"),
                  charts.heatmap(frame, "expert", "layer", "value")):  # fmt: skip
        assert charts.drawn(chart) is frame
