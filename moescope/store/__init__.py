"""The store: shards while a trace runs, one DuckDB file at its end, the same tables and views over either."""

from .engines.shared import open_store
from .reader import Store
from .write.writer import RunWriter

__all__ = ["RunWriter", "Store", "open_store"]
