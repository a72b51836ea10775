"""An expert of a vision model: a map of the places it takes, and a gallery of images with its patch outlined."""

from typing import Any
from urllib.parse import urlencode

import pandas as pd
import streamlit as st

from moescope.app import url_state
from moescope.app.parts import figures, panels, pickers
from moescope.app.queries import pictures, sampling
from moescope.app.queries.expert import patches
from moescope.app.queries.expert.experts import part_of
from moescope.app.wording import figure, markup, share

WHICH = {"most": "Highest weight", "random": "Random sample"}
Row = dict[str, Any]


def show(run: Row, layer: pickers.Layer, expert: int, frame: pd.DataFrame, sql: str, params: list[Any]) -> None:
    """Both, beside each other; `frame` as `patches.positions` gives it."""
    left, right = st.columns([4, 5], gap="medium")
    with left:
        panels.section("Where in the image", "Of the patches at each place, the share for which it ran.")
        overall = float(frame["here"].sum() / frame["patches"].sum())
        figures.heat(
            frame, "x", "y", "share", "Share of the patches at each place", sql, params, name="expert-places", format=".0%",
            chance=overall, limits=(0.0, 2 * overall) if overall else (0.0, 1.0), tooltip=["here", "patches"],
            across=range(int(frame["x"].max()) + 1), down=range(int(frame["y"].max()) + 1),
            subtitle=f"neutral: its share of all patches, {share(overall)}; full colour at none and at twice that",
        )  # fmt: skip
        sampling.sample_note(part_of(run, layer)[1])
    with right:
        panels.section("Its patches", "Images with a patch outlined whose first choice it was; click one for its route.")
        gallery(run, layer, expert, url_state.tabs("Which patches", "places", WHICH))


def gallery(run: Row, layer: pickers.Layer, expert: int, by: str) -> None:
    """The images, small, each a link to its tokens."""
    frame, sql, params = patches.places(run, layer, expert, by)
    if frame.empty:
        panels.empty("No patch has it as its first choice", "It may run only as a second choice.")
        return
    shown = "".join(_one(run, layer, row) for row in frame.itertuples())
    st.html(f'<div class="ms-gallery">{shown}</div>')
    figures.files(frame, sql, params, name="expert-patches")


def _one(run: Row, layer: pickers.Layer, row: Any) -> str:
    url = pictures.data_url(run["dataset"], row.source_row) or pictures.kept_url(int(row.sequence))
    image = f'<img src="{url}" alt="">' if url else ""
    high, wide = int(row.height), int(row.width)
    spot = f"left:{100 * row.x / wide:.2f}%;top:{100 * row.y / high:.2f}%;width:{100 / wide:.2f}%;height:{100 / high:.2f}%"
    place = {"run": run["run"], "layer": layer.label, "sequence": row.sequence, "token": row.token}
    words = " · ".join(filter(None, (row.label if isinstance(row.label, str) else "", figure(row.weight, ".2f"))))
    return (
        f'<a href="tokens?{markup(urlencode(place))}" target="_self" title="{markup(row.document)}, patch {row.y}, {row.x}">'
        f'<div style="aspect-ratio:{wide}/{high}">{image}<i style="{spot}"></i></div><small>{markup(words, 40)}</small></a>'
    )
