"""What if experts had room for more or fewer tokens, and if the surest tokens took their places first?"""

from typing import Any

import pandas as pd
import streamlit as st

from moescope import charts
from moescope.app import url_state, wording
from moescope.app.parts import figures, panels, pickers
from moescope.app.queries import store_access

MEASURES = {
    "dropped_share": "assignments dropped",
    "dropped_weight": "weight dropped",
    "unrouted": "tokens left without any expert",
}
ORDERS = {"vanilla": "in order", "batch prioritized": "surest first"}
SMALL = 200_000  # assignments that are dealt without being asked
Row = dict[str, Any]


@st.cache_data(max_entries=20, show_spinner=False)
def dealt(where: str, state: tuple[Any, ...], run: int) -> tuple[pd.DataFrame, str, list[str]]:
    """Every decision dealt into buffers of other sizes, its SQL, and what was left out."""
    from moescope.analyses._shared import scope  # SciPy is behind it
    from moescope.analyses.load import capacity

    notes: list[str] = []
    frame, sql = capacity.what_if(scope.scope(store_access.reader(), run), notes)
    return frame, sql, notes


@panels.part
def show(run: Row) -> None:
    """Capacity and batch priority: what would be dropped."""
    panels.section(
        "What if capacity were another",
        "Every decision dealt again into buffers of ratio × tokens × k / experts places, a multiple of 4 (V-MoE): "
        "in the order of the tokens, and with the surest tokens first.",
    )
    if run["status"] != "complete":
        panels.empty("Not while the run grows", "The tokens of a forward pass compete for places: look again when it is done.")
        return
    if panels.unranked(run):
        return
    if not run["decisions"]:
        panels.empty(
            "No decisions", "This run holds counts of experts alone: tokens that could compete for places are not known."
        )
        return
    big = (run["assignments"] or 0) > SMALL
    if (big or not url_state.attended) and not url_state.asked("Deal the tokens again", "what-if", big):
        return
    with st.spinner("Dealing tokens into buffers …", show_time=True):
        frame, sql, notes = dealt(str(store_access.path()), store_access.held().look(), run["run"])
    one, two = st.columns([1, 2], vertical_alignment="bottom")
    with one:
        measure = url_state.choose("Count", "count", list(MEASURES), MEASURES.__getitem__) or "dropped_share"
    with two:
        panels.reading(said(frame))
    frame = frame.assign(tokens=frame["order"].map(ORDERS))
    both = frame.groupby(["stack", "ratio", "tokens"], as_index=False, dropna=False)[list(MEASURES)].mean()
    both = both.assign(tokens=_named(both))
    left, right = st.columns(2)
    with left:
        chart = charts.lines(
            both, "ratio", measure, "tokens", title=f"Share of {MEASURES[measure]}",
            subtitle="mean of the layers; 1.0 is room for even load", format=".0%", zero=True,
        )  # fmt: skip
        figures.figure(chart, sql, name="what-if")
    with right:
        some = frame[frame["order"] == "vanilla"] if measure == "dropped_share" else frame[frame["order"] != "vanilla"]
        labels = pickers.labels(run["run"])
        order = "either order" if measure == "dropped_share" else "surest first"
        figures.heat(
            some.assign(place=some["router"].map(labels)), "ratio", "place", measure, f"By layer, {order}", sql,
            name="what-if-layers", format=".0%", tooltip=list(MEASURES), limits=(0.0, 1.0),
            clicked=lambda _, place: url_state.request_page("experts", run=run["run"], layer=place, show="all"), opens="layer",
        )  # fmt: skip
    for note in notes:
        st.caption(f":material/info: {panels.plain(note, 300)}")


def _named(both: pd.DataFrame) -> Any:
    """Orders, with their stack where there are several."""
    return both["tokens"] if both["stack"].nunique() < 2 else both["stack"] + ", " + both["tokens"]


def said(frame: pd.DataFrame) -> str:
    """What the smallest room for even load costs, in a sentence."""
    at = frame[frame["ratio"] == 1.0].groupby("order")[list(MEASURES)].mean()
    plain, prior = at.loc["vanilla"], at.loc["batch prioritized"]
    return (
        f"With room for even load only, {wording.share(plain['dropped_share'])} of the assignments would be dropped, carrying "
        f"{wording.share(plain['dropped_weight'])} of the weight in the tokens' order and "
        f"{wording.share(prior['dropped_weight'])} with the surest first."
    )
