"""Steering by experts: what does forcing or barring the experts of one set of texts do to each set's loss?

After SteerMoE (arXiv 2509.09660): experts are ranked by the risk difference between two sets of texts, and those of largest
absolute difference are activated or deactivated. Sets are two values of the sequence label `by`. The `experts` of largest
difference, and of least, are chosen on one half of the documents (drawn within each set), and their effect is measured on the
other. Deactivated: the expert cannot be chosen, and the next best runs (route-around). Activated: it runs for every token, in
the place of the least-weighted one, whose weight it takes; the authors raise its score to the top, which also gives it weight.

* change of loss: nats per token, of each set. Null: the signs of the documents' changes flipped (two-sided).
* change of the first set less that of the second: does it act on the one set only? Documents dealt anew among the sets,
  differences over their errors.
Both are given of other experts, too, of the same routers and of nearest load ("control"): what changing any would do.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from ... import statistics as st
from ...analyses._shared.answer import figures, gather
from ...analyses._shared.scope import scope
from ...analyses.steering.contrast import Contrast
from ...contracts import Site
from ...errors import InputError
from ...words import Count, Some
from ..ablation.plan import Experts, jobs
from ..ablation.rows import loads
from ..ablation.scores import outcome
from ..data import Batch, Batches
from ..edits.base import Edit, intervene
from ..edits.choice import RouteAround
from ..edits.executed import Force
from ..edits.selection import choices, top_k
from ._setting import Found, Setting

ANALYSIS = "steering"
SOURCE, FLIPS = "SteerMoE 2509.09660", 4999
CHANGE = "change of loss (nats per token)"
FLIPPED = "signs of the documents' changes flipped"
DEALT = "documents dealt anew among the two sets, differences over their errors"
Sums = np.ndarray


def run(
    here: Setting,
    by: str | None = None,
    first: str | None = None,
    second: str | None = None,
    experts: Count = 2,
    seed: Some = 0,
) -> Found:
    """`first` and `second`: values of `by` (default: the two of most documents); `experts` per side."""
    kind = scope(here.store, here.run).kind(by)
    batches, sites = here.batches(), here.routers(None)
    sets = _sets(here, batches, kind, first, second)
    learnt = _half(sets, seed)
    ranked = _ranked(here, batches, sites, sets, learnt)
    share = loads(here.store, here.run, sites)
    jobs_ = {name: jobs([which], share, 0, seed)[0] for name, which in _chosen(ranked, sites, experts).items() if which}
    conditions: dict[tuple[str, str, str], list[Edit]] = {}
    for side, job in jobs_.items():
        for what, make in (("deactivated", _bar), ("activated", _force)):
            for which, target in (("own", job.target), ("control", job.load)):
                if target is not None:
                    conditions[side, what, which] = make(target)
    sums = _run(here, batches, sites, conditions)
    names = list(sets)
    document = np.array(
        [0 if d in sets[names[0]] else 1 if d in sets[names[1]] else -1 for d in range(len(batches.document_of[1]))]
    )
    document[list(learnt)] = -1
    frames, more = [], []
    for (side, what, which), own in sums.items():
        changed = jobs_[side].target if which == "own" else jobs_[side].load
        made = _figures(kind, names, f"{what}: {'experts' if which == 'own' else 'control'} {side}", own, document)
        frames += made
        more += [{"experts": {path: list(e) for path, e in changed or ()}}] * len(made)
    return Found(gather(frames, family=()), more)


def _sets(here: Setting, batches: Batches, kind: str, first: str | None, second: str | None) -> dict[str, set[int]]:
    """{label: numbers of its documents}, of two labels. InputError where one has fewer than four documents."""
    rows = here.store.rows(
        "select sequence, label from sequence_labels join sequences using (sequence) where run = ? and kind = ?",
        [here.run, kind],
    )
    codes, _ = batches.sequences["document"].factorize()
    number = dict(zip(batches.sequences.index, codes))
    found: dict[str, set[int]] = {}
    for sequence, label in rows:
        found.setdefault(str(label), set()).add(int(number[sequence]))
    most = sorted(found, key=lambda name: (-len(found[name]), name))
    names = [first or next(n for n in most if n != second)]
    names.append(second or next(n for n in most if n != names[0]))
    for name in names:
        if len(found.get(name, ())) < 4 or names[0] == names[1]:
            raise InputError(
                f"steering takes two sets of four documents or more, half to choose experts on; {kind} {name!r} has "
                f"{len(found.get(name, ()))} (there are: {', '.join(f'{n} ({len(found[n])})' for n in most)})"
            )
    return {name: found[name] for name in names}


def _half(sets: dict[str, set[int]], seed: int) -> set[int]:
    """Half of the documents of each set: those on which experts are chosen."""
    rng = np.random.default_rng(seed)
    return {int(d) for mine in sets.values() for d in rng.permutation(sorted(mine))[: len(mine) // 2]}


def _ranked(
    here: Setting, batches: Batches, sites: Sequence[Site], sets: dict[str, set[int]], learnt: set[int]
) -> pd.DataFrame:
    """Experts with the risk difference on the half that is learnt from, the largest first."""
    codes, _ = batches.sequences["document"].factorize()
    group = {
        int(s): n for s, c in zip(batches.sequences.index, codes) for n, mine in enumerate(sets.values()) if c in mine & learnt
    }
    frame = pd.DataFrame({"sequence": list(group), "side": list(group.values())})
    con = here.store.con
    con.register("steered", frame)
    try:
        ran = con.execute(
            "select router, expert, side, count(*) as n from assignments join tokens using (token) join steered using "
            "(sequence) where assignments.run = ? and not dropped group by all", [here.run]
        ).df()  # fmt: skip
        looked = dict(con.execute(
            "select side, count(*) from tokens join steered using (sequence) where run = ? group by side", [here.run]
        ).fetchall())  # fmt: skip
    finally:
        con.unregister("steered")
    path = {here.keys[s.path][0]: s.path for s in sites}
    table = ran.pivot_table(index=["router", "expert"], columns="side", values="n", fill_value=0).reindex(
        columns=[0, 1], fill_value=0
    )
    risk = (table[0] / looked[0] - table[1] / looked[1]).rename("risk").reset_index()
    risk["path"] = risk["router"].map(path)
    limit = {s.path: s.n_experts for s in sites}
    risk = risk[risk["path"].notna()]
    return risk[risk["expert"] < risk["path"].map(limit)].sort_values("risk", ascending=False, ignore_index=True)


def _chosen(ranked: pd.DataFrame, sites: Sequence[Site], count: int) -> dict[str, Experts]:
    """The experts of the first set (largest positive difference) and of the second; no more than k of a router, and not all."""
    most = {s.path: min(top_k(s) or 1, choices(s) - (top_k(s) or 1)) for s in sites}
    found = {}
    for side, rows in (("of the first", ranked[ranked["risk"] > 0]), ("of the second", ranked[ranked["risk"] < 0][::-1])):
        which: dict[str, list[int]] = {}
        for row in rows.itertuples():
            mine = which.get(row.path, [])
            if sum(map(len, which.values())) < count and len(mine) < most[row.path]:
                which[row.path] = [*mine, int(row.expert)]
        found[side] = tuple((path, tuple(sorted(e))) for path, e in sorted(which.items()))
    return found


def _bar(experts: Experts) -> list[Edit]:
    return [RouteAround(router=path, experts=which) for path, which in experts]


def _force(experts: Experts) -> list[Edit]:
    return [Force(router=path, experts=which) for path, which in experts]


def _run(
    here: Setting, batches: Batches, sites: Sequence[Site], conditions: dict[tuple[str, str, str], list[Edit]]
) -> dict[tuple[str, str, str], Sums]:
    """(documents, 2) of every condition: sums of the change of loss, and tokens."""
    documents = len(batches.document_of[1])
    sums = {name: np.zeros((documents, 2)) for name in conditions}
    for batch in here.each(batches):
        base = _loss(here, batch)
        where = batches.document_of[0][batch.scored[batch.scored >= 0] - batches.first_token]
        for name, edits in conditions.items():
            with intervene(here.model, *edits, sites=sites):
                change = _loss(here, batch) - base
            sums[name] += np.stack([np.bincount(where, change, documents), np.bincount(where, minlength=documents)], 1)
    return sums


def _loss(here: Setting, batch: Batch) -> np.ndarray:
    with torch.no_grad():
        made = outcome(here.model(**here.inputs(batch)), batch, {})
    return -made.target.double().cpu().numpy()


def _figures(kind: str, names: list[str], estimator: str, sums: Sums, document: np.ndarray) -> list[pd.DataFrame]:
    """Change of each set, and of the first less the second; `document` (documents,): 0, 1, or −1 for neither."""
    mine = (document >= 0) & (sums[:, 1] > 0)
    (change, n), home = sums[mine].T, document[mine]
    weights = st.bootstrap_weights(len(n), strata=home)
    rates = [(weights * (home == g)) @ change / np.maximum((weights * (home == g)) @ n, 1) for g in (0, 1)]
    shared: dict[str, Any] = {"estimator": estimator, "source": SOURCE, "chance": 0.0, "side": "both"}
    frames = []
    for g, name in enumerate(names):
        of = home == g
        signs = np.random.default_rng(0).choice([-1.0, 1.0], (FLIPS, int(of.sum())))
        frames.append(figures({"subset": f"{kind}={name}"}, CHANGE, change[of].sum() / n[of].sum(), draws=rates[g],
                              null=signs @ change[of] / n[of].sum(), null_name=FLIPPED, n=int(n[of].sum()),
                              units=int(of.sum()), **shared))  # fmt: skip
    contrast = Contrast(change[:, None], n, home == 0, counts=False)
    value, null, p = contrast.tested()
    subset, fewest = f"{kind}={names[0]} less {names[1]}", int(np.bincount(home).min())
    row = figures({"subset": subset}, CHANGE, value, draws=rates[0] - rates[1], null=null, null_name=DEALT, n=int(n.sum()),
                  units=fewest, **shared)  # fmt: skip
    return [*frames, row.assign(p=np.where(change.any(), p, 1.0), units=len(n))]
