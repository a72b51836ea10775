"""Tokens: text and patches coloured by expert, encoder beside decoder; a click shows a token's route and alternatives."""

from typing import Any

import streamlit as st

from moescope.app import url_state
from moescope.app.components import colored_tokens
from moescope.app.parts import figures, panels, pickers
from moescope.app.parts.token import route_panel, sequence_picker
from moescope.app.queries import pictures, token_routes
from moescope.pictures import token_sheet

PAGE = {"title": "Tokens", "icon": ":material/match_word:", "order": 2, "group": "Look"}
BY = {
    "first": "first expert",
    "expert": "weight of one expert",
    "entropy": "entropy of the decision",
    "margin": "margin of the decision",
    "label": "label of the token",
}
SYMBOLS = (
    "*Italics*: made by the model in this run. ~~Struck through~~, or hatched: one of its experts was full, and it was dropped "
    "there. “·” and “↵”: a space, a line break. Entropy: how undecided the router was, in nats. Margin: "
    "the least weight chosen "
    "minus the best not chosen; near 0, it nearly went elsewhere."
)
Row = dict[str, Any]


def bar(run: Row) -> tuple[pickers.Layer, str, int, bool] | None:
    """Layer, and what the colour says."""
    one, two, three, four = st.columns([1.2, 1.4, 1.2, 1], vertical_alignment="bottom")
    with one:
        layer = pickers.choose_layer(run["run"])
    if layer is None:
        return None
    with two:
        ways = [way for way in BY if way != "label" or token_routes.kinds(run["run"])]
        by = url_state.choose("Colour", "by", ways, BY.__getitem__) or "first"
    expert = 0
    if by == "expert":
        with three:
            expert = pickers.choose_expert(layer)
    with four:
        numbers = url_state.toggle("Expert numbers", "numbers")
    return layer, by, expert, numbers


def choose_labels(run: Row) -> None:
    """Pickers of a kind of label of tokens, and of one of its values; nothing where no token has a label."""
    if not (kinds := token_routes.kinds(run["run"])):
        return
    one, two, _ = st.columns([1.2, 1.4, 2.2], vertical_alignment="bottom")
    with one:
        kind = url_state.choose("Labels", "marked", list(kinds), lambda k: panels.plain(k, 40))
    with two:
        values = ["", *kinds[kind or next(iter(kinds))]]
        url_state.choose("Only tokens", "only", values, lambda v: panels.plain(v, 40) if v else "all of them")


def chosen_labels(run: Row, frame: Any) -> tuple[list[str | None], str | None]:
    """The label of every token, of the kind that is chosen, and the value that is wanted (None: all)."""
    if not (kinds := token_routes.kinds(run["run"])):
        return [None] * len(frame), None
    asked = url_state.get("marked")
    kind = asked if asked in kinds else next(iter(kinds))
    wanted = url_state.get("only")
    return list(token_routes.labelled(frame, kind)), wanted if wanted in kinds[kind] else None


def painted(run: Row, frame: Any, by: str, layer: pickers.Layer, expert: int) -> dict[str, Any]:
    """Colours of tokens: by their routes or their labels, of all of them or of those with one label."""
    labels, wanted = chosen_labels(run, frame)
    by_label = by == "label"
    found = colored_tokens.paint_labels(labels) if by_label else colored_tokens.paint(frame, by, layer.experts, expert)
    return found if wanted is None else colored_tokens.only(found, [label == wanted for label in labels])


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
        painted(run, frame, by, layer, expert),
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
    title = f"Tokens by {BY[by]}, {layer.label}"
    figures.files(
        shown, token_routes.routes_sql(forward), params, name=f"tokens-{place}",
        drawing=lambda words: token_sheet.drawn(data, title, [f"{words}; {len(shown)} tokens are shown"]),
    )  # fmt: skip


@panels.part
def viewer(run: Row) -> None:
    """Filters, text and route."""
    chosen = bar(run)
    if chosen is None:
        panels.unrouted(run)
        return
    layer = chosen[0]
    choose_labels(run)
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
    token = sequence_picker.shown_token(run, [side["sequence"] for side, _ in sides])
    text, route = st.columns([3, 2] if len(sides) == 1 else [2, 1], gap="medium")
    with text:
        for place, (column, (side, at)) in enumerate(zip(st.columns(len(sides), gap="medium"), sides, strict=True)):
            with column, st.container(border=True):
                draw(run, side, at, place, by, expert, numbers, forward if side["sequence"] == sequence else None)
        st.caption(SYMBOLS)
    with route:
        which = forward if token is not None and sequence_picker.home(run, token) == sequence else None
        route_panel.beside(run["run"], token, which)


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
    panels.head(
        "Tokens",
        "Every token in the colour of its expert. Hover for weights; click for the route through all layers.",
        "Tokens of one colour had the same first choice in this layer; a stretch of one colour is a topic or "
        "a form that one expert takes.",
    )
    run = pickers.the_run()
    if run is None:
        panels.empty("This store has no run yet", "Trace a model into it: `moescope trace MODEL --data DATA --store STORE`")
        return
    viewer(run)


render()
