"""The frame: finds the pages in views/, keeps the run picker beside them, and turns every failure into a sentence."""

from typing import Any

import streamlit as st

from moescope.app import page_list, url_state
from moescope.app.parts import panels, pickers, sharing
from moescope.app.queries import store_access
from moescope.store import imported


def pages() -> dict[str, list[Any]]:
    """Pages by group, in their order; the first is the one that opens."""
    groups: dict[str, list[Any]] = {}
    for path, page in page_list.views():
        shown = st.Page(path, title=page["title"], icon=page["icon"], url_path=path.stem, default=not groups)
        groups.setdefault(page["group"], []).append(shown)
    return groups


def lacking(run: pickers.Row | None) -> None:
    """Beside every page: what a run that was imported has not."""
    for text in imported.lacks(run["capture"]) if run is not None else []:
        st.caption(f":material/info: {panels.plain(text[:1].upper() + text[1:], 200)}")


def sidebar() -> bool:
    """The run picker; False where there is nothing to pick from."""
    with st.sidebar:
        state = store_access.held().look()
        pickers.choose_run()
        st.caption(panels.plain(store_access.path().name))
        lacking(pickers.the_run())
        pickers.watch(state)
    return True


def share() -> None:
    """The tab's title, and the way to send what is shown."""
    stems = {page["title"]: path.stem for path, page in page_list.views()}
    sharing.settle(sharing.page_of(chosen, stems), pickers.the_run(), chosen.title)


st.set_page_config("moescope", page_list.ICON, layout="wide")
url_state.begin()
panels.style()
chosen = st.navigation(pages(), position="sidebar", expanded=True)
url_state.open_requested_page()
if panels.guarded(sidebar):
    panels.guarded(chosen.run)
    panels.guarded(share)
else:
    st.button("Try again", icon=":material/refresh:")
    pickers.watch(())
