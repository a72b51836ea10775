"""The frame: finds the pages in views/, keeps the run picker beside them, and turns every failure into a sentence."""

from typing import Any

import contents
import linked
import panels
import pickers
import stored
import streamlit as st


def pages() -> dict[str, list[Any]]:
    """Pages by group, in their order; the first is the one that opens."""
    groups: dict[str, list[Any]] = {}
    for path, page in contents.views():
        shown = st.Page(path, title=page["title"], icon=page["icon"], url_path=path.stem, default=not groups)
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


st.set_page_config("moescope", contents.ICON, layout="wide")
panels.style()
chosen = st.navigation(pages(), position="sidebar")
linked.depart()
if panels.guarded(sidebar):
    panels.guarded(chosen.run)
else:
    st.button("Try again", icon=":material/refresh:")
    pickers.watch(())
