"""Sparse features: which few features of a router's input tell that an expert runs, beyond what the last two tokens tell?

`path` is a file of features of tokens (activations of a sparse autoencoder, or the router's input itself as written by
`moescope experiment states MODEL STORE`): what it holds is in `matrix.py`. A probe of k features says whether an expert runs
for a token: k-sparse probing, arXiv 2604.02178 and its code, see `probe.py`; held out by document.
* F1 of a sparse probe, by expert and k, and of the guess from the bigram (token and the one before; the expert is said where it
  is likelier than at large, which balances classes alike). Null: what is said moved round within each document by a number of
  its own, which holds how often it is said there and how it runs on from token to token.
* beyond the bigram: balanced accuracy of the probe less that of the bigram. Null: the signs of the documents' gains flipped.
`features`: the ones that a probe on all documents takes first, with the difference of means. q is over all rows of the answer.
What predicts a choice need not cause it.
"""

from typing import Any

import numpy as np
import pandas as pd

from ... import statistics as st
from ...errors import AnalysisError
from ...statistics import Array
from ...store import Store
from ...words import Count
from .._shared.answer import Answer, Chart, few_units, figures, gather
from .._shared.arrays.decision_sample import Sample, by_unit, one_hot, sample
from .._shared.chart_forms import heatmap
from .._shared.guesses import Contexts, held_out
from .._shared.scope import scope
from .._shared.verdicts.verdict import analyze, signed
from .matrix import Features, read
from .probe import LEAST, chosen_features, counts, f1, said

SOURCE, BIGRAM = "k-sparse probing, 2604.02178", "bigram"
F1, BEYOND = "F1 of a sparse probe", "beyond the bigram (balanced accuracy)"
ROUND, FLIPPED = "what is said moved round within documents", "signs of the documents' gains over the bigram flipped"
MOVES, FLIPS, MOST = 199, 4999, 8_000_000
LIMITS = "it does not show that a feature causes the choice"


def run(
    store: Store, run: int | None = None, *, path: str, layer: int | None = None, k: Count = 8, limit: Count = 8_000
) -> Answer:
    """Of the routers of `layer` (default: the file's, else all), with probes of 1 and of `k` features, on `limit` tokens."""
    here = scope(store, run)
    notes, given = list(here.notes), read(path)
    taken = sample(here, notes, MOST)
    rows, at = _matched(taken, given, limit)
    notes.append(f"{len(rows)} tokens of run {here.run} have features in {path} ({len(given.names)} features).")
    wanted = given.layer if layer is None else layer
    contexts, frames, tables = Contexts.of(taken), [], []
    for where, experts, there, chosen in taken.routers():
        if wanted is not None and where["layer"] != wanted:
            continue
        mine, place, of_file = np.intersect1d(there, rows, assume_unique=True, return_indices=True)
        ran = one_hot(chosen[place], experts)
        asked = np.flatnonzero((ran.sum(0) >= LEAST) & ((~ran).sum(0) >= LEAST))
        if len(asked):
            matrix = given.matrix[at[of_file]]
            bigram = held_out(contexts, mine, chosen[place], experts, BIGRAM) if BIGRAM in contexts.code else None
            frames += _probes(taken, where, mine, matrix, ran, asked, contexts.fold[mine], k, bigram)
            tables.append(_table(where, matrix, ran, asked, given.names, k))
    if not frames:
        raise AnalysisError(
            f"nothing can be probed: of {len(rows)} tokens with features no router asked about has an expert that ran for "
            f"{LEAST} of them and did not for {LEAST}; give more tokens, or another layer"
        )
    frame = gather(frames, family=())
    found = {"figures": frame, "features": pd.concat(tables, ignore_index=True)}
    sql = dict.fromkeys(found, taken.sql)
    notes += few_units(frame)
    said = signed(
        _reading(frame, found["features"]), frame[frame["name"] == F1], frame, LIMITS, analyze("syntax_experts"), "of 1"
    )
    return Answer(
        "features",
        "Sparse features",
        said,
        here.run,
        found,
        sql,
        notes,
        charts,
    )


def _matched(taken: Sample, given: Features, limit: int) -> tuple[Array, Array]:
    """(rows of the sample, rows of the file) of the same tokens, of whole documents drawn until there are `limit`."""
    token = taken.tokens["token"].to_numpy(np.int64)
    _, rows, at = np.intersect1d(token, given.token, return_indices=True)
    if not len(rows):
        raise AnalysisError(
            f"none of the file's {len(given.token)} tokens is in run {taken.scope.run}; `token` holds keys of its table tokens"
        )
    unit = taken.unit[rows]
    size, drawn = np.bincount(unit, minlength=taken.units), np.random.default_rng(0).permutation(np.unique(unit))
    so_far = np.cumsum(size[drawn])
    keep = np.isin(unit, drawn[so_far <= max(limit, so_far[0])])
    order = np.argsort(rows[keep], kind="stable")
    return rows[keep][order], at[keep][order]


def _probes(
    taken: Sample, where: dict[str, Any], rows: Array, matrix: Any, ran: Array, asked: Array, fold: Array, k: int,
    bigram: Array | None,
) -> list[pd.DataFrame]:  # fmt: skip
    """Figures of one router."""
    unit, home = np.unique(taken.unit[rows], return_inverse=True)
    says = {f"k={n}": s for n, s in said(matrix, ran, fold, asked, sorted({1, min(k, matrix.shape[1])})).items()}
    if bigram is not None:
        says[BIGRAM] = bigram[:, asked] > 1
    y, frames = ran[:, asked], []
    moves = [_round(home, seed) for seed in range(MOVES)]
    common: dict[str, Any] = {"source": SOURCE, "n": len(rows), "units": len(unit)}
    at = where | {"expert": asked}
    for name, s in says.items():
        sums = _by_document(home, len(unit), counts(s, y))
        null = np.stack([f1(counts(s[order], y).sum(0)) for order in moves])
        share = s.mean(0) * y.mean(0)
        chance = 2 * share / np.maximum(s.mean(0) + y.mean(0), 1e-12)
        frames.append(figures(at, F1, f1(sums.sum(0)), estimator=name, chance=chance, draws=f1(_drawn(sums)), null=null,
                              null_name=ROUND, bounds=(0, 1), **common))  # fmt: skip
    weigh = np.where(y, 0.5 / np.maximum(y.sum(0), 1), 0.5 / np.maximum((~y).sum(0), 1))
    for name in says if bigram is not None else ():
        if name != BIGRAM:
            gain = by_unit(home, len(unit), ((says[name] == y) * 1.0 - (says[BIGRAM] == y)) * weigh)
            signs = np.random.default_rng(0).choice([-1.0, 1.0], (FLIPS, len(unit)))
            draws = st.bootstrap_weights(len(unit)) @ gain
            frames.append(figures(at, BEYOND, gain.sum(0), estimator=name, chance=0.0, draws=draws, null=signs @ gain,
                                  null_name=FLIPPED, **common))  # fmt: skip
    return frames


def _by_document(home: Array, units: int, values: Array) -> Array:
    flat = by_unit(home, units, values.reshape(len(values), -1).astype(float))
    return flat.reshape(units, *values.shape[1:])


def _drawn(sums: Array) -> Array:
    return st.resampled(st.bootstrap_weights(len(sums)), sums)


def _round(home: Array, seed: int) -> Array:
    """An order in which the rows of each document (ascending) are moved round by a number of its own."""
    rng, order = np.random.default_rng(seed), np.argsort(home, kind="stable")
    size = np.bincount(home)
    start = np.cumsum(size) - size
    number = np.arange(len(home)) - start[home[order]]
    moved = (number + rng.integers(0, np.maximum(size, 1))[home[order]]) % size[home[order]]
    found = np.empty(len(home), dtype=np.int64)
    found[order] = order[start[home[order]] + moved]
    return found


def _table(where: dict[str, Any], matrix: Any, ran: Array, asked: Array, names: list[str], k: int) -> pd.DataFrame:
    """Features that a probe on all documents takes, the first first."""
    differences = chosen_features(matrix, ran[:, asked])
    rows = []
    for at, expert in enumerate(asked):
        for rank, column in enumerate(np.argsort(-np.abs(differences[at]), kind="stable")[:k]):
            value = float(differences[at, column])
            rows.append(where | {"expert": int(expert), "rank": rank, "feature": names[column], "difference": value})
    return pd.DataFrame(rows)


def _reading(frame: pd.DataFrame, features: pd.DataFrame) -> str:
    probes = frame[(frame["name"] == F1) & (frame["estimator"] != BIGRAM)]
    beyond = frame[frame["name"] == BEYOND]
    known, more = probes[probes["q"] <= 0.05], beyond[beyond["q"] <= 0.05]
    experts = len(probes[["router", "expert"]].drop_duplicates())
    if known.empty:
        return f"No feature tells that an expert runs, of {experts} experts asked about (least p {probes['p'].min():.2g})."
    top = known.loc[known["value"].idxmax()]
    mine = features[(features["router"] == top["router"]) & (features["expert"] == top["expert"])]
    span = "" if pd.isna(top["ci_low"]) else f" [{top['ci_low']:.2f}, {top['ci_high']:.2f}]"
    told, beyond_it = (len(rows[["router", "expert"]].drop_duplicates()) for rows in (known, more))
    return (
        f"Features tell of {told} of {experts} experts that they run, best of expert {top['expert']} of layer {top['layer']} "
        f"({top['estimator']}: F1 {top['value']:.2f}{span}, {top['null_mean']:.2f} moved round; first feature "
        f"{mine.iloc[0]['feature']}; {top['units']} documents); beyond the bigram of {beyond_it} (q <= 0.05 over all figures "
        "here)."
    )


def charts(answer: Answer) -> dict[str, Chart]:
    """F1 by layer and expert, of each kind of guess."""
    sql, frame = answer.sql["figures"], answer.figures(F1)
    return {f"F1 by expert, {name}": heatmap(part, f"F1, {name}", sql) for name, part in frame.groupby("estimator", sort=False)}
