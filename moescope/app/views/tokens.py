"""Tokens: text and patches coloured by expert, encoder beside decoder; a click shows a token's route and alternatives."""

from typing import Any

import streamlit as st

from moescope.app import url_state
from moescope.app.components import colored_tokens
from moescope.app.parts import panels, pickers, route_panel
from moescope.app.queries import pictures, store_access, token_routes
from moescope.app.wording import clean

PAGE = {"title": "Tokens", "icon": ":material/match_word:", "order": 2, "group": "Look"}
BY = {
    "first": "first expert",
    "expert": "weight of one expert",
    "entropy": "entropy of the decision",
    "margin": "margin of the decision",
}
Row = dict[str, Any]


def name_of(row: Row) -> str:
    """A sequence in the list."""
    name = str(row["document"] or f"sequence {row['sequence']}") + (f" ({row['part']})" if row["part"] else "")
    labels = [str(row[k]) for k in ("domain", "class") if row[k]]
    return clean(" · ".join([name, *labels, row["text"] or f"{row['tokens']} tokens"]), 110)


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


def find(run: Row, stack: str) -> Row | None:
    """Which sequence: by label, by search, from a list."""
    one, two, three = st.columns([1, 1.2, 3], vertical_alignment="bottom")
    with one:
        label = pickers.choose_label(run["run"])
    with two:
        search = url_state.typed("Search", "q", placeholder="a word, a token, a document", icon=":material/search:")
    found = {row["sequence"]: row for row in token_routes.sequences(run["run"], stack, label, search)}
    with three:
        if url_state.get("sequence") is None and (token := url_state.number("token")) is not None:
            at = store_access.rows("select sequence from tokens where token = ? and run = ?", token, run["run"])
            url_state.put("sequence", at[0]["sequence"] if at else None)
        picked = url_state.choose(
            f"Sequence ({len(found)}{'+' if len(found) == 300 else ''})", "sequence", list(found), lambda s: name_of(found[s])
        )
    if picked is None:
        panels.empty("No sequence like that", "Choose everything as domain, or search for a shorter piece of text.")
        return None
    return found[picked]


def page_of(sequence: Row, place: int) -> int:
    """Which piece of a long sequence; it starts where the chosen token is."""
    count = store_access.rows("select count(*) as n from tokens where sequence = ?", sequence["sequence"])[0]["n"]
    pages = -(-count // token_routes.PAGE)
    if pages < 2:
        return 0
    at = store_access.rows(
        "select position from tokens where token = ? and sequence = ?", url_state.number("token") or -1, sequence["sequence"]
    )
    begin = min(at[0]["position"] // token_routes.PAGE, pages - 1) + 1 if at else 1
    return url_state.whole(f"Page of {pages}", f"page{place or ''}", 1, pages, begin) - 1


def draw(run: Row, sequence: Row, layer: pickers.Layer, place: int, by: str, expert: int, numbers: bool) -> None:
    """One sequence, coloured."""
    frame, params = token_routes.tokens(sequence["sequence"], layer, page_of(sequence, place))
    if frame.empty:
        panels.empty("This sequence has no token", "Choose another one.")
        return
    size = (int(sequence["height"]), int(sequence["width"])) if sequence["height"] and sequence["width"] else None
    image = pictures.data_url(run["dataset"], sequence["source_row"]) if size else None
    data = colored_tokens.data_of(
        frame,
        colored_tokens.paint(frame, by, layer.experts, expert),
        search=url_state.get("q") or "",
        numbers=numbers,
        image=image,
        size=size,
        selected=url_state.number("token"),
        label=f"tokens by {BY[by]}, {layer.label}",
    )
    st.caption(
        f"**{panels.plain(layer.label)}** · {layer.experts} experts · even load {layer.even:.1%} · "
        f"{panels.plain(name_of(sequence), 60)}"
    )
    colored_tokens.show(data, key=f"tokens-{place}")
    if size and image is None:
        st.caption("The store holds no pixels and this data set is not shipped with moescope: only the patches are drawn.")
    shown = frame[["token", "position", "text", "experts", "weights", "drops", "entropy", "margin", "labels"]]
    panels.files(shown, token_routes.ROUTES, params, name=f"tokens-{place}")


@panels.part
def viewer(run: Row) -> None:
    """Filters, text and route."""
    chosen = bar(run)
    if chosen is None:
        panels.unrouted(run)
        return
    layer = chosen[0]
    sequence = find(run, layer.stack)
    if sequence is None:
        return
    sides = beside(run, sequence, layer)
    colored_tokens.forget(*(f"tokens-{place}" for place in range(len(sides))))
    sheet(run, sides, *chosen[1:])


@panels.part
def sheet(run: Row, sides: list[tuple[Row, pickers.Layer]], by: str, expert: int, numbers: bool) -> None:
    """The tokens and the route of one of them: a click draws only this again."""
    for place, (column, (side, at)) in enumerate(zip(st.columns(len(sides), gap="medium"), sides, strict=True)):
        with column, st.container(border=True):
            draw(run, side, at, place, by, expert, numbers)
    token = url_state.number("token")
    if token is None:
        st.caption(":material/touch_app: Click a token for its route through all layers; Tab, arrow keys and Enter do it too.")
    else:
        route_panel.show(run["run"], token)


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
