"""The dashboard's server: main.py behind `Door` and `AssetCache`, all imported and asked once before the first visitor.

What it is told, it finds in its environment: MOESCOPE_STORE; MOESCOPE_TOKEN (empty: everybody is let in; not there: nobody);
MOESCOPE_NAMES, under which it answers, as name:port, with spaces between; MOESCOPE_OPEN, the address to open in a browser;
MOESCOPE_MODEL, the model of the page Try it (live_model.py); MOESCOPE_PARENT, the process with which it ends.
"""

import contextlib
import gc
import logging
import os
import runpy
import secrets
import signal
import threading
import webbrowser
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import streamlit as st
from starlette.middleware import Middleware

from moescope.app import page_list
from moescope.app.server import live_routes, shutdown, tied_process
from moescope.app.server.asset_cache import AssetCache
from moescope.app.server.door import Door

if parent := os.environ.pop("MOESCOPE_PARENT", ""):
    tied_process.tie(int(parent), signal.SIGTERM)


def warm() -> None:
    """Import what pages import, and draw each for nobody: what they ask the store at first is then in the cache."""
    from moescope.app import url_state
    from moescope.app.parts import panels, pickers
    from moescope.app.queries import store_access

    logging.disable(logging.WARNING)  # Streamlit warns at every element that nobody looks
    url_state.attended = False
    try:
        with contextlib.suppress(Exception):  # what goes wrong here is said on the page
            store_access.held().look()
            pickers.choose_run()
        for path, _ in page_list.views():
            panels.guarded(runpy.run_path, str(path))
    finally:
        url_state.attended = True
        logging.disable(logging.NOTSET)
    gc.collect()
    gc.freeze()  # Streamlit collects garbage after each run of a page: what is there for good need not be looked through


@contextlib.asynccontextmanager
async def ready(_: Any) -> AsyncIterator[None]:
    """Before the first visitor is let in."""
    from moescope.app.sql import processes

    shutdown.heed()
    shutdown.last(processes.desk.stop)
    processes.desk.prepare()
    if os.environ.get("MOESCOPE_STORE"):
        warm()
    if where := os.environ.pop("MOESCOPE_OPEN", ""):
        threading.Thread(target=webbrowser.open, args=(where,), daemon=True).start()
    yield
    shutdown.stop_all()


def door() -> Middleware:
    """Who is let in. The token is taken out of the environment: nothing that is started from here needs it."""
    token = os.environ.pop("MOESCOPE_TOKEN", None)
    names = frozenset(os.environ.get("MOESCOPE_NAMES", "").lower().split())
    return Middleware(Door, token=secrets.token_urlsafe() if token is None else token, names=names)


PAGES = frozenset(path.stem for path, _ in page_list.views())
MIDDLEWARE = [door(), Middleware(AssetCache, pages=PAGES)]
app = st.App(Path(__file__).with_name("main.py"), lifespan=ready, routes=live_routes.ROUTES, middleware=MIDDLEWARE)
