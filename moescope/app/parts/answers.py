"""Answers of `moescope.analyses`, shown the same way on every page: the reading, charts with SQL and files, notes, tables."""

import logging
from collections.abc import Callable
from typing import Any

import streamlit as st

from moescope.app import url_state, wording
from moescope.app.parts import answer_jobs, figures, panels, row_links
from moescope.app.queries import store_access
from moescope.errors import MoescopeError

BIG = 1_000_000  # decisions from which on an analysis waits for a click


def _answer(name: str, run: int, options: dict[str, Any]) -> tuple[Any, str]:
    """The answer, or the sentence of a refusal."""
    from moescope import analyses

    return _computed(analyses.depends(name, store_access.reader(), run, **options), name, run, tuple(sorted(options.items())))


@st.cache_data(max_entries=40, show_spinner=False)
def _computed(depends: str, name: str, run: int, options: tuple[tuple[str, Any], ...]) -> tuple[Any, str]:
    """As `_answer`; in memory by what it depends on, so that no page draws it anew from the disk."""
    from moescope import analyses

    try:
        return analyses.run(name, store_access.reader(), run, **dict(options)), ""
    except MoescopeError as refusal:
        return None, str(refusal)
    except (ValueError, KeyError, IndexError, ArithmeticError) as error:
        logging.exception("the analysis %s failed", name)
        return (
            None,
            f"It failed on this run ({type(error).__name__}: {error}), which may hold too little; the terminal says more.",
        )


@st.cache_data(max_entries=4, show_spinner=False)
def catalogue(version: str = "") -> list[dict[str, Any]]:
    """Every analysis that is installed."""
    from moescope import analyses

    return analyses.catalogue()


def known(*names: str) -> list[dict[str, Any]]:
    """Those of `names` that are installed."""
    found = {entry["name"]: entry for entry in catalogue()}
    return [found[name] for name in names if name in found]


@panels.part
def ask(name: str, run: dict[str, Any], wait: bool = False, draw: Callable[[Any], None] | None = None, **options: Any) -> None:
    """One analysis: asked at once on small runs, on a click on large ones, or always on a click with `wait`.

    `draw` shows the answer's figures in place of its own charts.
    """
    entries = known(name)
    if not entries:
        panels.empty(
            f"The analysis “{name}” is not installed",
            f"Install the moescope that has it, or add `moescope/analyses/{name}.py`.",
        )
        return
    entry = entries[0]
    panels.section(entry["title"], entry["question"][:1].upper() + entry["question"][1:])
    label = f"Compute with nulls and intervals, over {wording.count(run['decisions'])} decisions"
    big = (run["decisions"] or 0) > BIG
    later = (wait or big or not url_state.attended) and not _known(name, run["run"], options)
    if later and not url_state.asked(label, f"ask-{name}", big):
        return
    if answer_jobs.apart(run) and not _known(name, run["run"], options):
        from moescope import analyses

        key = analyses.depends(name, store_access.reader(), run["run"], **options)
        if not answer_jobs.over(key, name, run, options):
            return
    with st.spinner("Counting, resampling and permuting …", show_time=True):
        answer, refusal = _answer(name, run["run"], options)
    if answer is None:
        panels.empty(f"{entry['title']} cannot be said of this run", refusal)
        return
    panels.reading(answer.verdict.sentence)
    (draw or show)(answer)
    for note in answer.notes[:6]:
        st.caption(f":material/info: {panels.plain(note, 400)}")
    panels.cut_note(min(len(answer.notes), 6), len(answer.notes), "notes are shown")
    with url_state.opened("Tables and method", f"tables-{answer.name}", ":material/table:") as box:
        if box.open:
            _tables(answer, entry, run["run"])


def _known(name: str, run: int, options: dict[str, Any]) -> bool:
    """Whether it was computed before, here or at a terminal."""
    from moescope import analyses

    return analyses.known(name, store_access.reader(), run, **options)


@panels.part
def verdict(name: str, run: dict[str, Any], **options: Any) -> None:
    """On top of a page what an analysis found, where that is known already."""
    if known(name) and _known(name, run["run"], options):
        answer, _ = _answer(name, run["run"], options)
        if answer is not None:
            panels.reading(answer.verdict.sentence)


def show(answer: Any) -> None:
    """The charts of an answer, two beside each other."""
    drawn = list(answer.charts().items())
    for start in range(0, len(drawn), 2):
        for column, (title, shown) in zip(st.columns(2), drawn[start : start + 2], strict=False):
            with column:
                figures.figure_of(shown.chart, shown.frame, shown.sql, name=f"{answer.name}-{title}")


def _tables(answer: Any, entry: dict[str, Any], run: int) -> None:
    for title, frame in answer.frames.items():
        st.caption(f"**{panels.plain(title)}**")
        row_links.table(run, frame.head(2000), answer.sql[title], name=f"{answer.name}-table-{title}")
        panels.cut_note(min(len(frame), 2000), len(frame), "rows are shown")
    st.text(entry["method"])
