"""`ablate`: from a traced run and a choice of experts to effects in its store."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ...contracts import find
from ...errors import InputError
from ...inputs import Dataset
from ...models.loading import Loaded
from ...ranks import check_alone
from ...routers.engine_block import check_here
from ...store import open_store
from ...store.remote.addresses import local
from ..data import Batches, groups
from .effects import effects
from .plan import jobs, wanted
from .rows import baseline, loads, save, table
from .sweep import MODES, Sweep, finished

Report = Callable[[dict[str, Any]], None]


def ablate(
    loaded: Loaded,
    store: str | Path,
    experts: Mapping[tuple[str | None, int], list[int] | None] | None = None,
    *,
    mode: str = "route-around",
    by: Sequence[str] = (),
    sweep: bool = False,
    run: int | None = None,
    data: Dataset | None = None,
    at: str = "target",
    controls: int = 3,
    seed: int = 0,
    share: bool = True,
    classes: Sequence[str] = (),
    report: Report | None = None,
) -> pd.DataFrame:
    """Ablate experts of `loaded` on the inputs of a stored run; the effects go into the store and come back as a frame.

    `experts`: {(stack or None, layer): experts or None for all}, as `parse` reads it; with `sweep` each alone, else as one set.
    `by`: kinds of labels, `position` or `token`. `controls`: random sets per target beside the one of nearest load. `data`:
    the images of the run, for image models. A sweep that was cut off goes on where it stopped.
    InputError and StoreError say in one sentence what is wrong; then nothing is changed.
    """
    store = local(store)
    _check(mode, at)
    check_alone(loaded.model, "ablate it")
    check_here(loaded.model, "ablate it")
    sites = find(loaded.model)
    with open_store(store) as opened:
        number = baseline(opened, loaded.model, run)
        batches = Batches(opened, number, loaded, data)
        batches.classes = list(classes)
        plan = jobs(wanted(sites, experts, sweep), loads(opened, number, sites), controls, seed)
        kinds = {kind: groups(opened, batches, kind) for kind in dict.fromkeys(["all", *by])}
        sets = list(dict.fromkeys(s for job in plan for s in job.sets))
        task = Sweep(loaded, sites, batches, sets, mode, kinds, at, share)
        uid = opened.rows("select uid from runs where run = ?", [number])[0][0]
        key = task.key(uid)
        folder = store.with_name(store.name + ".ablations") / key
        sums = task.run(folder, report)
        found = effects(sums, sets, plan, {kind: names for kind, (_, names) in kinds.items()})
        rows = table(opened, task, plan, found, sums, key)
    save(store, rows)
    finished(folder)
    return rows


def _check(mode: str, at: str) -> None:
    if mode not in MODES:
        raise InputError(f"there is no mode {mode!r}: choose one of {', '.join(MODES)}")
    if at not in ("target", "input"):
        raise InputError(f"a loss is counted at the target or at the input, not at {at!r}")
