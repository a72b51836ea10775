"""k-sparse probes of whether an expert runs: k features, chosen and weighed on other documents than those they are asked of.

As in the released code of arXiv 2604.02178 (probe.py): the k features of largest absolute difference of means between tokens
that ran the expert and tokens that did not, then a logistic regression on them with balanced classes. That code asks of a
random quarter of the tokens; here whole documents are left out, five folds.
"""

import warnings
from typing import Any

import numpy as np

from ...statistics import Array
from .._shared.guesses import FOLDS

LEAST = 50  # tokens that ran an expert, and that did not: fewer and it is not asked, as in that code


def chosen_features(matrix: Any, ran: Array) -> Array:
    """(experts, F) differences of means between tokens that ran an expert and the others; `ran` (tokens, experts)."""
    y = ran.astype(float)
    n = y.sum(0)[:, None]
    on = np.asarray((matrix.T @ y).T)
    total = np.asarray(matrix.sum(0)).ravel()[None]
    return np.asarray(on / np.maximum(n, 1) - (total - on) / np.maximum(len(y) - n, 1))


def said(matrix: Any, ran: Array, fold: Array, experts: Array, ks: list[int]) -> dict[int, Array]:
    """{k: (tokens, experts) bool}: what probes say of tokens of documents that they were not made on."""
    found = {k: np.zeros((len(ran), len(experts)), dtype=bool) for k in ks}
    for number in range(FOLDS):
        test, train = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        if not len(test) or not len(train):
            continue
        order = np.argsort(-np.abs(chosen_features(matrix[train], ran[train][:, experts])), axis=1, kind="stable")
        for at, expert in enumerate(experts):
            y = ran[train, expert]
            for k in ks if y.any() and not y.all() else []:
                columns = order[at, :k]
                found[k][test, at] = _fit(matrix[train][:, columns].toarray(), y).predict(matrix[test][:, columns].toarray())
    return found


def _fit(x: Array, y: Array) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a fit that stopped early
        return make_pipeline(StandardScaler(), LogisticRegression(max_iter=200, class_weight="balanced")).fit(x, y)


def f1(sums: Array) -> Array:
    """F1 from (..., 3) sums: true positives, false positives, false negatives; 0 where there is none."""
    hit, false, missed = np.moveaxis(np.asarray(sums, dtype=float), -1, 0)
    return np.divide(2 * hit, 2 * hit + false + missed, out=np.zeros(np.shape(hit)), where=2 * hit + false + missed > 0)


def counts(says: Array, ran: Array) -> Array:
    """(tokens, experts, 3): true positives, false positives, false negatives."""
    return np.stack([says & ran, says & ~ran, ~says & ran], -1)
