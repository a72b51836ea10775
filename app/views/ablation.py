"""Ablation: what the model loses without experts, beside what their use would make one expect."""

from typing import Any

import answers
import linked
import pandas as pd
import panels
import pickers
import stored
import streamlit as st

from moescope import charts

PAGE = {"title": "Ablation", "icon": ":material/content_cut:", "order": 9, "group": "Meaning"}
COLUMNS = "select column_name from information_schema.columns where table_name = 'ablation_effects' order by ordinal_position"
NUMBERS = ("effect", "value", "delta", "loss", "kl")
NAMES = ("group", "label", "ablation", "name", "subset", "mode")
Row = dict[str, Any]


def effects(run: Row) -> pd.DataFrame:
    """Rows of `ablation_effects` for this run; empty where nothing was ablated."""
    columns = list(stored.frame(COLUMNS)["column_name"])
    if not columns:
        return pd.DataFrame()
    where = " where run = ?" if "run" in columns else ""
    return stored.frame(f"select * from ablation_effects{where} limit 5000", *([run["run"]] if where else []))


@panels.part
def measured(run: Row) -> None:
    """Effects by group, with their controls and intervals."""
    panels.section("Measured effects", "What changes when experts are taken away, beside the same number of random ones.")
    frame = effects(run)
    if frame.empty:
        panels.empty(
            "Nothing was ablated in this run", f"Measure it: `moescope ablate {run['model_name']} --data DATA --store STORE`"
        )
        return
    values, names = [c for c in NUMBERS if c in frame], [c for c in NAMES if c in frame]
    if values and names:
        one, two = st.columns(2)
        with one:
            value = linked.choose("Effect", "effect", values) or values[0]
        with two:
            name = linked.choose("By", "group", names) or names[0]
        low, high = (c if c in frame else None for c in ("ci_low", "ci_high"))
        chart = charts.bars(
            frame,
            name,
            value,
            low,
            high,
            chance=0.0,
            title="Effect of taking experts away",
            horizontal=True,
            sort="-y",
            chance_label="no effect",
        )
        panels.figure(chart, frame, "select * from ablation_effects", name="effects")
    panels.table(frame, "select * from ablation_effects", name="effects-table")


def render() -> None:
    """The page."""
    panels.head("Ablation", "Which experts matter: measured by taking them away, and as a trace alone lets one guess.")
    run = pickers.the_run()
    if run is None or not pickers.layers(run["run"]):
        panels.empty("Nothing is traced yet", "Trace a model into this store: `moescope trace MODEL --data DATA --store STORE`")
        return
    measured(run)
    answers.ask("importance", run)


render()
