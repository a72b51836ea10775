"""Labels of whole documents dealt anew, and what a router's groups of documents differ by, in the data and in every
permutation."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import pandas as pd

from ... import statistics as st
from ...statistics import Array, Grouped, Pool, Rates

NULL = "labels dealt anew to documents, studentized"
KEPT = 100_000_000  # cells of dealt labels that are kept from router to router (400 MB)
PART = 16_000_000  # cells of dealt labels at a time
WORK = 600_000_000  # multiplications for the permutations of one router
FEWEST, MOST, FEW = 299, 1999, 499  # permutations; FEW where single cells are not looked at


@dataclass(frozen=True)
class Dealt:
    """Sums by label of counts (documents, E) of totals (documents,): observed, and with labels dealt anew, a draw a row."""

    observed: Grouped
    null: Grouped

    @cached_property
    def t(self) -> Array:
        """(labels, E): studentized differences from all other documents."""
        return self.observed.against_rest()

    @cached_property
    def t_null(self) -> Array:
        """(draws, labels, E): the same with labels dealt anew."""
        return self.null.against_rest()

    def add_to(self, pools: list[Pool]) -> None:
        """The permuted differences of every label to its pool."""
        for pool, null in zip(pools, np.moveaxis(self.t_null, 1, 0)):
            pool.add(null)

    def p(self, first: list[int] | None = None, second: list[int] | None = None) -> Array:
        """Of the sum of squared differences: (1,) of all labels from their rests, or (pairs,) of pairs of labels."""
        if first is None or second is None:
            return self._p
        return self._tail(*(np.nansum(x.between(first, second) ** 2, axis=-1) for x in (self.observed, self.null)))

    @cached_property
    def _p(self) -> Array:
        return self._tail(*(st.omnibus(t)[..., None] for t in (self.t, self.t_null)))

    @staticmethod
    def _tail(value: Array, null: Array) -> Array:
        known = np.isfinite(value)
        return np.where(known, st.curve_tail(np.where(known, value, 0.0), np.nan_to_num(null)), np.nan)

    def p_by_expert(self) -> Array:
        """(E,): of the sum over labels of an expert's squared differences."""
        value, null = (np.nansum(t**2, axis=-2) for t in (self.t, self.t_null))
        return np.asarray(st.curve_tail(value, null))

    @property
    def fair(self) -> Array:
        """(draws,): what scales an information of dealt groups, as documents differ in length (`Grouped.noise`)."""
        return np.asarray(self.observed.noise / np.maximum(self.null.noise, 1e-300))

    @property
    def p_from(self) -> str:
        """How `p` is had."""
        return f"count of {len(self.null.sums)} draws, Pearson III beyond"


@dataclass(frozen=True)
class Pooled:
    """Cells of one router whose p waits for the null of all routers; `t` (labels, experts) is tested by its label's pool."""

    figures: pd.DataFrame
    t: Array
    pools: list[Pool]

    def tested(self) -> pd.DataFrame:
        """With their p, once every router has added to the pools."""
        said = [f"count of {pool.draws} draws of every cell of the label, Pareto tail beyond" for pool in self.pools]
        p = np.concatenate([pool.p(t) for pool, t in zip(self.pools, self.t)])
        return self.figures.assign(p=p, p_from=np.repeat(said, self.t.shape[1]))


def settled(rows: Sequence[pd.DataFrame | Pooled]) -> list[pd.DataFrame]:
    """All of them tested."""
    return [row.tested() if isinstance(row, Pooled) else row for row in rows]


def deal(home: Array, labels: int, rates: Rates, most: int = MOST) -> Dealt:
    """`home` (documents,) is the label of each; in as many draws as `WORK` allows, FEWEST to `most`."""
    columns = rates.columns
    draws = int(np.clip(WORK // max(1, labels * columns.size), FEWEST, most))
    parts = _permutations(home.astype(np.int32).tobytes(), labels, draws)
    null = np.concatenate([part.reshape(-1, len(home)) @ columns for part in parts])
    hot = (home == np.arange(labels)[:, None]).astype(float)
    return Dealt(rates.grouped(hot @ columns), rates.grouped(null.reshape(-1, labels, columns.shape[1])))


def _permutations(home: bytes, labels: int, draws: int) -> Iterable[Array]:
    """Parts of (draws, labels, units) of 0 and 1: labels dealt anew to documents; kept for the next router if not too large."""
    units = len(home) // 4
    return _kept(home, labels, draws) if draws * labels * units <= KEPT else _parts(home, labels, draws)


@lru_cache(maxsize=1)
def _kept(home: bytes, labels: int, draws: int) -> list[Array]:
    return list(_parts(home, labels, draws))


def _parts(home: bytes, labels: int, draws: int) -> Iterator[Array]:
    units, rng = len(home) // 4, np.random.default_rng(0)
    own, size = np.frombuffer(home, dtype=np.int32), max(1, PART // max(1, labels * units))
    for start in range(0, draws, size):
        dealt = rng.permuted(np.tile(own, (min(size, draws - start), 1)), axis=1)
        yield (dealt[:, None, :] == np.arange(labels)[:, None]).astype(np.float32)
