"""What pages are built from: a guard that turns failures into sentences, headings, cards, figures with SQL and files."""

import logging
from collections.abc import Callable, Sequence
from functools import partial, wraps
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import streamlit as st
from altair.utils import schemapi

from moescope import charts
from moescope.app import url_state
from moescope.app.components import heat_map
from moescope.app.parts import lacking, links, pickers, signed
from moescope.app.wording import clean, markup, plain, some
from moescope.errors import MoescopeError
from moescope.pictures import bars, scripts
from moescope.store.files.exports import csv_of

schemapi.DEBUG_MODE = False  # Altair checks each part of a chart as it is made: needless for ours, and a third of their time
CSS = Path(__file__).with_name("look.css").read_text() + scripts.read("expert_cards.css", "route_table.css")
SMALL = 200  # assignments below which a share is mostly noise


def guarded(render: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run a page or a part of one; whatever goes wrong becomes a sentence on the page."""
    try:
        return render(*args, **kwargs)
    except MoescopeError as error:
        sentence(str(error))
    except duckdb.InterruptException:
        sentence("This question took longer than 20 seconds and was stopped; choose fewer tokens, one layer or one domain.")
    except duckdb.OutOfMemoryException:
        sentence("This question needs more memory than the dashboard may use; choose fewer tokens, one layer or one domain.")
    except (duckdb.IOException, FileNotFoundError):
        logging.exception("reading the store failed")
        sentence("The store changed while this page was read; it is read again in a moment.")
    except Exception as error:
        logging.exception("a page failed")
        sentence(
            f"This part cannot be shown ({type(error).__name__}: {str(error).splitlines()[0][:160] if str(error) else ''}); "
            "the terminal says more."
        )
    return None


def part(render: Callable[..., Any]) -> Callable[..., Any]:
    """A fragment of a page: it is drawn again by itself, and fails by itself."""

    @wraps(render)
    def drawn(*args: Any, **kwargs: Any) -> Any:
        url_state.open_requested_page()
        return guarded(render, *args, **kwargs)

    fragment = st.fragment(drawn)
    return wraps(render)(lambda *args, **kwargs: (fragment if url_state.attended else drawn)(*args, **kwargs))


def sentence(text: str) -> None:
    """Something is wrong, in one sentence."""
    st.error(plain(text[:1].upper() + text[1:], 600), icon=":material/info:")


def style() -> None:
    """The few rules of our own."""
    st.html(f"<style>{CSS}</style>")


def head(title: str, words: str, how: str) -> None:
    """The page's heading, what it answers, and how to read it."""
    st.html(f'<div class="ms-head"><h1>{markup(title)}</h1><p>{markup(words)} <i>{markup(how, 600)}</i></p></div>')


def section(title: str, words: str = "") -> None:
    """A heading within a page."""
    st.html(f'<div class="ms-section"><h2>{markup(title)}</h2><p>{markup(words)}</p></div>')


def cards(items: Sequence[tuple[str, Any, str, str]]) -> None:
    """Figures at a glance: (label, value, note, tone), where tone is "", "good", "warn" or "bad"."""
    cells = "".join(
        f'<div class="ms-card {tone}"><span>{markup(label)}</span><b>{markup(value)}</b><small>{markup(note)}</small></div>'
        for label, value, note, tone in items
    )
    st.html(f'<div class="ms-cards">{cells}</div>')


def empty(what: str, do: str) -> None:
    """Nothing to show, and what to do about it. `do` may be a command, in backquotes."""
    st.html(f'<div class="ms-empty"><b>{markup(what)}</b><p>{coded(do)}</p></div>')


def unrouted(run: Any, what: str = "a model") -> None:
    """No router to show: the store has no run, or the model of this run has none."""
    if run is None:
        empty("Nothing is traced yet", f"Trace {what} into this store: `moescope trace MODEL --data DATA --store STORE`")
    else:
        empty("The model of this run has no router", "So nothing was routed. What is known of its states: Dimensionality.")


def unranked(run: Any) -> bool:
    """Says so where first choices of a run are not known."""
    if none := lacking.order(run):
        empty(*none)
    return none is not None


def reading(text: str) -> None:
    """What a figure says, in one sentence."""
    st.html(f'<div class="ms-reading">{coded(text)}</div>')


def coded(text: str) -> str:
    """Safe inside HTML, what is in backquotes as code."""
    return "".join(f"<code>{piece}</code>" if i % 2 else piece for i, piece in enumerate(markup(text, 2000).split("`")))


def small_count_note(n: float | None) -> None:
    """A warning where there is too little to read much into a share."""
    if n is not None and n < SMALL:
        words = some(n, "assignment stands", "assignments stand")
        st.caption(f":material/info: Only {words} behind this: differences between shares may be noise.")


def said_label(label: tuple[str, str] | None) -> str:
    """A kind of label and its value, as titles say them."""
    return clean(f"{label[0]} {label[1]}", 40) if label else ""


def cut_note(shown: int, known: int, what: str) -> None:
    """Say what is left out of a list or a picture, if anything is."""
    if shown < known:
        st.caption(f":material/info: {shown:,} of {known:,} {what}: the others are left out here.")


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
    shown = shown.configure(locale=charts.LOCALE)
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
