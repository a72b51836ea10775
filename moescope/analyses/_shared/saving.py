"""Answers into the store: its `measures`."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from ...store.remote.addresses import local
from ...store.write.change import change_store
from .answer import Answer

_SAME = ["router", "layer", "expert", "name", "estimator", "subset", "value", "ci_low", "ci_high", "chance", "p", "n", "units"]


def measures(answer: Answer) -> pd.DataFrame:
    """The figures of an answer in the columns of `measures`; null, source and q are in `extra`."""
    figures = answer.frames["figures"]
    extra = [
        json.dumps({"analysis": answer.name, "null": n, "source": s, "null_mean": _number(m), "q": _number(q)})
        for n, s, m, q in zip(figures["null"], figures["source"], figures["null_mean"], figures["q"])
    ]
    return pd.DataFrame({"run": answer.run, **{column: figures[column] for column in _SAME}, "extra": extra})


def save(store: str | Path, answer: Answer) -> int:
    """Keep the figures of `answer` in the store's `measures`, in place of what the same analysis said of that run before.

    The file is copied, changed and renamed, so no reader is disturbed. Gives the number of rows; raises StoreError.
    """
    rows = measures(answer)

    def change(con: Any) -> None:
        con.execute("delete from measures where run = ? and extra->>'analysis' = ?", [answer.run, answer.name])
        con.register("answer_rows", rows)
        con.execute("insert into measures by name from answer_rows")
        con.unregister("answer_rows")

    change_store(local(store), change)
    return len(rows)


def _number(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)
