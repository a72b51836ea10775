"""To show and send: a link that holds all that is chosen, and the page as a file that needs no server."""

import os
import subprocess
import sys
import tempfile
import threading
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import streamlit as st

import moescope
from moescope.app import url_state
from moescope.app.parts import panels, signed
from moescope.app.queries import store_access
from moescope.app.wording import clean
from moescope.errors import StoreError

SECONDS = 300
_one = threading.Lock()  # pages are drawn again in a process of their own: one at a time
PACKAGE = Path(moescope.__file__).parent


def title(page: str, run: dict[str, Any] | None) -> str:
    """What the browser's tab says: page and run."""
    return " · ".join([page, *([] if run is None else [clean(run["name"] or run["model_name"], 40)]), "moescope"])


def link(page: str) -> str:
    """The address of what is shown, with everything that is chosen."""
    home = (st.context.url or page).partition("?")[0]
    return f"{home}?{urlencode(url_state.chosen())}"


@st.fragment
def show(page: str) -> None:
    """A button whose panel has the link and the file."""
    with st.popover("Share this view", icon=":material/share:", key="share", on_change="rerun", width="stretch") as box:
        if box.open:
            panels.guarded(_ways, page)


def _ways(page: str) -> None:
    st.caption("A link to exactly this, with what is left at its default as well; the icon copies it.")
    st.code(link(page), language=None, wrap_lines=True)
    st.caption("This page as one file of HTML that needs no server: hovering works, nothing is fetched.")
    make = partial(exported, page, url_state.chosen(), str(store_access.path()))
    name = signed.file_name(page, "html")
    st.download_button("HTML", make, name, "text/html", key="share-html", icon=":material/download:", on_click="ignore")


def exported(page: str, state: dict[str, str], store: str) -> bytes:
    """The file that `moescope export` makes. StoreError with its sentence where it makes none."""
    with _one, tempfile.TemporaryDirectory(prefix="moescope-export-") as folder:
        place = Path(folder) / "page.html"
        paths = os.pathsep.join(filter(None, (str(PACKAGE.parent), os.environ.get("PYTHONPATH", ""))))
        command = [sys.executable, "-m", "moescope.cli", "export", store, f"{page}?{urlencode(state)}", "--output", str(place)]
        try:
            done = subprocess.run(
                command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, timeout=SECONDS, cwd=folder
            )
        except subprocess.TimeoutExpired as error:
            raise StoreError(
                f"the page {page} took longer than {SECONDS} seconds; use moescope export in a terminal"
            ) from error
        if done.returncode:
            raise StoreError(done.stderr.strip()[-400:].removeprefix("moescope: ") or "the page could not be written")
        return place.read_bytes()


def page_of(chosen: Any, stems: dict[str, str]) -> str:
    """The name of the page that is shown: {title: name} tells that of the first, which has no path."""
    return str(chosen.url_path or stems.get(chosen.title, ""))


def settle(page: str, run: dict[str, Any] | None, name: str) -> None:
    """After a page was drawn: the tab's title, and the panel in the sidebar."""
    st.set_page_config(page_title=title(name, run))
    st.session_state["signature"] = signed.signature(run)
    with st.sidebar:
        show(page)
