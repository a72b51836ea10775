"""Tokens: text and patches coloured by expert, encoder beside decoder; a click shows a token's route and alternatives."""

from typing import Any

import streamlit as st

from moescope.app import url_state
from moescope.app.components import colored_tokens
from moescope.app.parts import panels, pickers, route_panel, sequence_picker
from moescope.app.queries import pictures, token_routes

PAGE = {"title": "Tokens", "icon": ":material/match_word:", "order": 2, "group": "Look"}
BY = {
    "first": "first expert",
    "expert": "weight of one expert",
    "entropy": "entropy of the decision",
    "margin": "margin of the decision",
}
Row = dict[str, Any]


def bar(run: Row) -> tuple[pickers.Layer, str, int, bool] | None:
    """Layer, and what the colour says."""
    one, two, three, four = st.columns([1.2, 1.4, 1.2, 1], vertical_alignment="bottom")
    with one:
        layer = pickers.choose_layer(run["run"])
    if layer is None:
        return None
    with two:
        by = url_state.choose("Colour", "by", list(BY), BY.__getitem__) or "first"
    expert = 0
    if by == "expert":
        with three:
            expert = pickers.choose_expert(layer)
    with four:
        numbers = url_state.toggle("Expert numbers", "numbers")
    return layer, by, expert, numbers


def draw(
    run: Row, sequence: Row, layer: pickers.Layer, place: int, by: str, expert: int, numbers: bool, forward: int | None
) -> None:
    """One sequence, coloured."""
    frame, params = token_routes.tokens(sequence["sequence"], layer, sequence_picker.page_of(sequence, place), forward)
    if frame.empty:
        panels.empty("This sequence has no token", "Choose another one.")
        return
    size = (int(sequence["height"]), int(sequence["width"])) if sequence["height"] and sequence["width"] else None
    image = None
    if size:
        image = pictures.data_url(run["dataset"], sequence["source_row"]) or pictures.kept_url(sequence["sequence"])
    data = colored_tokens.data_of(
        frame,
        colored_tokens.paint(frame, by, layer.experts, expert),
        search=url_state.get("q") or "",
        numbers=numbers,
        image=image,
        size=size,
        selected=url_state.number("token"),
        pictures=None if size else pictures.panels(sequence["sequence"]),
        label=f"tokens by {BY[by]}, {layer.label}",
    )
    st.caption(
        f"**{panels.plain(layer.label)}** · {layer.experts} experts · even load {layer.even:.1%} · "
        f"{panels.plain(sequence_picker.name_of(sequence), 60)}"
    )
    colored_tokens.show(data, key=f"tokens-{place}")
    if size and image is None:
        st.caption("The store holds no pixels and this data set is not shipped with moescope: only the patches are drawn.")
    shown = frame[["token", "position", "text", "experts", "weights", "drops", "entropy", "margin", "labels"]]
    panels.files(shown, token_routes.routes_sql(forward), params, name=f"tokens-{place}")


@panels.part
def viewer(run: Row) -> None:
    """Filters, text and route."""
    chosen = bar(run)
    if chosen is None:
        panels.unrouted(run)
        return
    layer = chosen[0]
    sequence = sequence_picker.find(run, layer.stack)
    if sequence is None:
        return
    sides = beside(run, sequence, layer)
    colored_tokens.forget(*(f"tokens-{place}" for place in range(len(sides))))
    sheet(run, sides, *chosen[1:], sequence["sequence"], sequence_picker.step(sequence, layer.router))


@panels.part
def sheet(
    run: Row, sides: list[tuple[Row, pickers.Layer]], by: str, expert: int, numbers: bool, sequence: int, forward: int | None
) -> None:
    """The tokens and the route of one of them: a click draws only this again. `forward` is one of the chosen `sequence`."""
    for place, (column, (side, at)) in enumerate(zip(st.columns(len(sides), gap="medium"), sides, strict=True)):
        with column, st.container(border=True):
            draw(run, side, at, place, by, expert, numbers, forward if side["sequence"] == sequence else None)
    token = url_state.number("token")
    if token is None:
        st.caption(":material/touch_app: Click a token for its route through all layers; Tab, arrow keys and Enter do it too.")
    else:
        route_panel.show(run["run"], token, forward if sequence_picker.home(run, token) == sequence else None)


def beside(run: Row, sequence: Row, layer: pickers.Layer) -> list[tuple[Row, pickers.Layer]]:
    """What stands side by side: encoder and decoder of one input, or one image in up to three layers."""
    if sequence["height"]:
        same = [x for x in pickers.layers(run["run"]) if x.stack == layer.stack]
        begin = max(min(same.index(layer) - 1, len(same) - 3), 0)
        return [(sequence, x) for x in same[begin : begin + 3]]
    others = token_routes.partners(sequence, run["run"])
    sides = [(sequence, layer), *((o, match(run["run"], o["stack"], layer)) for o in others)]
    return sorted(sides, key=lambda side: side[0]["stack"] != "encoder")


def match(run: int, stack: str, layer: pickers.Layer) -> pickers.Layer:
    """The layer of the other stack that stands beside this one."""
    there = [x for x in pickers.layers(run) if x.stack == stack]
    return min(there, key=lambda x: abs(x.layer - layer.layer)) if there else layer


def render() -> None:
    """The page."""
    panels.head("Tokens", "Every token in the colour of its expert. Hover for weights; click for the route through all layers.")
    run = pickers.the_run()
    if run is None:
        panels.empty("This store has no run yet", "Trace a model into it: `moescope trace MODEL --data DATA --store STORE`")
        return
    viewer(run)


render()
