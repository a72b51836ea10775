"""Predictability: how much of a router's choices is known without the model, and how many experts does a batch wake?

* known of an assignment, in bits: held-out log likelihood of the experts that ran under a guess, over that under the guess from
  load alone. What guesses know (position, token id, bigram, who ran in the layer before), and how, is in
  `_shared/guesses.py`. Other documents teach, so that nothing is learned by heart, and a guess that knows nothing loses a
  little.
* known beyond the token: the same of guesses that know more, less that from token id.
* assignments guessed: share of the experts that ran that are among the k of highest score. Chance: k / E; null mean: the guess
  from load. It moves little where the experts that always run are the best guess anyhow, and has no p: documents teach each
  other, so that which expert is guessed by luck is right in many of them at once. Bits pay for such a guess and do not pay.
  Null of the bits: the signs of each document's gain (over the guess from load, or from token id) flipped, so that experts
  that run whatever comes are not called predictable.
* Jaccard with the layer before: |A ∩ B| / |A ∪ B| of the expert numbers of one token in neighbouring routers, as Megatron-LM's
  tools/moe_routing/analyze_routing_jaccard.py reports it: what it is worth to fetch the same numbers again. Numbers of
  different layers have nothing to do with each other, so that a low figure is no finding. Null: tokens shuffled within
  documents.
* share of experts active in a batch, by its size: see `active.py`.
q is over all rows of the answer.

Megatron's analyze_routing_predictability.py applies a layer's router to the hidden states of the layer before; a store holds no
hidden states, so that is asked of the live model by `moescope experiment lookahead MODEL STORE`, whose figures stand here then.
"""

from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from ... import statistics as st
from ...errors import AnalysisError
from ...statistics import Array
from ...store import Store
from .._shared.answer import Answer, Chart, few_units, figures, gather
from .._shared.arrays.decision_sample import Sample, bits, by_unit, one_hot, sample, shuffles
from .._shared.chart_forms import layers
from .._shared.experiments import kept, sql_of
from .._shared.guesses import BOTH, Contexts, by_document, guessed
from .._shared.scope import scope
from .._shared.verdicts.verdict import analyze, signed
from .active import NAME as ACTIVE
from .active import RANDOM, SHUFFLED, active

MOST = 600_000  # assignments in memory
FLIPS, SHUFFLES = 4999, 19
GUESSED, BITS, BEYOND = "assignments guessed", "known of an assignment (bits)", "known beyond the token (bits)"
FLIPPED = "signs of the documents' gains over {} flipped"
MEGATRON = "Megatron-LM tools/moe_routing/analyze_routing_jaccard.py"
LIMITS = "it does not show that the router uses what predicts it"


def run(store: Store, run: int | None = None) -> Answer:
    """Of the newest run or `run`."""
    here = scope(store, run)
    notes = list(here.notes)
    taken = sample(here, notes, MOST)
    if taken.units < 2:
        raise AnalysisError(f"run {here.run} is one document, so no other one can teach a guess; trace more documents")
    contexts, orders = Contexts.of(taken), list(shuffles(taken.unit, SHUFFLES))
    before = _before(taken)
    rows: list[pd.DataFrame] = []
    for where, experts, there, chosen in taken.routers():
        last = before.get(where["router"])
        rows += _guesses(taken, contexts, where, experts, there, chosen, last)
        rows += [] if last is None else _jaccard(taken, where, last, experts, orders)
        rows += active(taken, where, experts, there, chosen, orders)
    ahead, _ = kept(store, here.run, "lookahead")
    frame = gather([*rows, *([ahead] if len(ahead) else [])], family=())
    sql = {"figures": taken.sql, "lookahead": sql_of(here.run, "lookahead")}
    said = signed(_reading(frame), frame[frame["name"] == BITS], frame, LIMITS, analyze("structure"), "bits")
    return Answer("predictability", "Predictability", said, here.run, {"figures": frame}, sql,
                  notes + few_units(frame), charts)  # fmt: skip


def _before(taken: Sample) -> dict[int, int]:
    """{router: the router before it in its stack}."""
    found: dict[int, int] = {}
    for _, routers in taken.scope.routers.groupby("stack", sort=False):
        found |= {int(later): int(earlier) for earlier, later in pairwise(routers.index)}
    return found


def _guesses(
    taken: Sample, contexts: Contexts, where: dict[str, Any], experts: int, rows: Array, chosen: Array, last: int | None
) -> list[pd.DataFrame]:
    before = None if last is None else one_hot(taken.chosen[last][rows], int(taken.scope.routers.loc[last, "experts"]))
    found = guessed(contexts, rows, chosen, experts, before)
    sums, total = by_document(taken.unit[rows], taken.units, found, chosen)
    there = total > 0
    sums, total = {name: s[:, there] for name, s in sums.items()}, total[there]
    common: dict[str, Any] = {"source": "counted, held out by document", "n": int(total.sum()), "units": len(total)}
    even = total.sum() / len(rows) / experts
    made = []
    for name, (hit, bits_) in sums.items():
        made.append(_share(where, name, hit, sums["load"][0], total, even, common))
        if name != "load":
            made.append(_gain(where, BITS, name, bits_, total, "the guess from load", common))
        if name in ("bigram", BOTH) and "token id" in sums:
            gain = bits_ - sums["token id"][1]
            made.append(_gain(where, BEYOND, name, gain, total, "the guess from token id", common))
    return made


def _share(
    where: dict[str, Any], name: str, hit: Array, by_load: Array, total: Array, even: float, common: dict[str, Any]
) -> pd.DataFrame:
    """Share of assignments guessed, beside what load guesses."""
    weights = st.bootstrap_weights(len(total))
    said = "none: the guess that others are held against" if name == "load" else "none: the guess from load is its null mean"
    row = figures(where, GUESSED, hit.sum() / total.sum(), estimator=name, bounds=(0, 1), chance=even,
                  draws=(weights @ hit) / np.maximum(weights @ total, 1), null_name=said, **common)  # fmt: skip
    return row if name == "load" else row.assign(null_mean=by_load.sum() / total.sum())


def _gain(
    where: dict[str, Any], figure: str, name: str, gain: Array, total: Array, over: str, common: dict[str, Any]
) -> pd.DataFrame:
    weights = st.bootstrap_weights(len(total))
    return figures(where, figure, gain.sum() / total.sum(), estimator=name, chance=0.0,
                   null=_signs(len(total)) @ gain / total.sum(), null_name=FLIPPED.format(over),
                   draws=(weights @ gain) / np.maximum(weights @ total, 1), **common)  # fmt: skip


@lru_cache(maxsize=2)
def _signs(units: int) -> Array:
    """(FLIPS, documents) of ±1."""
    return np.random.default_rng(0).choice(np.array([-1, 1], dtype=np.float32), (FLIPS, units))


def _jaccard(taken: Sample, where: dict[str, Any], last: int, experts: int, orders: list[Array]) -> list[pd.DataFrame]:
    mine, other = taken.chosen[where["router"]], taken.chosen[last]
    both = (mine >= 0).any(1) & (other >= 0).any(1)
    if int(taken.scope.routers.loc[last, "experts"]) != experts or not both.any():
        return []
    a, b = bits(mine, experts), bits(other, experts)

    def mean(order: Array | None) -> Array:
        theirs = b if order is None else b[:, order]
        meet, join = (np.bitwise_count(x).sum(0).astype(float) for x in (a & theirs, a | theirs))
        return np.divide(meet, join, out=np.zeros(len(meet)), where=join > 0)

    found = mean(None)[both]
    unit, there = np.unique(taken.unit[both], return_inverse=True)
    sums, count = by_unit(there, len(unit), found), np.bincount(there)
    weights = st.bootstrap_weights(len(unit))
    null = np.array([mean(order)[both].mean() for order in orders])
    k, j = round(float((mine[both] >= 0).sum(1).mean())), round(float((other[both] >= 0).sum(1).mean()))
    return [figures(where, "Jaccard with the layer before", found.mean(), source=MEGATRON, chance=_meeting(k, j, experts),
                    draws=(weights @ sums) / np.maximum(weights @ count, 1), null=null, null_name=SHUFFLED, tail="t",
                    bounds=(0, 1), n=int(both.sum()), units=len(unit))]  # fmt: skip


def _meeting(k: int, j: int, experts: int) -> float:
    """Expected Jaccard of random sets of k and j of so many experts."""
    meet = np.arange(min(k, j) + 1)
    return float((stats.hypergeom(experts, k, j).pmf(meet) * meet / np.maximum(k + j - meet, 1)).sum())


def _reading(frame: pd.DataFrame) -> str:
    rows = frame[frame["name"] == BITS]
    known, routers = rows[rows["q"] <= 0.05], rows["router"].nunique()
    if known.empty:
        return (
            f"Nothing asked here tells a router's experts better than their load does, in any of {routers} routers (least p "
            f"{rows['p'].min():.2g} over {len(rows)} guesses; q over all figures here)."
        )
    best = known.loc[known["value"].idxmax()]
    same = frame[(frame["name"] == GUESSED) & (frame["estimator"] == best["estimator"]) & (frame["router"] == best["router"])]
    share, span = same.iloc[0], "" if pd.isna(best["ci_low"]) else f" [{best['ci_low']:.2f}, {best['ci_high']:.2f}]"
    return (
        f"From the {best['estimator']} {best['value']:.2f} bits{span} of an assignment are known beyond load in "
        f"{best['stack']} layer {best['layer']}, and {share['value']:.1%} of its experts guessed ({share['null_mean']:.1%} "
        f"from load, {share['chance']:.1%} by chance; {best['units']} documents, each guessed from others); some guess is "
        f"better than load in {known['router'].nunique()} of {routers} routers (q <= 0.05 over all figures here)."
    )


def charts(answer: Answer) -> dict[str, Chart]:
    """What each guess knows by layer; and batches by size."""
    sql = answer.sql["figures"]
    drawn = {
        "known of an assignment by layer": layers(answer.figures(BITS), "Bits known of an assignment", sql, "estimator"),
        "assignments guessed by layer": layers(answer.figures(GUESSED), "Share of assignments guessed", sql, "estimator"),
    }
    batches = answer.figures(ACTIVE, estimator=RANDOM)
    drawn["experts active by batch"] = layers(batches, "Share of experts active, tokens at random", sql, "subset")
    if len(ahead := answer.figures("load predicted from the layer before")):
        drawn["load predicted from the layer before"] = layers(ahead, "Load predicted from the layer before", sql, "estimator")
    if len(frame := answer.figures("Jaccard with the layer before")):
        drawn["Jaccard with the layer before"] = layers(frame, "Jaccard with the layer before", sql)
    return drawn
