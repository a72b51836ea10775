"""A store that was begun for a run which was then refused."""

from contextlib import suppress
from pathlib import Path

from ...errors import StoreError
from ..connect import connect
from ..files.durable import exclusive
from ..files.paths import real
from .change import clean_up
from .unfinished_run import parts_folder


def forget_empty(store: Path) -> None:
    """Remove a store in which there is no run, none that is written beside it, and which nobody changes; else nothing."""
    with suppress(OSError, StoreError), exclusive(store, wait=False):
        clean_up(store)
        with connect(store) as con:
            runs = con.execute("select count(*) from base.main.runs").fetchall()[0][0]
        if not runs and not parts_folder(store).exists():
            real(store).unlink()
