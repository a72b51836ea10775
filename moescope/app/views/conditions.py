"""Conditions: which experts work at which timestep, for which class or task, or whatever else forwards were told."""

from functools import partial
from typing import Any

import streamlit as st

from moescope.app import url_state
from moescope.app.parts import answers, figures, layer_maps, panels, pickers
from moescope.app.queries import store_access

PAGE = {"title": "Conditions", "icon": ":material/tune:", "order": 8, "group": "Meaning"}
KINDS = """
select kind, count(distinct coalesce(label, value::varchar)) as "values", count(distinct forward) as forwards,
       count(distinct sequence) as sequences
from conditions where run = ? group by kind order by kind"""
Row = dict[str, Any]


def loads(layer: pickers.Layer, answer: Any) -> None:
    """Expert × value for one router, then what all of them say."""
    everything = answer.frames["loads"]
    frame = everything[everything["router"] == layer.router]
    if frame.empty:
        panels.empty("This router has one expert", "Its load is the same under every condition; see Depth for what it skips.")
    else:
        with st.container(border=True):
            heat(layer, frame, answer.sql["loads"])
    drawn = answer.charts()
    kept = {name: shown for name, shown in drawn.items() if not name.startswith("load by")}
    for column, (name, shown) in zip(st.columns(max(len(kept), 2)), kept.items(), strict=False):
        with column:
            figures.figure_of(shown.chart, shown.frame, shown.sql, name=f"conditions-{name}")
    panels.section("By site in the block", "Means over the routers of a site: adapters sit at several places of a layer.")
    figures.table(answer.frames["sites"], answer.sql["sites"], name="condition-sites")


def heat(layer: pickers.Layer, frame: Any, sql: str) -> None:
    """The heat map and its numbers."""
    values = frame["subset"].drop_duplicates().map(lambda subset: subset.partition("=")[2]).tolist()
    frame = frame.assign(
        condition=frame["subset"].map(lambda subset: subset.partition("=")[2]), share=frame["value"],
        difference=frame["value"] - frame["chance"], low=frame["ci_low"], high=frame["ci_high"], overall=frame["chance"],
    )  # fmt: skip
    apart = url_state.toggle("Difference from all values together", "difference")
    value, centre = ("difference", {"centre": 0.0}) if apart else ("share", {})
    look = layer_maps.fixed(frame, value, {layer.router: layer.even}) | centre
    figures.heat(
        frame, "expert", "condition", value, f"Load by condition, {layer.label}", sql,
        name="conditions", down=values, tooltip=["share", "overall", "low", "high", "q"], format=".1%",
        clicked=lambda expert, _: url_state.request_page("experts", run=pickers.shown(), layer=layer.label, expert=expert),
        **look,
    )  # fmt: skip
    columns = ["condition", "expert", "share", "low", "high", "overall", "p", "q", "n", "units"]
    figures.table(frame[columns], sql, name="conditions-table")


def render() -> None:
    """The page."""
    panels.head(
        "Conditions",
        "Do experts follow the timestep, the class, the task, or whatever else a forward pass was told?",
        "A row that differs from the others is a condition with experts of its own; q says which differences "
        "are more than chance.",
    )
    run = pickers.the_run()
    if run is None or not pickers.layers(run["run"]):
        panels.unrouted(run)
        return
    kinds = store_access.rows(KINDS, run["run"])
    if not kinds:
        panels.empty(
            "The forward passes of this run were told no condition",
            "Trace a denoiser, or say conditions where you trace: `with tracer.conditions(task=NAME): model(...)`",
        )
        return
    known = {row["kind"]: f"{row['kind']} ({row['values']} values)" for row in kinds}
    one, two = st.columns(2)
    with one:
        kind = url_state.choose("Condition", "condition", list(known), known.__getitem__)
    with two:
        layer = pickers.choose_layer(run["run"], label="Router")
    if layer is not None:
        answers.ask("conditions", run, draw=partial(loads, layer), kind=kind)


render()
