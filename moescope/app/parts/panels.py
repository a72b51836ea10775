"""What pages are built from: a guard that turns failures into sentences, headings, cards, notes."""

import logging
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import duckdb
import streamlit as st

from moescope.app import url_state
from moescope.app.wording import clean, markup, plain, some
from moescope.errors import MoescopeError
from moescope.pictures import scripts
from moescope.store import imported

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
    if imported.ranked(run["capture"]):
        return False
    empty(
        "First choices are not known",
        "This run was imported from a capture whose order of experts is not that of their weights; sets, loads and pairs "
        "are known.",
    )
    return True


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
