"""Load and entropy: who works, by domain, phase and position; what another capacity would drop; training curves."""

from typing import Any

import pandas as pd
import streamlit as st

from moescope import charts
from moescope.app import url_state
from moescope.app.parts import answers, figures, layer_maps, panels, pickers
from moescope.app.parts.load import capacity, leaves, training
from moescope.app.queries import balance, loads, sampling, training_end

PAGE = {"title": "Load and entropy", "icon": ":material/grid_on:", "order": 4, "group": "Routing"}
Row = dict[str, Any]


def choose(run: Row) -> tuple[str, tuple[str, str] | None, str]:
    """Value, label and split of the map."""
    known = loads.values(run["run"])
    one, two, three = st.columns(3)
    with one:
        value = url_state.choose("Value", "value", list(known), known.__getitem__) or next(iter(known))
    with two:
        label = pickers.choose_label(run["run"], "Of which label", tokens=True)
    with three:
        split = url_state.choose("Of which tokens", "split", list(loads.SPLITS), disabled=bool(label)) or "everything"
    return value, label, "everything" if label else split


@panels.part
def heat(run: Row) -> None:
    """Layer × expert; a click opens the expert."""
    value, label, split = choose(run)
    part = bool(label) or split != "everything"
    apart = part and value in loads.PARTS and url_state.toggle("Difference from everything", "difference")
    frame, sql, params, kept = loads.of(run, value, label, split)
    if frame.empty or not frame["asked"].sum():
        panels.empty(
            "Nothing was routed there",
            "Choose everything, or trace data that has such tokens (`--generate N` for generated ones).",
        )
        return
    panels.small_count_note(frame["asked"].sum() / max(frame["router"].nunique(), 1))
    named = loads.values(run["run"])[value]
    of = f", {panels.said_label(label)}" if label else f", {split}" if part else ""
    words = {"title": f"{named.capitalize()}{of}: difference from everything" if apart else named.capitalize() + of}
    shown = "difference" if apart else value
    counts = ["asked", "assignments", "lost"] if loads.drops(run["run"]) else ["assignments"]
    more = ["low", "high"] if value in loads.PARTS and not apart else []
    layer_maps.show(
        run["run"], frame, shown, words["title"], sql, params, name=f"load-{shown}", even=value in loads.PARTS,
        tooltip=[*counts, *more, *(["overall"] if part else [])],
        format="+.0%" if apart else ".3~g" if value == "mean" else ".0%", **({"centre": 0} if apart else {}),
    )  # fmt: skip
    sampling.sample_note(kept)


def by_layer(run: Row) -> None:
    """Balance and certainty along the layers."""
    panels.section(
        "Along the layers",
        "Load entropy: how evenly what ran is spread over the layer's experts. Routing entropy: how undecided one decision is.",
    )
    frame = balance.figures(run)
    if frame.empty:
        return
    frame = pickers.grouped(run["run"], frame).assign(
        low=(frame["routing_entropy"] - frame["sd"]).clip(lower=0), high=frame["routing_entropy"] + frame["sd"]
    )
    counted = balance.counted(run)
    words = "band: 95 % over documents" if counted else "its interval over documents: below, on a click"
    left, right = st.columns(2)
    with left:
        line(
            run, frame, "load_entropy", counted, title="Load entropy, of its maximum", subtitle=words, chance=1.0,
            chance_label="even load", tooltip=["max_violation", "dead", "dropped_share"], zero=True,
        )  # fmt: skip
    with right:
        line(
            run, frame, "routing_entropy", ("low", "high"), title="Entropy of a decision, of its maximum",
            subtitle="band: one standard deviation over decisions", chance=1.0, chance_label="uniform", zero=True,
        )  # fmt: skip
    left, right = st.columns(2)
    with left:
        said = "; ".join(filter(None, ("(largest load − mean) / mean", words)))
        title = "Overload of the busiest expert (MaxVio)"
        line(run, frame, "max_violation", counted, title=title, subtitle=said, chance=0.0, chance_label="even load", zero=True)
    with right:
        dropped(run, frame)


def line(run: Row, frame: pd.DataFrame, y: str, span: bool | tuple[str, str], **said: Any) -> None:
    """A figure along the layers. `span`: the columns of its band, or whether it has its own."""
    low, high = span if isinstance(span, tuple) else (f"{y}_low", f"{y}_high") if span else (None, None)
    chart = charts.lines(frame, "layer", y, "stack", low, high, **said)
    figures.figure(chart, balance.BALANCE, [run["run"]], name=y.removesuffix("_share").replace("_", "-"))


def dropped(run: Row, frame: pd.DataFrame) -> None:
    """What found its expert full."""
    if (frame["dropped_share"].fillna(0) > 0).any():
        line(run, frame, "dropped_share", False, title="Dropped for want of capacity", zero=True, format=".1%")
    else:
        panels.empty("Nothing was dropped", "No expert was ever full: the model has no capacity limit, or it was large enough.")


def render() -> None:
    """The page."""
    panels.head(
        "Load and entropy",
        "Which experts work, on what, how evenly; and how sure the routers are.",
        "In the maps white is an even share and full colour nothing, or twice as much; a dashed line is what "
        "even load or chance would give.",
    )
    run = pickers.the_run()
    if run is None or not pickers.layers(run["run"]):
        panels.unrouted(run)
        return
    answers.verdict("load", run)
    trains = training_end.last(run["run"]) is not None
    if trains:  # how it ended first: sums over all of its steps say little
        panels.guarded(training.show, run)
        panels.section("All steps together", "What follows is summed over the whole run, from its first step on.")
    heat(run)
    leaves.show(run)
    by_layer(run)
    if not trains:
        panels.guarded(training.show, run)
    capacity.show(run)
    answers.ask("load", run, wait=True)


render()
