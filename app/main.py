"""The frame: finds the pages in views/, keeps the run picker beside them, and turns every failure into a sentence."""

import ast
from functools import cache
from pathlib import Path
from typing import Any

import panels
import pickers
import stored
import streamlit as st

VIEWS = Path(__file__).parent / "views"


@cache
def about(path: Path) -> dict[str, Any]:
    """What a page says of itself: PAGE = {"title", "icon", "order", "group"}."""
    found = [
        n.value for n in ast.parse(path.read_text()).body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "PAGE"
    ]
    return dict(ast.literal_eval(found[0]))


def pages() -> dict[str, list[Any]]:
    """Pages by group, in their order; the first is the one that opens."""
    groups: dict[str, list[Any]] = {}
    for path in sorted(VIEWS.glob("[a-z]*.py"), key=lambda p: about(p)["order"]):
        page, first = about(path), not groups
        shown = st.Page(path, title=page["title"], icon=page["icon"], url_path=path.stem, default=first)
        groups.setdefault(page["group"], []).append(shown)
    return groups


def sidebar() -> bool:
    """The run picker; False where there is nothing to pick from."""
    with st.sidebar:
        state = stored.held().look()
        pickers.choose_run()
        st.caption(panels.plain(stored.path().name))
        pickers.watch(state)
    return True


st.set_page_config("moescope", str(VIEWS.parent / "icon.svg"), layout="wide")
panels.style()
chosen = st.navigation(pages(), position="sidebar")
if panels.guarded(sidebar):
    panels.guarded(chosen.run)
else:
    st.button("Try again", icon=":material/refresh:")
    pickers.watch(())
