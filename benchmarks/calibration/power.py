"""How often a planted specialist is named, beside a chi-square of the same documents with their labels permuted."""

from typing import Any

import numpy as np
import pandas as pd

from moescope import statistics as st
from moescope.analyses._shared.document_counts import Table
from moescope.analyses.specialization.labels import by_label

LABELS, NAMES = 5, 8  # names that `specialization` tests, by which q is multiplied there
SHARES = (0.0, 0.25, 0.5, 1.0, 2.0)  # what a planted expert has beyond the even share, of that share
CASES: dict[str, dict[str, Any]] = {
    "4 routers of 32, 60 documents of 400": {"routers": 4, "experts": 32, "documents": 60, "lengths": (400,) * 5, "worlds": 8},
    "the same, the label's documents of 40": {
        "routers": 4, "experts": 32, "documents": 60, "lengths": (40, 400, 400, 400, 400), "worlds": 8,
    },
    "48 routers of 128, 100 documents of 400": {
        "routers": 48, "experts": 128, "documents": 100, "lengths": (400,) * 5, "worlds": 1, "shares": (1.0, 2.0),
    },
}  # fmt: skip


def curves() -> dict[str, Any]:
    """{case: {"worlds": n, "named": {share: rate}, "chi-square": {share: rate}}}."""
    return {name: _curve(**case) for name, case in CASES.items()}


def _curve(
    routers: int, experts: int, documents: int, lengths: tuple[int, ...], worlds: int, shares: tuple[float, ...] = SHARES
) -> dict[str, Any]:
    named, omnibus = {}, {}
    for share in shares:
        hits = [_world(seed, routers, experts, documents, lengths, share) for seed in range(worlds)]
        named[str(share)], omnibus[str(share)] = (float(np.mean(x)) for x in zip(*hits))
    return {"worlds": worlds, "named": named, "chi-square": omnibus}


def _world(seed: int, routers: int, experts: int, documents: int, lengths: tuple[int, ...], share: float) -> tuple[bool, bool]:
    """Whether the one planted expert of the first router is named, and whether a chi-square of its table is significant."""
    rng, pools = np.random.default_rng([seed, 5]), [st.Pool() for _ in range(LABELS)]
    tables = [_table(rng, experts, documents, lengths, share * (number == 0)) for number in range(routers)]
    made = [by_label(t, t.counts.sum((1, 2)), "domain", [st.Pool() for _ in range(LABELS)], pools) for t in tables]
    cells = pd.concat([one.share.tested().assign(number=n) for n, one in enumerate(made)], ignore_index=True)
    q = st.fdr(cells["p"].to_numpy(float)) * NAMES
    own = (cells["number"] == 0) & (cells["expert"] == 3) & (cells["subset"] == "domain=0")
    return bool(q[own][0] <= 0.05), _chi_square(rng, tables[0]) <= 0.05 / routers


def _table(rng: np.random.Generator, experts: int, documents: int, lengths: tuple[int, ...], share: float) -> Table:
    """Top-1 counts of documents that lean a little; expert 3 has more of label 0."""
    home = np.arange(documents) % LABELS
    counts = np.zeros((documents, LABELS, experts))
    for unit, label in enumerate(home):
        p = rng.dirichlet(np.full(experts, 200.0))
        p[3] *= 1 + share * (label == 0)
        counts[unit, label] = rng.multinomial(lengths[label], p / p.sum())
    where = {"stack": "decoder", "layer": 0, "router": 0, "top_k": 1}
    return Table(pd.Series(where), [str(label) for label in range(LABELS)], counts)


def _chi_square(rng: np.random.Generator, table: Table, draws: int = 499) -> float:
    """p of Pearson's chi-square of label by expert, labels permuted over documents."""
    counts, home = table.counts.sum(1), table.home

    def value(labels: Any) -> float:
        seen = np.eye(LABELS)[labels].T @ counts
        expected = seen.sum(1, keepdims=True) * seen.sum(0) / seen.sum()
        return float(((seen - expected) ** 2 / np.maximum(expected, 1e-12)).sum())

    null = np.array([value(rng.permutation(home)) for _ in range(draws)])
    return float(st.p_value(np.array(value(home)), null))
