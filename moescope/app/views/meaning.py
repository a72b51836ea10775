"""Syntax or meaning: does routing follow form, meaning, or the token itself? With nulls, and a map of routing signatures."""

from functools import partial
from typing import Any

import streamlit as st

from moescope import charts
from moescope.app import url_state
from moescope.app.components import scatter
from moescope.app.parts import answers, figures, panels, pickers, signature_maps
from moescope.app.queries import sampling, store_access
from moescope.app.wording import clean, some, visible

PAGE = {"title": "Syntax or meaning", "icon": ":material/psychology_alt:", "order": 7, "group": "Meaning"}
QUESTIONS = {
    "syntax": "form or meaning, by layer",
    "syntax_experts": "experts of form and of meaning",
    "specialization": "domains and classes",
    "senses": "one token, two senses",
    "signatures": "tokens and experts that are routed alike",
    "path_probe": "path to part of speech",
    "modality": "text, images, video, audio",
}
Row = dict[str, Any]


@panels.part
def questions(run: Row) -> None:
    """Mutual information with nulls and intervals, as the analyses give it."""
    entries = {e["name"]: e for e in answers.known(*QUESTIONS)}
    if not entries:
        panels.empty("No analysis of meaning is installed", "Install the moescope that has `moescope/analyses/syntax.py`.")
        return
    one, two = st.columns([2, 1])
    with one:
        name = url_state.choose("Question", "question", list(entries), lambda n: QUESTIONS.get(n, n)) or next(iter(entries))
    option = next((o for o in ("kinds", "by") if o in entries[name]["options"]), None)
    kinds = ["", *pickers.labels_of(run["run"], tokens=True)] if option else []
    with two:
        kind = url_state.choose("Labels", "labels", kinds, lambda k: k or "those that the question is made for")
    for other in entries:
        if other != name:
            answers.verdict(other, run)
    answers.ask(name, run, **({option: kind} if option and kind else {}))


@panels.part
def atlas(run: Row) -> None:
    """Tokens by their routing signature; a brush lists them."""
    panels.section(
        "Map of routing signatures",
        "Each point is a token, placed by the experts it takes through all layers. Drag to list tokens, click one for its "
        "route; Tab, arrow keys, Space and Enter do it too.",
    )
    stack, how, by, seed = asked(run)
    with st.spinner("Placing tokens …", show_time=True):
        sql, kept = signature_maps.sample_sql(run)
        frame = signature_maps.place(str(store_access.path()), store_access.held().look(), sql, run["run"], stack, how, seed)
    if frame.empty:
        panels.empty("Too few tokens for a map", "A map needs 30 tokens or more: trace more data.")
        return
    label = frame["document"] if by == "document" else frame["labels"].map(lambda known: (known or {}).get(by))
    frame = frame.assign(
        label=label, colour=signature_maps.few_names(label.map(lambda v: clean(v, 24) if v else None)),
        token_text=frame["text"].map(visible),
    )  # fmt: skip
    left, right = st.columns([3, 2], gap="medium")
    with left:
        says = (
            "distances between clusters mean nothing; try another seed" if how == "UMAP" else "first two principal components"
        )
        title = f"{how} of {some(len(frame), 'token')}"
        data = scatter.data_of(frame, "across", "up", "colour", "token_text", ("document", "label"), title, says, "its route")
        brush = scatter.show(data, "brush", partial(url_state.to_token, run["run"], frame))
        chart = partial(charts.scatter, frame, "across", "up", "colour", title, subtitle=says, axes=False)
        params = [run["run"], stack, signature_maps.MOST, run["run"]]
        figures.files(frame, sql, params, name="map", chart=chart)
        sampling.sample_note(kept)
    with right:
        listed(run, frame, brush)


def asked(run: Row) -> tuple[str, str, str, int]:
    """Stack, kind of map, colour and seed, as the visitor chose them."""
    stacks = list(dict.fromkeys(x.stack for x in pickers.layers(run["run"])))
    one, two, three, four = st.columns(4)
    with one:
        stack = url_state.choose("Stack", "stack", stacks) or ""
    with two:
        how = url_state.choose("Map", "map", ["PCA", "UMAP"]) or "PCA"
    with three:
        by = url_state.choose("Colour", "tint", [*pickers.labels_of(run["run"], tokens=True), "document"], clean) or "document"
    with four:
        seed = url_state.choose("Seed", "seed", [0, 1, 2], disabled=how == "PCA") or 0
    return stack, how, by, int(seed)


def listed(run: Row, frame: Any, brush: list[float] | None) -> None:
    """The tokens under the brush; choosing one opens its route."""
    if brush:
        frame = frame[frame["across"].between(*brush[:2]) & frame["up"].between(*brush[2:])]
    st.caption(
        f"{some(len(frame), 'token')}{'' if brush else ' (drag over the map to choose)'}; choose a row to see its route."
    )
    shown = frame[["token_text", "label", "document"]].head(400)
    url_state.row(shown, "brushed", partial(url_state.to_token, run["run"], frame), height=440)
    panels.cut_note(len(shown), len(frame), "tokens are listed")


def render() -> None:
    """The page."""
    panels.head(
        "Syntax or meaning",
        "Does routing follow form or meaning once it is known which token it is? Figures with nulls and intervals.",
        "Bits are what routing tells of a label beyond the token itself; 0, and an interval that holds it, is nothing.",
    )
    run = pickers.the_run()
    if run is None or not pickers.layers(run["run"]):
        panels.unrouted(run, "labelled text")
        return
    questions(run)
    atlas(run)


render()
