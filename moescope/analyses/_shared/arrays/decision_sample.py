"""Decisions of whole sequences in memory, token by token, for what counts cannot say: neighbours, paths, pairs."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from .... import statistics as st
from ....errors import AnalysisError
from ....statistics import Array
from ..scope import Scope, place

MOST = 8_000_000  # assignments in memory


@dataclass(frozen=True)
class Sample:
    """`tokens`: frame (token, unit, sequence, position, vocab_id, y, x, kind) by sequence and position; `chosen[router]`:
    (tokens, k) experts by rank (where ranks are not known: in the engine's order, see `Scope.ranked`), -1 where there is none
    or it was dropped.
    """

    scope: Scope
    tokens: pd.DataFrame
    chosen: dict[int, Array]
    sql: str

    @property
    def unit(self) -> Array:
        """Document of every token, from 0."""
        return self.tokens["unit"].to_numpy()

    @cached_property
    def units(self) -> int:
        """Number of documents."""
        return int(self.unit.max()) + 1

    @cached_property
    def neighbours(self) -> Array:
        """Rows whose next row is the next token of the same sequence."""
        sequence, position = (self.tokens[c].to_numpy(np.int64) for c in ("sequence", "position"))
        return np.nonzero((sequence[1:] == sequence[:-1]) & (position[1:] == position[:-1] + 1))[0]

    def routers(self) -> Iterator[tuple[dict[str, Any], int, Array, Array]]:
        """(where, E, rows, chosen of those rows) of every router, rows being the tokens that it decided about."""
        for router, row in self.scope.routers.iterrows():
            (rows,) = np.nonzero((self.chosen[router] >= 0).any(axis=1))
            if len(rows):
                yield place(row), int(row["experts"]), rows, self.chosen[router][rows]


def tokens_sql(scope: Scope, share: float, only: str = "true", order: str = "sequence") -> str:
    """Tokens of a share of the sequences, dealt by hash of `order`; `only` is a condition on them."""
    return f"""with units as ({scope.units_sql()})
select token, units.unit, sequence, position, vocab_id, y, x, t.unit as kind
from tokens t join units using (sequence) join sequences s using (sequence)
where t.run = {scope.run} and ({only}) and hash({order}) % 10000 < {round(share * 10000)}
order by sequence, position"""


def sample(scope: Scope, notes: list[str], most: int = MOST, only: str = "true", order: str = "sequence") -> Sample:
    """Decisions (iteration 0) of as many whole sequences as hold `most` assignments; a note says where that is not all."""
    assignments = scope.store.rows(f"select sum(assignments + dropped) from load_rollup where run = {scope.run}")[0][0]
    share = min(1.0, most / max(1, int(assignments or 0)))
    sql = tokens_sql(scope, share, only, order)
    tokens = scope.store.sql(sql).df()
    if tokens.empty:
        raise AnalysisError(f"run {scope.run} holds no tokens to look at; trace longer inputs")
    if share < 1:
        said = (
            f"Neighbours, pairs, paths and vocabulary are measured on {len(tokens)} tokens of whole sequences, chosen by hash."
        )
        notes.extend([said] if said not in notes else [])
    tokens["unit"] = pd.factorize(tokens["unit"], sort=True)[0]
    return Sample(scope, tokens, _chosen(scope, tokens, sql), sql)


def _chosen(scope: Scope, tokens: pd.DataFrame, taken: str) -> dict[int, Array]:
    order = np.argsort(tokens["token"].to_numpy())
    sorted_tokens = tokens["token"].to_numpy()[order]
    width = scope.store.rows(f"select max(coalesce(rank, slot)) + 1 from assignments where run = {scope.run}")[0][0] or 1
    experts = {router: int(row["experts"]) for router, row in scope.routers.iterrows()}
    chosen = {router: np.full((len(tokens), width), -1, dtype=np.int16) for router in experts}
    sql = f"""select router, token, coalesce(rank, slot) as rank, expert from assignments
where run = {scope.run} and iteration = 0 and not dropped and token in (select token from ({taken}))"""
    for batch in scope.store.sql(sql).to_arrow_reader(1 << 20):
        router, token, rank, expert = (batch[c].to_numpy(zero_copy_only=False) for c in ("router", "token", "rank", "expert"))
        place_of = np.minimum(np.searchsorted(sorted_tokens, token), len(order) - 1)
        known = sorted_tokens[place_of] == token
        for number, table in chosen.items():
            mine = known & (router == number) & (expert < experts[number])
            table[order[place_of[mine]], rank[mine]] = expert[mine]
    return {router: _narrow(table) for router, table in chosen.items()}


def _narrow(table: Array) -> Array:
    """Without the ranks that the router never fills."""
    used = np.flatnonzero((table >= 0).any(axis=0))
    width = int(used.max(initial=0)) + 1
    return table[:, :width]


def by_unit(unit: Array, units: int, values: Array) -> Array:
    """(units, ...): sums of (tokens, ...) values by document."""
    if values.ndim == 1:
        return np.bincount(unit, weights=values, minlength=units)
    return np.stack([np.bincount(unit, weights=column, minlength=units) for column in values.T], axis=1)


def one_hot(chosen: Array, experts: int) -> Array:
    """(tokens, experts) booleans of who was chosen."""
    hot = np.zeros((len(chosen), experts + 1), dtype=bool)
    hot[np.arange(len(chosen))[:, None], chosen] = True  # -1 is the last column
    return hot[:, :experts]


def bits(chosen: Array, experts: int) -> Array:
    """(words, tokens): who was chosen, as 64 bits of each word; -1 is none."""
    words = np.zeros((-(-experts // 64), len(chosen)), dtype=np.uint64)
    for column in chosen.T:
        (there,) = np.nonzero(column >= 0)
        expert = column[there].astype(np.uint64)
        words[expert // 64, there] |= np.uint64(1) << (expert % 64)
    return words


def shuffles(unit: Array, draws: int, seed: int = 0) -> Iterator[Array]:
    """Row orders that shuffle tokens within their document; `unit` need not be sorted."""
    return st.orders(unit, draws, seed)
