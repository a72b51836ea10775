"""Ablation: what the model loses without experts, by group and beside controls; runs a small one with a shipped model."""

from typing import Any

import pandas as pd
import streamlit as st

from moescope.app import url_state, wording
from moescope.app.parts import answers, figures, panels, pickers
from moescope.app.parts.ablation import ablation_form, effect_panels
from moescope.app.queries import effects, store_access

PAGE = {"title": "Ablation", "icon": ":material/content_cut:", "order": 11, "group": "Meaning"}
PLACES = {"target": "predicted", "input": "read"}
Row = dict[str, Any]


def chosen(run: Row, known: pd.DataFrame) -> tuple[str, str, int | None]:
    """The filters: mode, where a loss is counted, router."""
    modes, places = list(known["mode"].unique()), sorted(known["counted_at"].unique(), reverse=True)
    there = set(known["layer"].dropna())
    layers = {x.label: x.router for x in pickers.layers(run["run"]) if x.layer in there}
    one, two, three = st.columns(3)
    with one:
        mode = url_state.choose("Instead of the expert", "mode", modes, wording.mode) or modes[0]
    with two:
        layer = url_state.choose("In", "in", ["", *layers], lambda name: name or "all ablated layers")
    with three:
        at = url_state.choose("Loss counted at the token", "at", places, lambda name: PLACES.get(name, name))
    return mode, at or places[0], layers.get(layer or "")


def measured(run: Row) -> None:
    """Everything measured, or how to measure it."""
    known = store_access.frame(effects.KNOWN, run["run"])
    if known.empty:
        command = f"moescope ablate {run['model_name']} --data {run['dataset'] or 'DATA'} --store {store_access.path().name}"
        layers = pickers.layers(run["run"])
        panels.empty(
            "Nothing was ablated in this run",
            f"Each expert of a layer, by domain: `{command} --experts {layers[len(layers) // 2].layer} --sweep --by domain` "
            "– or try a few experts below.",
        )
        return
    mode, at, router = chosen(run, known)
    frame, params = effects.rows(run["run"], mode, at, "all", router)
    if frame.empty:
        panels.empty("Nothing was ablated there", "Choose another mode, or all layers.")
        return
    effect_panels.overall(frame, params)
    kinds = sorted(set(known[(known["mode"] == mode) & (known["counted_at"] == at)]["group_kind"]) - {"all"})
    effect_panels.by_group(run, mode, at, router, kinds)
    effect_panels.against(run, frame, params)
    with url_state.opened("All effects as a table", "effects", ":material/table:") as box:
        if box.open:
            st.caption("`delta_nll` is the effect itself in some rows, and the difference from a control in others: see `is`.")
            shown = effects.marked(frame)
            first = ["is", "name", "delta_nll", "ci_low", "ci_high"]
            figures.table(shown[[*first, *(c for c in shown if c not in first)]], effects.ROWS, params, name="effects-table")


def render() -> None:
    """The page."""
    panels.head(
        "Ablation",
        "Which experts matter: measured by taking them away, and as a trace alone lets one guess.",
        "Above 0 the model needed the expert; what counts is what remains beyond experts of equal load.",
    )
    run = pickers.the_run()
    if run is None or not pickers.layers(run["run"]):
        panels.unrouted(run)
        return
    answers.verdict("importance", run)
    panels.guarded(measured, run)
    panels.guarded(ablation_form.show, run)
    answers.ask("importance", run)


render()
