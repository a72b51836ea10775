"""Rows of tables, bars and charts open what they name: a token, an expert, the experts of a layer."""

import html
import re
from urllib.parse import urlencode

import pandas as pd
import pytest
from pages import part
from recounted import Truth

from moescope import charts
from moescope.analyses._shared import chart_forms as analysis_forms

TRUTH = Truth()
pytestmark = pytest.mark.usefixtures("recounted_shown")
HERE = next(t for t in TRUTH.tokens if t.sequence == 3 and t.position == 4)
NONE = float("nan")
ROWS = {
    "an expert": ({"router": 2, "expert": 1, "value": 0.5},
                  ("experts", {"run": 0, "layer": "decoder 1", "show": None, "expert": 1})),
    "a layer": ({"router": 0, "expert": NONE}, ("experts", {"run": 0, "layer": "encoder 0", "show": "all"})),
    "a place": ({"router": 2, "expert": 1, "sequence": 3, "position": 4},
                ("tokens", {"run": 0, "token": HERE.token, "sequence": 3})),
    "a token": ({"token": HERE.token}, ("tokens", {"run": 0, "token": HERE.token, "sequence": 3})),
    "a token that is not there": ({"token": 10**6}, None),
    "a router of another run": ({"router": 5, "expert": 1}, None),
    "nothing": ({"name": "x", "value": 1.0}, None),
}  # fmt: skip


@pytest.mark.parametrize("what", ROWS)
def test_a_row_opens_what_it_names(what: str) -> None:
    row, expected = ROWS[what]
    assert part("parts.links").opened(0, pd.DataFrame([row]).iloc[0].to_dict()) == expected


EXPERT, LAYER = "experts?run=0&layer=decoder+1&expert=1", "experts?run=0&layer=decoder+1&show=all"
LINKED = {
    "router and expert": ({"router": 2, "expert": 1}, (EXPERT, "opens expert 1 of decoder 1")),
    "layer of a stack": ({"stack": "decoder", "layer": 1, "expert": 1}, (EXPERT, "opens expert 1 of decoder 1")),
    "layer alone": ({"stack": "decoder", "layer": 1.0, "value": 0.5}, (LAYER, "opens decoder 1")),
    "layer by its label": ({"layer": "decoder 1", "step": 3}, (LAYER, "opens decoder 1")),
    "layer of two stacks": ({"layer": 0}, ("", "")),
    "layer that is not there": ({"stack": "decoder", "layer": 9}, ("", "")),
    "a figure of no router": ({"layer": 1, "stack": "decoder", "router": NONE}, ("", "")),
    "a token": ({"token": HERE.token}, (f"tokens?run=0&token={HERE.token}&sequence=3", "opens its route")),
    "nothing": ({"value": 1.0}, ("", "")),
}  # fmt: skip


@pytest.mark.parametrize("what", LINKED)
def test_a_mark_has_the_address_of_what_its_row_names(what: str) -> None:
    row, expected = LINKED[what]
    assert part("parts.links").links(0, pd.DataFrame([row])) == [expected]


def test_rows_without_a_layer_stand_beside_rows_that_have_one() -> None:
    """Figures of all layers together, as a chart of pictures by timestep has them."""
    frame = pd.DataFrame({"layer": [NONE, 1.0, float("nan")], "stack": ["decoder", "decoder", None], "value": 0.5})
    assert part("parts.links").links(0, frame) == [("", ""), (LAYER, "opens decoder 1"), ("", "")]


def test_company_is_named_with_its_layer_and_opens_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Experts before and after are of other layers than the one that is looked at."""
    panels, pickers = part("parts.expert.expert_panels"), part("parts.pickers")
    told: dict[str, pd.DataFrame] = {}
    monkeypatch.setattr(panels.figures, "ranked", lambda frame, *_, **look: told.update({look["name"]: frame}))
    here = next(x for x in pickers.layers(0) if x.label == "decoder 1")
    panels.company.__wrapped__({"run": 0}, here, 1)
    layers = {name: frame["other"].str.partition(" · ")[0].unique().tolist() for name, frame in told.items()}
    assert layers["Runs-together-with"] == ["decoder 1"]
    assert layers["One-layer-before"] == ["decoder 0"]
    row = told["One-layer-before"].iloc[0]
    address = "experts?" + urlencode({"run": 0, "layer": "decoder 0", "expert": row["expert"]})
    assert part("parts.links").links(0, told["One-layer-before"])[0][0] == address
    assert row["other"] == f"decoder 0 · expert {row['expert']}"


FRAME = pd.DataFrame(
    {"layer": [0, 1, 2], "value": [0.1, 0.4, 0.2], "low": [0.0] * 3, "high": [0.5] * 3, "stack": ["a", "b", "a"]}
)
FORMS = {
    "bars": lambda: charts.bars(FRAME, "layer", "value", "low", "high", chance=0.3),
    "bars of colours": lambda: charts.bars(FRAME, "layer", "value", color="stack"),
    "lines": lambda: charts.lines(FRAME, "layer", "value", None, "low", "high", chance=0.3),
    "lines of colours": lambda: charts.lines(FRAME, "layer", "value", "stack", chance="high"),
    "points": lambda: charts.scatter(FRAME, "low", "value", "stack"),
    "cells": lambda: charts.heatmap(FRAME, "layer", "stack", "value"),
    "layers of an answer": lambda: analysis_forms.layers(FRAME.assign(ci_low=0, ci_high=1, chance=0.2), "t", "select").chart,
    "cells of an answer, by stack": lambda: analysis_forms.heatmap(FRAME.assign(expert=1), "t", "select 1").chart,
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_marks_of_every_form_are_links_and_files_have_none(form: str) -> None:
    """As many as there are rows that open something, each with its address; the chart itself is as it was."""
    chart = FORMS[form]()
    before = chart.to_dict()
    made = charts.linked(chart, [("experts?layer=1", "opens layer 1"), ("", ""), ("experts?layer=2", "opens layer 2")])
    assert hrefs(charts.to_svg(made)) == ["experts?layer=1", "experts?layer=2"]
    assert made.to_dict()["usermeta"]["embedOptions"]["loader"] == {"target": "_self"}
    assert chart.to_dict() == before
    assert hrefs(charts.to_svg(charts.unlinked(made.to_dict()))) == []
    assert charts.linked(chart, [("", "")] * 3) is chart


def hrefs(svg: str) -> list[str]:
    return sorted(html.unescape(found).rpartition("/")[2] for found in re.findall(r'<a [^>]*href="([^"]*)"', svg))
