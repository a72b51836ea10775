"""Open a finished store read-only, or say in one sentence why that cannot be."""

import os
import tempfile
from pathlib import Path
from typing import Any

import duckdb

from .. import __version__
from ..errors import StoreError
from ..memory import room
from .held import held
from .schema import VERSION, quote

_SPILL = 8 << 30  # bytes


def connect(store: Path) -> duckdb.DuckDBPyConnection:
    """A database in memory that has `store` attached as `base`, read-only, and in use. StoreError if that cannot be.

    Attached, because a second `duckdb.connect` to one path shares the first one's file, even when that was replaced since.
    """
    if not store.exists():
        raise StoreError(f"there is no store {store}; make one with: moescope trace MODEL --data DATA --store {store}")
    con = duckdb.connect(config=_bounds())
    try:
        con.execute(f"attach {quote(str(store))} as base (read_only)")
        version = con.execute("select value from base.meta where key = 'schema_version'").fetchall()
    except duckdb.CatalogException:
        version = []
    except duckdb.BinderException:
        version = []
    except duckdb.Error as error:
        con.close()
        raise StoreError(_why(store, error)) from error
    if not version or version[0][0] != VERSION:
        con.close()
        raise StoreError(_which(store, version[0][0] if version else None))
    con.execute("use base")
    return con


def _bounds() -> dict[str, Any]:
    """A question may fill half of the memory, and some disk among temporary files instead of in the working folder."""
    spill = Path(tempfile.gettempdir()) / f"moescope-{os.getpid()}"
    return {
        "memory_limit": f"{room() >> 20} MiB",
        "temp_directory": str(spill),
        "max_temp_directory_size": f"{_SPILL >> 20} MiB",
    }


def check_store(store: Path) -> None:
    """StoreError unless `store` is a moescope store of this schema version."""
    connect(store).close()


def joined(con: duckdb.DuckDBPyConnection) -> set[str]:
    """Names of the parts whose rows are in the file that `con` has attached."""
    return {name for (name,) in con.execute("select value from base.meta where key = 'joined'").fetchall()}


def _which(store: Path, version: str | None) -> str:
    if version is None:
        return f"{store} is a DuckDB file but no moescope store; name another file"
    return (
        f"{store} has schema version {version} and this moescope {__version__} reads {VERSION}; use the moescope that wrote it"
    )


def _why(store: Path, error: Exception) -> str:
    text, holder = " ".join(str(error).split()), held(store)
    if holder == "here":
        return f"{store} is open for writing in this program; close that connection first"
    if holder == "elsewhere":
        return f"{store} is open for writing in another program (DuckDB says: {text[:200]}); close it there"
    if not os.access(store, os.R_OK):
        return f"{store} cannot be read: permission denied; check its owner and mode"
    if holder == "unknown" and isinstance(error, duckdb.IOException):
        return f"{store} is open for writing in another program, or no moescope store (DuckDB says: {text[:200]}); look which"
    return f"{store} is not a moescope store (DuckDB cannot open it: {text[:120]}); name another file"
