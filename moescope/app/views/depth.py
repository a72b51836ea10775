"""Depth: how many blocks and recursions run for a token; text coloured by it; by label, position and token."""

from typing import Any

import streamlit as st

from moescope.app import url_state
from moescope.app.components import colored_tokens
from moescope.app.parts import answers, figures, panels, pickers
from moescope.app.parts.token import route_panel, sequence_picker
from moescope.app.queries import depths, pictures, store_access

PAGE = {"title": "Depth", "icon": ":material/layers:", "order": 9, "group": "Meaning"}
Row = dict[str, Any]


@panels.part
def text(run: Row, stacks: list[str]) -> None:
    """One sequence, coloured by depth, and the route of a token that is clicked."""
    panels.section(
        "Token by token", "The stronger the colour, the more blocks ran. Hover for which; click for the token's route."
    )
    stack = stacks[0]
    if len(stacks) > 1:
        with st.columns([1, 4])[0]:
            stack = url_state.choose("Stack", "stack", stacks) or stack
    sequence = sequence_picker.find(run, stack)
    if sequence is None:
        return
    router = store_access.rows(depths.ROUTERS, run["run"])[0]["router"]
    forward = sequence_picker.step(sequence, router)
    frame = depths.tokens(
        run["run"], sequence["sequence"], sequence_picker.page_of(sequence, 0), forward, pickers.labels(run["run"])
    )
    if frame.empty:
        panels.empty("This sequence has no token", "Choose another one.")
        return
    colored_tokens.forget("depth-tokens")
    sheet(run, sequence, frame, forward)


@panels.part
def sheet(run: Row, sequence: Row, frame: Any, forward: int | None) -> None:
    """The tokens and the route of one of them: a click draws only this again."""
    token = sequence_picker.shown_token(run, [sequence["sequence"]])
    text, route = st.columns([3, 2], gap="medium")
    with text:
        draw(run, sequence, frame, forward)
    with route:
        route_panel.beside(run["run"], token, forward)


def draw(run: Row, sequence: Row, frame: Any, forward: int | None) -> None:
    """The coloured tokens, with their SQL."""
    size = (int(sequence["height"]), int(sequence["width"])) if sequence["height"] and sequence["width"] else None
    most = int(store_access.rows(depths.MOST, run["run"])[0]["most"])
    data = colored_tokens.data_of(
        frame, colored_tokens.paint_depth(frame["depth"].tolist(), most), search=url_state.get("q") or "", size=size,
        image=pictures.data_url(run["dataset"], sequence["source_row"]) if size else None,
        selected=url_state.number("token"), label="tokens by depth", noun="block",
    )  # fmt: skip
    colored_tokens.show(data, key="depth-tokens")
    shown = frame[["token", "position", "text", "depth", "considered", "experts", "labels"]].rename(columns={"experts": "ran"})
    figures.files(shown, depths.depth_sql(forward), [sequence["sequence"], run["run"]], name="depth-sheet")


def answered(answer: Any) -> None:
    """The answer's charts, and the tables of labels and of tokens."""
    answers.show(answer)
    for name, words in (("labels", "By label and position"), ("tokens", "By token, the deepest first")):
        frame = answer.frames[name]
        if frame.empty:
            continue
        panels.section(words, "Mean depth with its interval over documents; chance is the mean of all that have such a label.")
        first = ["text"] if name == "tokens" else ["subset"]
        columns = [*first, "value", "ci_low", "ci_high", "chance", "p", "q", "n", "units"]
        figures.table(frame[columns].head(500), answer.sql[name], name=f"depth-{name}")
        panels.cut_note(min(len(frame), 500), len(frame), "rows are shown")


def render() -> None:
    """The page."""
    panels.head(
        "Depth",
        "How many of the blocks and recursions that may be left out run for a token, and for which tokens.",
        "The stronger the colour, the deeper a token went; figures stand beside the mean of all tokens.",
    )
    run = pickers.the_run()
    if run is None or not pickers.layers(run["run"]):
        panels.unrouted(run)
        return
    stacks = [row["stack"] for row in store_access.rows(depths.STACKS, run["run"])]
    if not stacks:
        panels.empty(
            "No router of this run decides about depth",
            "Every token goes through every block; one that skips: `moescope trace mor --data text --store STORE`",
        )
        return
    answers.verdict("depth", run)
    text(run, stacks)
    answers.ask("depth", run, draw=answered)


render()
