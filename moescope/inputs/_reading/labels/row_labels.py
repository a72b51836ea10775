"""Labels of whole rows: which columns hold them, and what their cells say."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ....errors import InputError
from ..options import Options
from . import part_labels
from .cells import label, plain

Row = Mapping[str, Any]


class RowLabels:
    """Reads the labels of one source's rows: the columns asked for, or every one of strings, whole numbers or truth values.

    Missing ones, and fractions in a column of labels, are counted; of a column that holds labels in some rows and lists or
    objects in others nobody knows what it is.
    """

    def __init__(self, options: Options, source: str) -> None:
        self.report, self.source, self.asked = options.report, source, options.label_columns
        self._sure = set(options.label_columns or ())
        self._waiting = Counter[tuple[str, str]]()
        self._kinds: dict[str, str] = {}

    def of(self, row: Row, text_column: str | None, where: str) -> dict[str, str]:
        """The labels of a row. InputError for a cell that cannot be one."""
        found = {}
        for column in self.asked if self.asked is not None else row:
            cell = row.get(column)
            if self.asked is None and (column == text_column or column.startswith("__") or _taken(column, cell)):
                continue
            if (value := plain(cell)) is None:
                self._lacks("missing labels", column)
            elif self.asked is not None or self._is_label(value, column, where):
                found[column] = label(value, column, where)
                self._has(column)
        return found

    def _is_label(self, value: Any, column: str, where: str) -> bool:
        if isinstance(value, float):
            self._lacks("fractions instead of labels", column)
            return False
        kind = "labels" if isinstance(value, str | int) else type(value).__name__ + " values"
        before = self._kinds.setdefault(column, kind)
        if "labels" in (kind, before) and kind != before:
            raise InputError(
                f"{where}: column {column!r} holds {type(value).__name__} values, but {before} in rows before: make them alike."
            )
        return kind == "labels"

    def _lacks(self, what: str, column: str) -> None:
        """A row has none; that is said once a row has one."""
        self._waiting[what, column] += 1
        if column in self._sure:
            self._has(column)

    def _has(self, column: str) -> None:
        """A row has one."""
        self._sure.add(column)
        for what, one in [key for key in self._waiting if key[1] == column]:
            self.report.skip(self.source, f"{what} of {column!r}", self._waiting.pop((what, one)))


def _taken(column: str, cell: Any) -> bool:
    """Whether a cell labels parts of the row, and not the whole."""
    schemas = column == "tools" and isinstance(cell, str) and cell.lstrip()[:1] == "["  # of a conversation
    return schemas or (column in part_labels.COLUMNS and part_labels.holds_parts(cell))
