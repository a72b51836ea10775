"""Importance against effect: what a trace predicts of an expert beside what its ablation shows; what pruning by each costs."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from ...contracts import find
from ...errors import InputError
from ...inputs import Dataset
from ...models.loading import Loaded
from ...store import Store, open_store
from ...store.remote.addresses import local
from ..data import Batches, groups
from .effects import effects
from .plan import Experts, Job
from .rows import baseline
from .sweep import Sweep, finished

DRAWS = 999
MEASURED = ("ean", "weighted_ean", "reap")
Scores = Mapping[str, np.ndarray]


def predicted(store: Store, run: int, more: Mapping[str, Scores] | None = None) -> pd.DataFrame:
    """One row per expert of a run: router, name, layer, expert, frequency (share of assignments), gate_mass (of weights).

    REAP and EAN are added where the run measured them; `more`, {name: {router path: (E,)}}, adds others (see `norms`).
    """
    frame = store.sql(
        "select l.router, r.name, l.stack, l.layer, l.expert, l.share as frequency, "
        "l.weight / nullif(sum(l.weight) over (partition by l.router), 0) as gate_mass "
        "from expert_load l join routers r using (router) where l.run = ? order by l.router, l.expert",
        [run],
    ).df()
    for name in MEASURED:
        found = store.sql("select router, expert, value from measures where run = ? and name = ?", [run, name]).df()
        if len(found):
            frame = frame.merge(found.rename(columns={"value": name}), "left", ["router", "expert"])
    for name, scores in (more or {}).items():
        places = zip(frame["name"], frame["expert"])
        frame[name] = [float(scores[path][expert]) if path in scores else np.nan for path, expert in places]
    return frame


def with_effects(store: Store, frame: pd.DataFrame, mode: str) -> pd.DataFrame:
    """`frame` with effect, ci_low, ci_high, q of each expert's own ablation. InputError where there is no such sweep."""
    found = store.sql(
        "select router, expert, delta_nll as effect, ci_low, ci_high, q from ablation_effects where control = 'none' "
        "and group_kind = 'all' and expert is not null and mode = ? and counted_at = 'target'",
        [mode],
    ).df()
    merged = frame.merge(found, "inner", ["router", "expert"])
    if merged.empty:
        raise InputError(
            f"{store.path} has no sweep of mode {mode!r}: moescope ablate MODEL --store STORE --sweep --mode {mode}"
        )
    return merged.drop_duplicates(["router", "expert"])


def agreement(frame: pd.DataFrame, scores: Sequence[str], seed: int = 0) -> pd.DataFrame:
    """Spearman's rank correlation of each score with the effect, within routers and averaged over them.

    Interval: effects drawn from normal distributions of their bootstrap width (their covariance is not kept); none where an
    effect has none, for want of documents. p: expert numbers
    permuted within routers, two-sided. Rows: score, correlation, ci_low, ci_high, p, experts.
    """
    rng = np.random.default_rng(seed)
    width = ((frame["ci_high"] - frame["ci_low"]) / (2 * stats.norm.isf(0.025))).to_numpy()
    known = bool(np.isfinite(width).all())
    draws = frame["effect"].to_numpy() + width * rng.standard_normal((DRAWS, len(frame)))
    parts = [np.flatnonzero(frame["router"] == r) for r in frame["router"].unique()]
    rows = []
    for name in scores:
        score = frame[name].to_numpy(float)
        value = _mean_rank(score, frame["effect"].to_numpy()[None], parts)[0]
        spread = _mean_rank(score, draws, parts)
        null = np.array(
            [_mean_rank(_shuffled(score, parts, rng), frame["effect"].to_numpy()[None], parts)[0] for _ in range(DRAWS)]
        )
        low, high = np.nanquantile(spread, [0.025, 0.975]) if known else (np.nan, np.nan)
        p = (1 + np.sum(np.abs(null) >= abs(value) - 1e-12)) / (DRAWS + 1)
        rows.append({"score": name, "correlation": value, "ci_low": low, "ci_high": high, "p": p, "experts": len(frame)})
    return pd.DataFrame(rows)


def pruning(
    loaded: Loaded, store: str | Path, scores: Mapping[str, Scores], keep: Sequence[int], *, run: int | None = None,
    data: Dataset | None = None, report: Callable[[dict[str, Any]], None] | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Keep the best n experts of every router by each score, route around the rest: change of the loss with its interval.

    `scores`: {name: {router path: (E,)}}. Rows: score, keep, delta_nll, ci_low, ci_high, kl, delta_correct, baseline is 0.
    """
    store, sites = local(store), find(loaded.model)
    with open_store(store) as opened:
        number = baseline(opened, loaded.model, run)
        batches = Batches(opened, number, loaded, data)
        sets = {(name, n): _rest(of, n) for name, of in scores.items() for n in keep}
        different = [s for s in dict.fromkeys(sets.values()) if s]
        sweep = Sweep(loaded, sites, batches, different, "route-around", {"all": groups(opened, batches, "all")}, share=False)
        folder = store.with_name(store.name + ".ablations") / sweep.key("pruning", number)
        sums = sweep.run(folder, report)
    found = effects(sums, different, [Job(s, None, ()) for s in different], {"all": ["all"]})
    finished(folder)
    by_set = {different[row["job"]]: row for row in found.to_dict("records")}
    names = ("delta_nll", "ci_low", "ci_high", "kl", "delta_correct", "n")
    return pd.DataFrame([{"score": k[0], "keep": k[1], **{n: by_set[s][n] for n in names}} for k, s in sets.items() if s])


def _rest(scores: Scores, keep: int) -> Experts:
    rest = {path: np.argsort(-values, kind="stable")[keep:] for path, values in scores.items()}
    return tuple((path, tuple(sorted(int(e) for e in which))) for path, which in sorted(rest.items()) if len(which))


def _shuffled(score: np.ndarray, parts: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    new = score.copy()
    for part in parts:
        new[part] = rng.permutation(score[part])
    return new


def _mean_rank(score: np.ndarray, effects: np.ndarray, parts: Sequence[np.ndarray]) -> np.ndarray:
    """(draws,) mean over routers of Spearman's correlation."""
    found = []
    for part in parts:
        a, b = stats.rankdata(score[part]), stats.rankdata(effects[:, part], axis=1)
        a, b = a - a.mean(), b - b.mean(1, keepdims=True)
        norm = np.sqrt((a**2).sum() * (b**2).sum(1))
        found.append(np.divide(b @ a, norm, out=np.full(len(b), np.nan), where=norm > 0))
    return np.nanmean(found, axis=0)
