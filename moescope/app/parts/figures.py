"""Figures of a page: charts, heat maps, bars and tables, each with the SQL behind it and what it shows as files."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pandas as pd
import streamlit as st
from altair.utils import schemapi

from moescope import charts
from moescope.app.components import heat_map
from moescope.app.parts import links, pickers, signed
from moescope.app.parts.panels import guarded
from moescope.pictures import bars
from moescope.store.files.exports import csv_of

schemapi.DEBUG_MODE = False  # Altair checks each part of a chart as it is made: needless for ours, and a third of their time


def filled(sql: str, params: Sequence[Any]) -> str:
    """The query with its parameters written in, as it can be run on the SQL page."""
    pieces = sql.strip().split("?")
    words = [_literal(value) for value in params]
    return "".join(piece + word for piece, word in zip(pieces, [*words, ""], strict=False))


def _literal(value: Any) -> str:
    if value is None:
        return "null"
    return str(value) if isinstance(value, int | float) else "'" + str(value).replace("'", "''") + "'"


def figure(chart: Any, sql: str, params: Sequence[Any] = (), *, name: str, opens: bool = True) -> None:
    """A chart with its SQL and its files, of which the CSV is what it draws."""
    figure_of(chart, charts.drawn(chart), filled(sql, params), name=name, opens=opens)


def figure_of(chart: Any, frame: pd.DataFrame, sql: str, *, name: str, opens: bool = True) -> None:
    """A chart that draws `frame`, as analyses give it, with its SQL and its files; marks open what their row names."""
    chart = chart.properties(padding={"left": 0, "right": 4, "top": 4, "bottom": 0})  # Streamlit's own leaves a line free
    shown = charts.linked(chart, links.links(pickers.shown(), charts.drawn(chart))) if opens else chart
    st.altair_chart(shown, key=f"chart-{name}", width="stretch", height=_room(chart))
    files(frame, sql, name=name, chart=chart)


def _room(chart: Any) -> Any:
    """Height with title and axes: Streamlit fits all of a chart into its height, alone it is the plot's."""
    height = getattr(chart, "height", None)
    lines = 1 + bool(getattr(getattr(chart, "title", None), "subtitle", None))
    return int(height) + (92 if height < 250 else 52) + 20 * lines if isinstance(height, int | float) else "content"


def heat(
    frame: pd.DataFrame,
    x: str,
    y: str,
    value: str,
    title: str,
    sql: str,
    params: Sequence[Any] = (),
    *,
    name: str,
    clicked: Callable[[Any, Any], None] | None = None,
    opens: str = "expert",
    **look: Any,
) -> None:
    """A heat map with its SQL and its files; `look` as in `heat_map.data_of`.

    `clicked` gets the column and row of a clicked cell, as a callback: it opens its page with `url_state.request_page`; that is
    what the map says to be `opens`.
    """
    data = heat_map.data_of(frame, x, y, value, title, click=opens if clicked is not None else "", **look)
    heat_map.show(data, f"heat-{name}", clicked)
    files(frame, sql, params, name=name, chart=lambda: charts.heatmap(frame, x, y, value, title, **look))


def ranked(
    frame: pd.DataFrame,
    x: str,
    y: str,
    sql: str,
    params: Sequence[Any] = (),
    *,
    name: str,
    **look: Any,
) -> None:
    """Bars from the largest down, with their SQL and files; `look` as in `bars.drawn`. Names open what their row names."""
    frame = frame.sort_values(y, ascending=False, kind="stable")
    st.html(bars.drawn(frame, x, y, links=[address for address, _ in links.links(pickers.shown(), frame)], **look))
    chart = partial(charts.bars, frame, x, y, horizontal=True, sort="-y", **look)
    files(frame, sql, params, name=name, chart=chart)


@st.fragment
def files(
    frame: pd.DataFrame, sql: str, params: Sequence[Any] = (), *, name: str, chart: Any = None, drawing: Any = None
) -> None:
    """The SQL behind a panel, and what it shows as CSV (and PNG, SVG, PDF where there is a chart, or a way to make it).

    `drawing` makes an SVG of the line that says where it is from, where the picture is no chart. Each is made when asked for.
    """
    with st.popover(
        "SQL · files", type="tertiary", icon=":material/data_object:", key=f"files-{name}", on_change="rerun"
    ) as box:
        if box.open:
            guarded(_files, frame, filled(sql, params), name, chart, drawing)


def _files(frame: pd.DataFrame, sql: str, name: str, chart: Any, drawing: Any) -> None:
    st.code(sql, language="sql", wrap_lines=True)
    kinds: list[tuple[str, Callable[[], Any], str]] = [("CSV", lambda: csv_of(frame), "text/csv")]
    if chart is not None or drawing is not None:
        words = signed.signature(pickers.the_run())
        svg = (
            partial(drawing, words)
            if drawing
            else lambda: charts.to_svg(charts.signed(chart() if callable(chart) else chart, words))
        )
        kinds += [
            ("PNG", lambda: charts.svg_to_png(svg()), "image/png"),
            ("SVG", svg, "image/svg+xml"),
            ("PDF", lambda: charts.svg_to_pdf(svg()), "application/pdf"),
        ]
    for column, (kind, make, mime) in zip(st.columns(len(kinds)), kinds, strict=True):
        column.download_button(
            kind, make, signed.file_name(name, kind.lower()), mime, key=f"{name}-{kind}", on_click="ignore", width="stretch"
        )


def table(frame: pd.DataFrame, sql: str, params: Sequence[Any] = (), *, name: str, **more: Any) -> None:
    """A table with its SQL and its file."""
    st.dataframe(frame, hide_index=True, width="stretch", placeholder="–", **more)
    files(frame, sql, params, name=name)
