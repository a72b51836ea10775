"""The dashboard's server: main.py behind `Front`, with everything imported and asked once before the first visitor."""

import contextlib
import gc
import logging
import os
import runpy
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import streamlit as st
from starlette.middleware import Middleware

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import contents  # noqa: E402
from front import Front  # noqa: E402


def warm() -> None:
    """Import what pages import, and draw each for nobody: what they ask the store at first is then in the cache."""
    import linked
    import panels
    import pickers
    import stored

    logging.disable(logging.WARNING)  # Streamlit warns at every element that nobody looks
    linked.attended = False
    try:
        with contextlib.suppress(Exception):  # what goes wrong here is said on the page
            stored.held().look()
            pickers.choose_run()
        for path, _ in contents.views():
            panels.guarded(runpy.run_path, str(path))
    finally:
        linked.attended = True
        logging.disable(logging.NOTSET)
    gc.collect()
    gc.freeze()  # Streamlit collects garbage after each run of a page: what is there for good need not be looked through


@contextlib.asynccontextmanager
async def ready(_: Any) -> AsyncIterator[None]:
    """Before the first visitor is let in."""
    if os.environ.get("MOESCOPE_STORE"):
        warm()
    yield


NAMES = frozenset(path.stem for path, _ in contents.views())
app = st.App(HERE / "main.py", lifespan=ready, middleware=[Middleware(Front, pages=NAMES)])
