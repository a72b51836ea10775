"""SQL: anything else, read-only, with every view explained, as table, chart or file."""

from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from moescope import charts
from moescope.app import url_state
from moescope.app.components import sql_words
from moescope.app.parts import figures, panels, pickers
from moescope.app.queries import store_access
from moescope.app.sql import desk
from moescope.app.wording import some

PAGE = {"title": "SQL", "icon": ":material/database:", "order": 12, "group": "Ask"}
FORMS = ["bars", "lines", "scatter", "heatmap"]
SHOWN = {"table": "Table", "chart": "Chart"}
MIME = {"csv": "text/csv", "parquet": "application/vnd.apache.parquet", "json": "application/json"}


def editor(run: int) -> str:
    """The query, kept in the URL; an example that nobody changed follows the run."""
    known, before = desk.examples(run), desk.examples(st.session_state.get("sql-run", run))
    start = next(iter(known.values()))
    if "sql-text" not in st.session_state:
        st.session_state["sql-text"] = url_state.get("sql") or start
    same = [name for name, query in before.items() if query == st.session_state["sql-text"]]
    st.session_state["sql-text"] = known[same[0]] if same else st.session_state["sql-text"]
    st.session_state["sql-run"] = run
    st.text_area("Query", key="sql-text", height=190, label_visibility="collapsed")
    sql_words.show(desk.words())
    one, two, three = st.columns([2.3, 2, 3], vertical_alignment="center")
    go = {"type": "primary", "icon": ":material/play_arrow:", "shortcut": "Ctrl+Enter", "width": "stretch"}
    one.button("Run", key="sql-go", on_click=_run, **go)
    with two:
        st.selectbox(
            "Example",
            list(known),
            index=None,
            placeholder="Examples",
            key="example",
            label_visibility="collapsed",
            on_change=_example,
            args=(known,),
        )  # not in the URL: the query that it writes is
    three.caption(f"Read-only; at most {store_access.LIMIT_S:.0f} s, {store_access.MEMORY} and {desk.ROWS:,} rows on the page.")
    query = str(st.session_state["sql-text"])
    url_state.put("sql", query if query != start else None)
    return query


def _example(known: dict[str, str]) -> None:
    if chosen := st.session_state.get("example"):
        st.session_state["sql-text"] = known[chosen]


def _run() -> None:
    st.session_state["sql-pressed"] = st.session_state["sql-text"]


def _stop() -> None:
    st.session_state["sql-stopped"], st.session_state["sql-pressed"] = st.session_state["sql-text"], None


def wanted(query: str, run: int) -> bool:
    """Whether it may be run: Run was pressed on these very words, or they are an example's, which is ours.

    What a link says waits: whoever follows one does not know what it asks.
    """
    if st.session_state.get("sql-pressed") == query:
        return True
    return query in desk.examples(run).values() and st.session_state.get("sql-stopped") != query


class Waiting:
    """What is seen while a query runs: for how long, and a button that stops it; told every moment."""

    def __init__(self) -> None:
        self.place = st.empty()
        self.clock: Any = None

    def __call__(self, seconds: float) -> None:
        """Drawing is where Streamlit ends a page that was left, and so its query."""
        if self.clock is None:
            left, right = self.place.container().columns([4, 1.2], vertical_alignment="center")
            self.clock = left.empty()
            right.button("Stop", icon=":material/stop:", key="sql-stop", on_click=_stop, width="stretch")
        self.clock.caption(f"Asking the store … {seconds:.0f} of at most {store_access.LIMIT_S:.0f} s")


def results(query: str) -> None:
    """Table, chart and files."""
    waiting = Waiting()
    frame, more = desk.result(store_access.held().look(), query, waiting)
    waiting.place.empty()
    rest = " shown; more are in the files" if more else ""
    st.caption(f"{some(len(frame), 'row')}{rest} × {some(len(frame.columns), 'column')}")
    if url_state.tabs("Show", "show", SHOWN) == "table":
        st.dataframe(frame, hide_index=True, width="stretch", height=430, placeholder="–")
    else:
        chart_of(frame, query)
    with st.container(horizontal=True):
        for kind in MIME:
            make = partial(desk.file_of, query, kind)
            st.download_button(kind.upper(), make, f"moescope-query.{kind}", MIME[kind], key=f"sql-{kind}", on_click="ignore")


def chart_of(frame: pd.DataFrame, query: str) -> None:
    """A chart of the result, with columns to choose."""
    numbers = [str(c) for c in frame.select_dtypes("number")]
    if not numbers or len(frame.columns) < 2 or frame.empty:
        panels.empty("Nothing to draw", "A chart needs at least two columns, one of them a number.")
        return
    names = [str(c) for c in frame]
    one, two, three, four = st.columns(4)
    with one:
        form = url_state.choose("Form", "form", FORMS) or "bars"
    flat = form == "heatmap"
    with two:
        first = next((i for i, name in enumerate(names) if frame[name].astype(str).nunique() > 1), 0)
        x = url_state.choose("Across", "x", names, default=first) or names[0]
    with three:
        down = names if flat else numbers
        y = url_state.choose("Down" if flat else "Up", "y", down, default=1 if flat else len(numbers) - 1) or down[-1]
    with four:
        colour = url_state.choose("Colour", "colour", numbers if flat else ["", *names], lambda n: n or "none")
    some = frame.head(5000)
    if form == "heatmap" and some.duplicated([x, y]).any():
        panels.empty("Several rows would share a cell", f"Make one of them: `group by {x}, {y}`, or choose other columns.")
        return
    if form == "heatmap":
        figures.heat(some, x, y, colour or numbers[-1], "", query, name="query")
        return
    draw: Any = {"bars": charts.bars, "lines": charts.lines, "scatter": charts.scatter}[form]
    figures.figure(draw(some, x, y, color=colour or None), query, name="query", opens=False)  # of any run


def dictionary() -> None:
    """Every view and table with what it means."""
    panels.section("What there is", "Views answer most questions; the tables lie under them.")
    known = store_access.rows(desk.VIEWS)
    names = [row["name"] for row in known]
    first = names.index("routing") if "routing" in names else 0
    chosen = url_state.choose("View or table", "view", names, default=first, label_visibility="collapsed")
    row = next(r for r in known if r["name"] == chosen)
    st.text(f"{'View' if row['view'] else 'Table'}. {row['comment']}")
    st.dataframe(store_access.frame(desk.COLUMNS, chosen), hide_index=True, width="stretch", height=430)


def render() -> None:
    """The page."""
    panels.head(
        "SQL",
        "Ask the store anything. It can only be read, and nothing but the store can be reached from here.",
        "Choose an example, change it, run it with Ctrl+Enter; Tab takes a completion. Columns are explained beside it.",
    )
    left, right = st.columns([5, 3], gap="large")
    with left:
        run = pickers.the_run()
        number = run["run"] if run else 0
        query = editor(number)
        if not query.strip():
            panels.empty("No query", "Write one, or take an example.")
        elif wanted(query, number):
            panels.guarded(results, query)
        else:
            panels.empty("Not run yet", "Nothing is run that a link or a reader wrote, until Run is pressed.")
    with right:
        dictionary()


render()
