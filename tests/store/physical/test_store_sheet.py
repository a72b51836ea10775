"""Rows gathered for a shard: whole rows come back, whatever kinds meet in a column and wherever they are cut."""

import numpy as np

from moescope.store.physical.column_buffer import ColumnBuffer


def test_rows_are_cut_inside_what_was_put_together() -> None:
    sheet = ColumnBuffer()
    sheet.add({"a": np.arange(2), "b": 7})
    sheet.add({"a": np.arange(2, 4), "b": 8})
    sheet.add({"a": ["x"], "b": 9})  # numbers so far become pieces
    sheet.cut(2)
    assert sheet.table().to_pylist() == [{"a": 0, "b": 7}, {"a": 1, "b": 7}]


def test_what_some_rows_lack_is_null_and_memory_is_used_again() -> None:
    sheet = ColumnBuffer()
    sheet.add({"a": np.arange(2), "unit": "text"})
    sheet.add({"b": np.float32(0.5), "unit": "text"})
    sheet.add({"a": np.array([9]), "unit": "row"})
    assert sheet.table().to_pylist() == [
        {"a": 0, "unit": "text", "b": None},
        {"a": 1, "unit": "text", "b": None},
        {"a": None, "unit": "text", "b": 0.5},
        {"a": 9, "unit": "row", "b": None},
    ]
    sheet.cut(0)
    sheet.add({"a": np.array([3, 4])})
    assert sheet.table().to_pylist() == [{"a": 3}, {"a": 4}]
