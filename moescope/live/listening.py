"""What the Tracer writes, told at once: the rows that its writer is given, as plain values for a page.

Nothing is captured here: a page is shown the columns that go into the store.
"""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..store.physical.tables import is_routed
from ..store.ranking import Ranking
from ..store.spelling import AS_READ
from ..store.write.many.moved import Aside

Row = dict[str, Any]
NEXT = 6  # experts behind those that ran, that are told
_TOLD = ("sequences", "vocab", "tokens", "token_labels", "decisions_long", "assignments_long", "logits")


class Heard:
    """Rows since the last `take`, told by the writing thread and taken by the one that runs the model."""

    def __init__(self, rules: Mapping[int, Ranking] | None = None) -> None:
        """`rules`: how each router ranks, by its key; None where that is to be learnt from what is heard."""
        self.rules = rules or {}
        self.logits: list[Row] | None = [] if rules is None else None
        self.writer: Aside | None = None
        self._tables: list[tuple[str, Mapping[str, Any]]] = []
        self._texts: dict[int, str] = {}
        self._lock = threading.Lock()

    def writes(self) -> type[Aside]:
        """A kind of writer that tells its rows here, and whose run is kept aside."""
        heard = self

        class Telling(Aside):
            def __init__(self, *args: Any) -> None:
                super().__init__(*args)
                heard.writer = self

            def add(self, table: str, columns: Mapping[str, Any]) -> None:
                super().add(table, columns)
                heard.hear(table, columns)

        return Telling

    def hear(self, table: str, columns: Mapping[str, Any]) -> None:
        """Columns that were added to a table."""
        if table in _TOLD or is_routed(table):
            with self._lock:
                self._tables.append((table, columns))

    def take(self) -> Row | None:
        """What was heard, as an event: {"sequences", "tokens", "decisions"}; None where no token was."""
        with self._lock:
            tables, self._tables = self._tables, []
        rows: dict[str, list[Row]] = {}
        for table, columns in tables:
            rows.setdefault("routes" if table.startswith("routes_") else table, []).extend(_rows(columns))
        self._texts |= {row["vocab_id"]: row["text"] for row in rows.get("vocab", [])}
        tokens = [row | {"text": AS_READ(self._texts.get(row.get("vocab_id", -1)))} for row in rows.get("tokens", [])]
        decisions = [_fixed(row) for row in rows.get("routes", [])] + _any(rows)
        if not tokens and not decisions:
            return None
        self._next(decisions, rows.get("logits", []))
        if self.logits is not None:
            self.logits += rows.get("logits", [])
        labels = [row for row in rows.get("token_labels", []) if row["kind"] != "predicted_id"]
        return {"sequences": rows.get("sequences", []), "tokens": tokens, "decisions": decisions, "labels": labels}

    def _next(self, decisions: Sequence[Row], logits: Sequence[Row]) -> None:
        """To each decision with logits what its router ranks highest, by its own rule, whether it ran or not."""
        known = {(row["router"], row["iteration"], row["token"]): row["logits"] for row in logits}
        for row in decisions:
            rule, found = self.rules.get(row["router"]), known.get((row["router"], row["iteration"], row["token"]))
            if rule is None or found is None or not np.isfinite(found).all():
                continue
            values = rule.values(np.asarray(found, dtype=float)[None])[0]
            best = np.argsort(-values, kind="stable")[: len(row["experts"]) + NEXT]
            row["ranked"] = [[int(e), _number(values[e])] for e in best if values[e] > -np.inf]


def _rows(columns: Mapping[str, Any]) -> list[Row]:
    """Rows of columns, of which single values hold for all."""
    sizes = [len(v) for v in columns.values() if not _single(v)]
    size = sizes[0] if sizes else 1
    whole = {name: [_plain(v)] * size if _single(v) else [_plain(one) for one in v] for name, v in columns.items()}
    return [dict(zip(whole, values)) for values in zip(*whole.values())]


def _single(value: Any) -> bool:
    return isinstance(value, str | bytes) or not hasattr(value, "__len__")


def _plain(value: Any) -> Any:
    value = value.as_py() if hasattr(value, "as_py") else value
    if isinstance(value, np.ndarray):
        return value
    return value.item() if hasattr(value, "item") else value


def _fixed(row: Row) -> Row:
    """A row of routes_<k>, its experts by weight."""
    ranks = [r for r in range(16) if row.get(f"e{r}") is not None]
    bits = int(row.get("dropped", 0))
    return _decision(row) | {
        "experts": [row[f"e{r}"] for r in ranks],
        "weights": [_number(row.get(f"w{r}")) for r in ranks],
        "dropped": [bool(bits >> r & 1) for r in ranks],
    }


def _any(rows: Mapping[str, list[Row]]) -> list[Row]:
    """Decisions with any number of experts."""
    found = {
        _key(row): _decision(row) | {"experts": [], "weights": [], "dropped": []} for row in rows.get("decisions_long", [])
    }
    for row in rows.get("assignments_long", []):
        one = found[_key(row)]
        for name, value in (("experts", row["expert"]), ("weights", _number(row.get("weight"))), ("dropped", row["dropped"])):
            one[name].append(value)
    return list(found.values())


def _key(row: Row) -> tuple[int, ...]:
    return row["forward"], row["router"], row["iteration"], row["token"]


def _decision(row: Row) -> Row:
    said = {name: _number(row.get(name)) for name in ("entropy", "margin")}
    return {"router": row["router"], "iteration": row.get("iteration", 0), "token": row["token"], **said}


def _number(value: Any) -> float | None:
    """A number for JSON, which has none that are not finite."""
    return None if value is None or not np.isfinite(value) else round(float(value), 6)
