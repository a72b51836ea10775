"""A few tokens of every document with all that routers did with them: matrices small enough for linear algebra."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ....statistics.participation import Floats
from ....store import Store
from ..scope import Scope
from ..verdicts.columns import COLUMNS, WHOLE

UNITS, ROWS = 256, 512


@dataclass(frozen=True)
class Sample:
    """`tokens`: frame (token, unit, stack, row), `row` counting within its stack; `weights`, `logits` by router, (rows, E)."""

    routers: pd.DataFrame
    tokens: pd.DataFrame
    weights: dict[int, Floats]
    logits: dict[int, Floats]
    sql: dict[str, str]
    notes: list[str]

    @property
    def stacks(self) -> list[str]:
        """Stacks that have tokens."""
        return list(dict.fromkeys(self.routers["stack"]))

    def units_of(self, stack: str) -> Floats:
        """(rows,): the document of each row."""
        return np.asarray(self.tokens.loc[self.tokens["stack"] == stack, "unit"].to_numpy())

    def streams(self, stream: str) -> Iterator[tuple[dict[str, Any], Floats, Floats]]:
        """Where, states (rows, dimensions), the router of each dimension: router logits, routing weights or routing matrix."""
        if stream == "routing matrix":
            yield from self._matrices()
            return
        states = self.logits if stream == "router logits" else self.weights
        for router, row in self.routers.iterrows():
            if router in states:
                where = {"stack": row["stack"], "layer": row["layer"], "router": router}
                yield where, states[router], np.zeros(states[router].shape[1])

    def _matrices(self) -> Iterator[tuple[dict[str, Any], Floats, Floats]]:
        for stack in self.stacks:
            routers = [r for r in self.routers.index[self.routers["stack"] == stack] if r in self.weights]
            if len(routers) > 1:
                blocks = np.concatenate([np.full(self.weights[r].shape[1], r) for r in routers])
                yield {"stack": stack}, np.concatenate([self.weights[r] for r in routers], axis=1), blocks


def sample(scope: Scope, units: int = UNITS, rows: int = ROWS) -> Sample:
    """A few tokens of at most `units` documents of each stack, drawn by hash: the same in all runs of one input.

    About `rows` tokens of a stack in all, and between 2 and 16 of a document. Of routers that fire more than once in a forward
    pass the first decision is taken. Nothing where the model has no routers.
    """
    if not scope.routed:
        return Sample(pd.DataFrame({"stack": []}), pd.DataFrame({"stack": [], "unit": []}), {}, {}, {}, [])
    per_unit = int(np.clip(rows // max(1, min(units, scope.documents)), 2, 16))
    drawn = f"""with units as ({scope.units_sql()}),
numbered as (
  select t.token, u.unit, s.stack,
         row_number() over (partition by s.stack, u.unit order by hash(t.sequence, t.position)) as place
  from tokens t join units u using (sequence) join sequences s using (sequence)
  where t.run = {scope.run} and not coalesce(t.special, false))
select token, stack, unit from numbered where place <= {per_unit}
qualify dense_rank() over (partition by stack order by hash(unit), unit) <= {units} order by stack, unit, token"""
    tokens = scope.store.sql(drawn).df()
    tokens["row"] = tokens.groupby("stack").cumcount()
    weights, again = _matrices(scope, tokens)
    logits, query = _logits(scope, tokens)
    documents = tokens.groupby("stack")["unit"].nunique()
    notes = [
        f"{count} documents in the {stack}: the unbiased form takes 4, and an interval 5; trace more documents."
        for stack, count in documents.items()
        if count < 4
    ]
    if again:
        notes.append(
            f"Routers fired up to {again + 1} times for a token in one forward pass; weights, logits and the routing matrix "
            "here are of the first time."
        )
    if not logits:
        notes.append("Router logits were not stored: trace with logits to have their dimensionality.")
    return Sample(scope.routers, tokens, weights, logits, {"tokens": drawn, "logits": query}, notes)


def _rows(scope: Scope, tokens: pd.DataFrame, what: str, source: str) -> pd.DataFrame:
    con = scope.store.con
    con.register("drawn_tokens", tokens[["token", "row"]])
    try:
        return con.sql(
            f"select d.row, a.router, a.iteration, {what} from {source} a join drawn_tokens d using (token) "
            f"where a.run = {scope.run}"
        ).df()
    finally:
        con.unregister("drawn_tokens")


def _matrices(scope: Scope, tokens: pd.DataFrame) -> tuple[dict[int, Floats], int]:
    """Weights by router, of iteration 0; and the last iteration."""
    frame = _rows(scope, tokens, "a.expert, case when a.dropped then 0 else a.weight end as weight", "assignments")
    last = 0 if frame.empty else int(frame["iteration"].max())
    frame = frame[frame["iteration"] == 0]
    sizes = tokens.groupby("stack").size()
    found = {}
    for router, part in frame.groupby("router"):
        row = scope.routers.loc[router]
        matrix = np.zeros((int(sizes.get(row["stack"], 0)), int(row["experts"])))
        part = part[(part["expert"] < row["experts"]) & np.isfinite(part["weight"])]
        np.add.at(matrix, (part["row"].to_numpy(), part["expert"].to_numpy()), part["weight"].to_numpy())
        found[int(router)] = matrix
    return found, last


def _logits(scope: Scope, tokens: pd.DataFrame) -> tuple[dict[int, Floats], str]:
    frame = _rows(scope, tokens, "a.logits", "logits")
    frame = frame[frame["iteration"] == 0]
    sizes = tokens.groupby("stack").size()
    found = {}
    for router, part in frame.groupby("router"):
        values = np.stack([np.asarray(v, dtype=np.float64) for v in part["logits"]])[
            np.argsort(part["row"].to_numpy(), kind="stable")
        ]
        if len(values) == sizes.get(scope.routers.loc[router, "stack"]) and np.isfinite(values).all():
            found[int(router)] = values
    return found, f"select router, token, logits from logits where run = {scope.run} and iteration = 0"


def measured(store: Store, run: int, names: Sequence[str], analysis: str) -> pd.DataFrame:
    """Figure rows of `measures` of those names that a trace, not this analysis, put there; cycles, from 1, in the subset."""
    subset = "m.subset || coalesce(', cycle ' || (m.iteration + 1), '')"
    sql = (
        f"select m.* replace ({subset} as subset), r.stack from measures m left join routers r using (router) "
        f"where m.run = {run} and list_contains(?, m.name) and coalesce(m.extra->>'analysis', '') <> ? "
        "order by m.router, m.layer, m.expert, m.name, m.subset, m.iteration, m.estimator"
    )
    frame = store.sql(sql, [list(names), analysis]).df()
    if frame.empty:
        return pd.DataFrame(columns=COLUMNS)
    frame = frame.assign(null_mean=np.nan, q=np.nan, p_from="", null="", source="summed up while tracing")
    frame = frame.fillna({"stack": "", "subset": "", "estimator": ""}).reindex(columns=COLUMNS)
    return frame.astype(dict.fromkeys((*WHOLE, "tests", "families"), "Int64"))
