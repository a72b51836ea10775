"""What a Vega-Lite chart draws, and what a CSV holds, as rows of plain cells that can be compared."""

import csv
import io
from typing import Any

import numpy as np
import pandas as pd

from moescope.store.files.exports import csv_of

Rows = list[dict[str, Any]]


def drawn_rows(chart: Any) -> Rows:
    """The rows of the chart's data; the one row of a dashed rule is no data."""
    import altair as alt

    with alt.data_transformers.disable_max_rows():
        spec = chart.to_dict()
    tables = [rows for rows in spec["datasets"].values() if not _is_rule(rows)]
    assert len(tables) == 1, f"the chart draws {len(tables)} tables: {[list(rows[0]) for rows in tables if rows]}"
    return [{key: _cell(value) for key, value in row.items()} for row in tables[0]]


def csv_rows(frame: pd.DataFrame) -> Rows:
    """The rows that a reader of the downloaded file sees."""
    return [{key: _cell(value) for key, value in row.items()} for row in csv.DictReader(io.StringIO(csv_of(frame)))]


def assert_same_rows(chart: Any, frame: pd.DataFrame) -> None:
    """The chart draws what the CSV holds: the same columns, row for row, cell for cell."""
    shown, kept = drawn_rows(chart), csv_rows(frame)
    assert len(shown) == len(kept), f"{len(shown)} rows are drawn, {len(kept)} are in the CSV"
    for number, (one, other) in enumerate(zip(shown, kept, strict=True)):
        assert list(one) == list(other), f"the chart has columns {list(one)}, the CSV {list(other)}"
        for column in one:
            assert _same(one[column], other[column]), f"row {number}, {column}: {one[column]!r} drawn, {other[column]!r} kept"


def _is_rule(rows: Rows) -> bool:
    return len(rows) == 1 and list(rows[0]) == ["chance"]


def _cell(value: Any) -> Any:
    """A number where it is one, None where there is nothing, else text without the quotation mark against formulas."""
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return str(value)
    try:
        return float(value)
    except (TypeError, ValueError):
        return str(value).removeprefix("'")


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return bool(np.isclose(one, other, rtol=1e-6, atol=0, equal_nan=True))
    return bool(one == other)
