"""Dimensionality: participation ratios of states, router logits and routing by layer, expert and cycle, with controls."""

from functools import partial
from typing import Any

import streamlit as st

from moescope.app import url_state
from moescope.app.parts import answers, dimension_panels, panels, pickers

PAGE = {"title": "Dimensionality", "icon": ":material/stacked_line_chart:", "order": 10, "group": "Meaning"}
Row = dict[str, Any]


def control(run: Row) -> dict[str, int]:
    """Another run of the same family, beside which this one is read: an untrained model, say."""
    others = {r["run"]: r for r in pickers.runs() if r["run"] != run["run"] and r["family"] == run["family"]}
    if not others:
        st.caption(
            ":material/info: A profile means something beside a control: trace the same inputs through the untrained model "
            "into this store, and choose that run here."
        )
        return {}
    with st.columns([1, 2])[0]:
        chosen = url_state.choose(
            "Control run", "control", [-1, *others], lambda n: pickers.run_name(others[n]) if n >= 0 else "none"
        )
    return {"control": chosen} if chosen is not None and chosen >= 0 else {}


def render() -> None:
    """The page."""
    panels.head(
        "Dimensionality",
        "Participation ratios by layer, expert and cycle, each beside its control.",
        "A ratio is how many directions are in use; it means something beside its control only.",
    )
    run = pickers.the_run()
    if run is None:
        panels.unrouted(run)
        return
    answers.ask("dimensionality", run, draw=partial(dimension_panels.show, run), **control(run))


render()
