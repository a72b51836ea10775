"""What `moescope experiment` measured on a live model: figures kept in `measures`, read back with their null and source."""

import json
from typing import Any

import pandas as pd

from ...errors import AnalysisError
from ...store import Store
from ...store.schema import quote
from .verdicts.columns import COLUMNS, WHOLE

KEY = "experiment"  # in `extra`


def rows_of(experiment: str, run: int, figures: pd.DataFrame, more: list[dict[str, Any]] | None = None) -> pd.DataFrame:
    """Figures (COLUMNS) as rows of `measures`; `more` adds to each row's `extra`."""
    same = [c for c in COLUMNS if c in ("router", "layer", "expert", "name", "estimator", "subset", "value", "chance", "p")]
    said = figures[["null", "source", "p_from", "null_mean"]].astype({"null_mean": object})
    said["null_mean"] = [None if pd.isna(v) else float(v) for v in figures["null_mean"]]
    extra = [{KEY: experiment} | row | (more[n] if more else {}) for n, row in enumerate(said.to_dict("records"))]
    kept = {column: figures[column].array for column in [*same, "ci_low", "ci_high", "n", "units"]}
    return pd.DataFrame({"run": run, **kept, "extra": [json.dumps(e) for e in extra]})


def sql_of(run: int, experiment: str) -> str:
    """The query of what an experiment left."""
    return f"""select m.* replace (coalesce(m.subset, '') as subset, coalesce(m.estimator, '') as estimator),
  coalesce(r.stack, '') as stack, m.extra->>'null' as "null", m.extra->>'source' as source,
  coalesce(m.extra->>'p_from', '') as p_from, (m.extra->>'null_mean')::double as null_mean
from measures m left join routers r using (router)
where m.run = {run} and m.extra->>{quote(KEY)} = {quote(experiment)}
order by stack, m.layer, m.router, m.expert, m.name, m.estimator, m.subset"""


def kept(store: Store, run: int, experiment: str) -> tuple[pd.DataFrame, pd.Series]:
    """(figures without q, `extra` of each row as a dict) of one run; none where the experiment was not made."""
    frame = store.sql(sql_of(run, experiment)).df()
    extra = frame["extra"].map(lambda text: json.loads(text)) if len(frame) else pd.Series(dtype=object)
    frame = frame.assign(q=float("nan")).reindex(columns=COLUMNS)
    return frame.astype(dict.fromkeys((*WHOLE, "tests", "families"), "Int64")), extra


def asked(store: Store, run: int, experiment: str, what: str) -> tuple[pd.DataFrame, pd.Series]:
    """As `kept`. AnalysisError that says how to make the experiment, where it was not made."""
    frame, extra = kept(store, run, experiment)
    if frame.empty:
        raise AnalysisError(
            f"run {run} has no {what}: that takes the model itself; make it with moescope experiment {experiment} MODEL "
            f"{store.path} --run {run}"
        )
    return frame, extra
