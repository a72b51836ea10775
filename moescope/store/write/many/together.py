"""Writers of a run that several processes make together: all count what they are given, and the first alone keeps it."""

import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ...physical.tables import is_routed
from ..writer import Columns, RunWriter

_KEY = re.compile(r"forward|router|token|rank|expert|e\d+|position|vocab_id")
_PRIME = np.uint64(0x9E3779B97F4A7C15)


class Counted(RunWriter):
    """A writer that knows how many routed rows it was given, and a sum over them in which their order does not count."""

    rows = 0
    digest = 0

    def add(self, table: str, columns: Columns) -> None:
        """As ever, and into the sum: which experts of which router took which token in which forward, and what it is."""
        if is_routed(table) or table in ("assignments_long", "tokens"):
            found = _hashed({name: value for name, value in columns.items() if _KEY.fullmatch(name) and value is not None})
            self.rows += len(found) * (table != "tokens")
            self.digest = (self.digest + int(found.sum(dtype=np.uint64))) % 2**64
        super().add(table, columns)

    @property
    def seen(self) -> tuple[int, int]:
        """(routed rows, the sum): equal where the same was decided for the same tokens."""
        return self.rows, self.digest


class Elsewhere(Counted):
    """The writer of a process whose rows another one keeps: its head alone reaches a disk, in a folder that goes with it."""

    @classmethod
    def beside(cls, head: Mapping[str, Any]) -> "Elsewhere":
        """One in a folder of its own."""
        return cls.create(Path(tempfile.mkdtemp(prefix="moescope-rank-")) / "other.duckdb", head)  # type: ignore[return-value]

    def commit(self, progress: Mapping[str, Any]) -> None:
        """Forget what was added."""
        self.pending = 0
        for sheet in self._sheets.values():
            sheet.cut(0)
        self.mark()

    def release(self) -> None:
        """Let go of the run, and of the folder with it."""
        super().release()
        shutil.rmtree(self.store.parent, ignore_errors=True)


def _hashed(columns: Columns) -> np.ndarray:
    """(rows,) uint64 of columns of whole numbers, or single ones; an empty place counts as -1."""
    whole = [(name, _numbers(value)) for name, value in sorted(columns.items())]
    mixed = np.zeros(max(len(value) for _, value in whole), np.uint64)
    for _, value in whole:
        mixed = (mixed ^ value) * _PRIME
        mixed ^= mixed >> np.uint64(29)
    return mixed


def _numbers(value: Any) -> np.ndarray:
    array = value.cast(pa.int64()).fill_null(-1) if isinstance(value, pa.Array) else value
    return np.atleast_1d(np.asarray(array)).astype(np.int64).view(np.uint64)
