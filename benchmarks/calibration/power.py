"""How often a lone planted specialist is named, beside a chi-square of the same documents with their labels permuted."""

from copy import deepcopy
from typing import Any

import numpy as np
import pandas as pd

from moescope import statistics as st
from moescope.analyses._shared.arrays.document_counts import Table
from moescope.analyses._shared.dealt_labels import Dealt, deal

LABELS, NAMES = 5, 9  # names that `specialization` tests, by which q is multiplied there
SHARES = (0.0, 0.25, 0.5, 1.0, 2.0)  # what a planted expert has beyond the even share, of that share
CASES: dict[str, dict[str, Any]] = {
    "4 routers of 32, 60 documents of 400": {"routers": 4, "experts": 32, "documents": 60, "lengths": (400,) * 5, "worlds": 16},
    "the same, the label's documents of 40": {
        "routers": 4, "experts": 32, "documents": 60, "lengths": (40, 400, 400, 400, 400), "worlds": 16,
    },
    "48 routers of 128, 100 documents of 400": {
        "routers": 48, "experts": 128, "documents": 100, "lengths": (400,) * 5, "worlds": 1,
        "shares": (0.0, 0.5, 1.0, 1.25, 1.5, 2.0), "plants": 6,
    },
}  # fmt: skip


def curve(
    routers: int, experts: int, documents: int, lengths: tuple[int, ...], worlds: int,
    shares: tuple[float, ...] = SHARES, plants: int = 1,
) -> dict[str, Any]:  # fmt: skip
    """{"worlds": n, "named": {share: rate}, "chi-square": {share: rate}}; each world's other routers stay for `plants` routers
    with a planted expert, one after the other."""
    hits: dict[str, list[tuple[bool, bool]]] = {str(share): [] for share in shares}
    for seed in range(worlds):
        rng = np.random.default_rng([seed, 5])
        rest = _Others([_table(rng, experts, documents, lengths) for _ in range(routers - 1)])
        for share in shares:
            for plant in range(plants):
                table = _table(np.random.default_rng([seed, plant, 6]), experts, documents, lengths, share)
                hits[str(share)].append((rest.named(table), _chi_square(rng, table) <= 0.05 / routers))
    rates = {share: np.mean(found, axis=0).tolist() for share, found in hits.items()}
    return {"worlds": worlds * plants, "named": {s: r[0] for s, r in rates.items()},
            "chi-square": {s: r[1] for s, r in rates.items()}}  # fmt: skip


def _dealt(table: Table) -> Dealt:
    counts = table.counts.sum(1)
    return deal(table.home, LABELS, st.Rates(counts, counts.sum(1)))


class _Others:
    """Routers in which nothing is planted: their cells, and the null that they give."""

    def __init__(self, tables: list[Table]) -> None:
        self.pools, self.t = [st.Pool() for _ in range(LABELS)], list[Any]()
        for table in tables:
            dealt = _dealt(table)
            dealt.add_to(self.pools)
            self.t.append(dealt.t)

    def named(self, table: Table) -> bool:
        """Whether expert 3 of one more router passes for label 0, among the cells of all routers, as `specialization` tests."""
        pools, own = deepcopy(self.pools), _dealt(table)
        own.add_to(pools)
        cells = np.stack([own.t, *self.t])  # (routers, labels, experts)
        p = np.stack([pool.p(cells[:, label]) for label, pool in enumerate(pools)], axis=1)
        q = st.fdr(p.ravel()).reshape(p.shape) * NAMES
        return bool(q[0, 0, 3] <= 0.05 and own.t[0, 3] > 0)


def _table(rng: np.random.Generator, experts: int, documents: int, lengths: tuple[int, ...], share: float = 0.0) -> Table:
    """Top-1 counts of documents that lean a little; expert 3 has more of label 0."""
    home = np.arange(documents) % LABELS
    counts = np.zeros((documents, LABELS, experts))
    for unit, label in enumerate(home):
        p = rng.dirichlet(np.full(experts, 200.0))
        p[3] *= 1 + share * (label == 0)
        counts[unit, label] = rng.multinomial(lengths[label], p / p.sum())
    where = {"stack": "decoder", "layer": 0, "router": 0, "top_k": 1}
    return Table(pd.Series(where), [str(label) for label in range(LABELS)], counts)


def _chi_square(rng: np.random.Generator, table: Table, draws: int = 999) -> float:
    """p of Pearson's chi-square of label by expert, labels permuted over documents."""
    counts, home = table.counts.sum(1), table.home

    def value(labels: Any) -> float:
        seen = np.eye(LABELS)[labels].T @ counts
        size = seen.sum(1, keepdims=True) * counts.sum(0) / counts.sum()
        return float(((seen - size) ** 2 / np.maximum(size, 1e-12)).sum())

    null = np.array([value(rng.permutation(home)) for _ in range(draws)])
    return float(st.p_value(np.array(value(home)), null))
