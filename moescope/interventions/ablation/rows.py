"""Effects as rows of a store, and what of a store an ablation needs to know."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from ...contracts import Site
from ...errors import InputError
from ...models.describe import weights_sha256
from ...store import Store
from ...store.write.change import change_store
from .plan import Experts, Job, load_of
from .sweep import Sweep


def baseline(store: Store, model: nn.Module, run: int | None = None) -> int:
    """The run to ablate: the one asked for, else the last complete one of these weights that nothing was changed in.

    InputError if there is none, or if the one asked for is of other weights.
    """
    rows = store.rows(
        "select run, m.weights_sha256, status, overrides from runs join models m using (model) order by run desc",
    )
    mine = weights_sha256(model)
    if run is not None:
        found = [r for r in rows if r[0] == run]
        if not found:
            raise InputError(f"{store.path} has no run {run}: it has {', '.join(str(r[0]) for r in reversed(rows)) or 'none'}")
        if found[0][1] != mine:
            raise InputError(f"run {run} of {store.path} is of another model; name the model it was traced from")
        return run
    fitting = [r[0] for r in rows if r[1] == mine and r[2] == "complete" and not json.loads(r[3] or "{}")]
    if not fitting:
        raise InputError(
            f"{store.path} has no complete run of this model to compare with: give --data, and one is traced first"
        )
    return int(fitting[0])


def loads(store: Store, run: int, sites: Sequence[Site]) -> dict[str, np.ndarray]:
    """{router path: (E,) share of its assignments} in a run. InputError where a router was not traced."""
    rows = store.rows(
        "select r.name, l.expert, l.share from expert_load l join routers r using (router) where l.run = ?", [run]
    )
    found = {site.path: np.zeros(site.n_experts) for site in sites}
    seen = {name for name, _, _ in rows}
    for name, expert, share in rows:
        if name in found:
            found[name][expert] = share or 0.0
    if missing := [s.path for s in sites if s.path not in seen]:
        raise InputError(f"run {run} of {store.path} did not trace router {missing[0]}; trace all layers to ablate them")
    return found


def table(store: Store, sweep: Sweep, jobs: Sequence[Job], found: pd.DataFrame, sums: pd.DataFrame, key: str) -> pd.DataFrame:
    """Effects in the columns of `ablations`."""
    run = sweep.batches.run
    routers = dict(store.rows("select name, router from routers where run = ?", [run]))
    shares = loads(store, run, sweep.sites)
    by_job = pd.DataFrame([_job(job, routers, shares) for job in jobs])
    frame = found.merge(by_job, left_on="job", right_index=True)
    frame["controls"] = [json.dumps([_said(s) for s in _controls(jobs[j], c)]) for j, c in zip(frame["job"], frame["control"])]
    base = sums[sums["set"] < 0].groupby(["kind", "group"])[["nll", "n"]].sum()
    names = {kind: names for kind, (_, names) in sweep.groups.items()}
    levels = {(k, names[k][g]): nll / n for (k, g), nll, n in zip(base.index, base["nll"], base["n"])}
    frame["baseline_nll"] = [levels[key] for key in zip(frame["group_kind"], frame["group"])]
    frame = frame.assign(run=run, ablation=key, mode=sweep.mode, counted_at=sweep.at)
    return frame.drop(columns="job").astype({"router": "Int64", "expert": "Int64"})


def _job(job: Job, routers: Mapping[str, int], shares: Mapping[str, np.ndarray]) -> dict[str, Any]:
    one = len(job.target) == 1
    path, experts = job.target[0]
    single = one and len(experts) == 1
    return {
        "router": routers[path] if one else None,
        "expert": experts[0] if single else None,
        "experts": json.dumps(_said(job.target)),
        "load": load_of(job.target, shares),
    }


def _controls(job: Job, control: str) -> list[Experts]:
    if control == "load":
        return [job.load] if job.load else []
    return list(job.random) if control == "random" else []


def _said(experts: Experts) -> dict[str, list[int]]:
    return {path: list(which) for path, which in experts}


def save(path: Path, rows: pd.DataFrame) -> None:
    """Put effects into a store in place of those of the same sweep. StoreError if it cannot be written."""

    def change(con: Any) -> None:
        con.execute(
            "delete from ablations where run = ? and ablation = ?", [int(rows["run"].iloc[0]), rows["ablation"].iloc[0]]
        )
        con.register("ablation_rows", rows)
        con.execute("insert into ablations by name from ablation_rows")
        con.unregister("ablation_rows")

    change_store(path, change)
