"""From sums by document to effects: means over tokens, document bootstrap, sign-flip p, false discovery rate, controls."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ... import statistics as st
from .interaction import CONTROL, interactions
from .plan import Experts, Job
from .scores import NAMES

FLIPS = 1999
Floats = np.ndarray[Any, Any]


def effects(sums: pd.DataFrame, sets: Sequence[Experts], jobs: Sequence[Job], names: Mapping[str, list[str]]) -> pd.DataFrame:
    """One row per job, control (none, load, random, router), group kind and group.

    delta_nll: nats per token, over the tokens of the group: ablated minus baseline; under a control minus the control's own
    change (the mean of the random sets). Interval: over documents (`over_documents`). p: the signs of the documents'
    sums flipped, two-sided, which needs them symmetric about 0 under the null. `router`: see `interaction.py`. q:
    Benjamini-Hochberg over a control and kind.
    """
    index = {experts: n for n, experts in enumerate(sets)}
    frames = [
        _kind(part, index, jobs, str(kind), names[str(kind)])
        for kind, part in sums[sums["set"] >= 0].groupby("kind", sort=False)
    ]
    found = pd.concat(frames, ignore_index=True)
    found["q"] = found.groupby(["control", "group_kind"])["p"].transform(lambda p: st.fdr(p.to_numpy(float)))
    return found


def _kind(part: pd.DataFrame, index: Mapping[Experts, int], jobs: Sequence[Job], kind: str, names: list[str]) -> pd.DataFrame:
    documents = np.unique(part["document"])
    cube, count = _cube(part, documents, len(index), len(names))
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (FLIPS, len(documents)))
    rows = []
    for number, job in enumerate(jobs):
        own = cube[:, index[job.target]]
        for control, sets in (("none", []), ("load", [job.load] if job.load else []), ("random", list(job.random))):
            if control != "none" and not sets:
                continue
            other = np.mean([cube[:, index[s]] for s in sets], axis=0) if sets else np.zeros_like(own)
            table = _table(own, other, count, signs)
            rows.append(pd.DataFrame(table).assign(job=number, control=control, group_kind=kind, group=names))
    for row in interactions(cube[0], count, dict(index), jobs, names) if kind != "all" else ():
        plain = _table(cube[:, index[jobs[row["job"]].target]], np.zeros_like(cube[:, 0]), count, signs)
        rows.append(pd.DataFrame(plain | row).assign(control=CONTROL, group_kind=kind, group=names))
    found = pd.concat(rows, ignore_index=True)
    return found[found["n"] > 0]


def _cube(part: pd.DataFrame, documents: Floats, sets: int, groups: int) -> tuple[Floats, Floats]:
    """Sums (metric, set, document, group) and tokens (document, group)."""
    cube = np.zeros((len(NAMES), sets, len(documents), groups))
    at = (part["set"].to_numpy(int), np.searchsorted(documents, part["document"]), part["group"].to_numpy(int))
    for metric, name in enumerate(NAMES):
        cube[(metric, *at)] = part[name].to_numpy(float)
    count = np.zeros((len(documents), groups))
    count[at[1:]] = part["n"].to_numpy(float)
    return cube, count


def _table(own: Floats, other: Floats, count: Floats, signs: Floats) -> dict[str, Any]:
    """Columns over groups, from sums (metric, document, group)."""
    total, units = count.sum(0), (count > 0).sum(0)
    change = own[0] - other[0]
    value = _ratio(change.sum(0), total)
    _, low, high = st.over_documents(lambda x: x[..., 0] / x[..., 1], np.stack([change, count], -1), units=units)
    null = np.abs(signs @ change) >= np.abs(change.sum(0)) - 1e-12
    p = np.where(units >= 2, (1 + null.sum(0)) / (len(signs) + 1), np.nan)
    means = {name: _ratio(own[i].sum(0), total) for i, name in enumerate(NAMES) if i}
    control = _ratio(other[0].sum(0), total)
    return {
        "n": total.astype(int), "units": units, "delta_nll": value, "ci_low": low, "ci_high": high, "p": p,
        "control_delta_nll": control, **means,
    }  # fmt: skip


def _ratio(top: Floats, bottom: Floats) -> Floats:
    return np.divide(top, bottom, out=np.zeros(np.shape(top)), where=bottom > 0)
