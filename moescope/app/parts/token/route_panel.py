"""The route of one token through all layers: experts, weights, entropy, margin, alternatives."""

from typing import Any

import pandas as pd
import streamlit as st

from moescope.app import url_state, wording
from moescope.app.parts import figures, note_field, panels, pickers
from moescope.app.queries import next_best, store_access, token_routes
from moescope.pictures import route_table
from moescope.show.route import rows_of
from moescope.store import notes

Row = dict[str, Any]


def beside(run: int, token: int | None, forward: int | None = None) -> None:
    """The route of the chosen token beside its text, where it stays in sight; how to choose one, while there is none."""
    st.html('<div class="ms-beside"></div>')  # by it the page's style finds the column
    if token is None:
        st.caption(":material/touch_app: Click a token for its route through all layers; Tab, arrow keys and Enter do it too.")
    else:
        show(run, token, forward)


def show(run: int, token: int, forward: int | None = None) -> None:
    """Everything the store knows about one token's way, in one forward pass where the token has several."""
    about = token_routes.about(token, run)
    if about is None:
        panels.empty("This token is not in the run that is shown", "Click another token, or choose its run on the left.")
        return
    _title(about)
    path, sure, sql = token_routes.way(token, run, forward)
    if path.empty:
        panels.empty("No expert ran for this token", "It was looked at by no traced router, or dropped everywhere.")
        return
    _table(path, sure, token, run, forward)
    note_field.field(*notes.token(store_access.reader(), token), key="token")
    _chart(path, sql, token, run)


def _title(about: Row) -> None:
    name = about["unit"] if about["text"] is None else wording.visible(about["text"])
    place = (
        f"patch {about['y']}, {about['x']}"
        if about["unit"] != "text" and about["y"] is not None
        else f"position {about['position']}"
    )
    made = " · generated" if about["generated"] else ""
    words = [
        place + made,
        wording.markup(about["document"]),
        wording.markup(about["labels"] or "no labels"),
        f"token {about['token']}",
    ]
    st.html(f'<div class="ms-run"><b>Route of “{wording.markup(name)}”</b><span>{" · ".join(words)}</span></div>')


def _table(path: pd.DataFrame, sure: list[Row], token: int, run: int, forward: int | None) -> None:
    known = {(d["router"], d["iteration"]): d for d in sure}
    others = next_best.of(token, run, forward)
    labels = pickers.labels(run)
    rows = rows_of(path, known, labels)
    keys = list(path.groupby(["router", "iteration"], sort=False).groups)
    then = [others[key].words if key in others else "–" for key in keys] if others else []
    st.html(route_table.drawn(rows, then))
    for words in next_best.sentences(others, labels):
        st.caption(panels.plain(words, 600))
    if not others:
        st.caption(
            "Alternatives need router logits of routers whose tokens choose experts: trace with `--logits 1` to have them."
        )


def _chart(path: pd.DataFrame, sql: str, token: int, run: int) -> None:
    width = max(int(path["experts"].max()), int(path["expert"].max()) + 1)  # with those that are no routed experts
    known = {layer.label.removeprefix("layer "): layer for layer in pickers.layers(run)}
    names = {layer.router: name for name, layer in known.items()}
    frame = path.groupby(["router", "expert"], as_index=False)["weight"].sum()
    frame = frame.assign(layer=frame["router"].map(names))
    there = set(frame["layer"])

    def opened(expert: int, layer: str) -> None:
        url_state.request_page("experts", layer=known[layer].label, expert=expert)

    figures.heat(
        frame, "expert", "layer", "weight", "Weights along the way", sql, [token, run], name="route",
        clicked=opened, across=range(width), down=[name for name in reversed(known) if name in there],
    )  # fmt: skip
