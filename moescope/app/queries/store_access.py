"""The store that the dashboard shows: opened read-only, locked in, re-opened when it changes; queries cached by its state."""

import os
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import duckdb
import pandas as pd
import streamlit as st

import moescope
from moescope.app.queries.limits import limited
from moescope.app.queries.settings import settings
from moescope.errors import StoreError
from moescope.store import Store
from moescope.store.reader import state_of
from moescope.store.remote.addresses import glance
from moescope.store.spelling import Spelling
from moescope.store.spelling import of as spelled_of

LIMIT_S = 20.0  # a query that takes longer is interrupted
MEMORY = "900 MB"
GLANCE_S = 0.05  # how old what is known of the file may be
PAUSE_S = 3.0  # a growing store is not re-opened more often than this, or than ten times as long as opening takes


class Reader(Store):
    """A Store over one cursor of the locked connection: what analyses take."""

    def __init__(self, path: Path, con: duckdb.DuckDBPyConnection, state: tuple[Any, ...] | None = None) -> None:
        self.path, self.con, self._unfinished, self.opened = path, con, True, state


class SharedStore:
    """One store, shared by all sessions; every query has a cursor of its own."""

    def __init__(self, path: Path) -> None:
        self.path, self.lock = path, Lock()
        self.con: duckdb.DuckDBPyConnection | None = None
        self.state: tuple[Any, ...] = ()
        self.next_look = self.next_glance = 0.0

    def look(self) -> tuple[Any, ...]:
        """The state that is shown now, after opening the store again if it changed. StoreError if it cannot be shown."""
        if self.con is not None and time.monotonic() < self.next_glance:
            return self.state
        now = current(self.path)
        with self.lock:
            replaced = self.con is None or now[:2] != self.state[:2]
            if replaced or (now != self.state and time.monotonic() >= self.next_look):
                begun = time.monotonic()
                con = locked(self.path)
                self.con, self.state = con, now
                self.next_look = time.monotonic() + max(PAUSE_S, 10 * (time.monotonic() - begun))
            self.next_glance = time.monotonic() + GLANCE_S
            return self.state

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A cursor that sees the store's tables by their plain names."""
        self.look()
        with self.lock:
            assert self.con is not None
            return self.con.cursor()


def current(path: Path) -> tuple[Any, ...]:
    """Changes whenever the store does. StoreError if it is not there."""
    try:
        glance(path)
        return state_of(path)
    except OSError as error:
        raise StoreError(f"the store {path} is not there ({error.strerror}); put it back, or trace into it again") from error


def locked(path: Path) -> duckdb.DuckDBPyConnection:
    """A connection that reaches this store and nothing else: no other file, no network, no change of settings."""
    return moescope.open(path, comments=True, settings=settings(MEMORY)).con


def path() -> Path:
    """The store named on the command line."""
    named = os.environ.get("MOESCOPE_STORE", "")
    if not named:
        raise StoreError("no store was named; start the dashboard with: moescope app STORE")
    return _resolved(named)


@cache
def _resolved(named: str) -> Path:
    return Path(named).resolve()


@st.cache_resource(max_entries=4, show_spinner=False)
def _held(where: str) -> SharedStore:
    return SharedStore(Path(where))


def held() -> SharedStore:
    """The store of this dashboard."""
    return _held(str(path()))


def frame(sql: str, *params: Any) -> pd.DataFrame:
    """The rows of a query, from the cache while the store has not changed."""
    here = held()
    return _frame(str(here.path), here.look(), sql, params, here)


@st.cache_data(max_entries=600, show_spinner=False)
def _frame(where: str, state: tuple[Any, ...], sql: str, params: Sequence[Any], _here: SharedStore) -> pd.DataFrame:
    cursor = _here.cursor()
    with limited(cursor, LIMIT_S):
        return cursor.execute(sql, list(params)).df()


def rows(sql: str, *params: Any) -> list[dict[str, Any]]:
    """The rows of a query as dicts; missing values are None."""
    here = held()
    return _rows(str(here.path), here.look(), sql, params, here)


@st.cache_data(max_entries=600, show_spinner=False)
def _rows(where: str, state: tuple[Any, ...], sql: str, params: Sequence[Any], _here: SharedStore) -> list[dict[str, Any]]:
    cursor = _here.cursor()
    with limited(cursor, LIMIT_S):
        found = cursor.execute(sql, list(params))
        names = [column[0] for column in found.description or ()]
        return [{n: None if v != v else v for n, v in zip(names, row, strict=True)} for row in found.fetchall()]


def spelling(run: int) -> Spelling:
    """How the model of a run writes its tokens."""
    return spelled_of(frame, run)


def reader() -> Reader:
    """The store as analyses take it."""
    here = held()
    state = here.look()
    cursor = here.cursor()
    return Reader(here.path, cursor, state if here.state == state else None)


def has(table: str) -> bool:
    """True if the store has a table or view of this name with at least one row."""
    known = frame("select 1 from information_schema.tables where table_name = ? limit 1", table)
    return bool(len(known)) and bool(len(frame(f'select 1 from "{table}" limit 1')))
