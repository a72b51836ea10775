"""What an expert is for: does a group miss it more than other groups do, beyond what the group misses of other experts?

The interaction of expert and group, over all experts of a router that were each taken away alone. For document u, group g and
expert e let a_ueg be the change of the summed loss without e less the mean change without each other expert of the router. The
figure is the rate Σ a / Σ tokens of the group less that of all other groups: what is hard for everyone, or needed
everywhere, drops
out. Null: groups dealt anew to what documents did at one group (`statistics.dealing`), studentized, as documents and groups are
not equally precise; p by count among the permuted values of all experts and routers. Intervals: documents.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from ... import statistics as st
from ...statistics.dealing import studentized
from .plan import Experts, Job

DRAWS = 499
CONTROL = "router"  # in the column `control` of effects
Floats = np.ndarray[Any, Any]


def interactions(
    cube: Floats, count: Floats, sets: dict[Experts, int], jobs: Sequence[Job], names: list[str]
) -> list[dict[str, Any]]:
    """Columns over groups, one entry a job, of sums (set, document, group) and tokens (document, group).

    Nothing for sets of several experts, routers of which one expert alone was taken away, or a single group.
    """
    by_router: dict[str, list[int]] = defaultdict(list)
    for number, job in enumerate(jobs):
        if len(job.target) == 1 and len(job.target[0][1]) == 1:
            by_router[job.target[0][0]].append(number)
    several = {path: own for path, own in by_router.items() if len(own) > 1}
    if (count.sum(0) > 0).sum() < 2 or not several:
        return []
    pools, made = [st.Pool() for _ in names], []
    for own in several.values():
        change = np.stack([cube[sets[jobs[number].target]] for number in own], axis=-1)
        beside = (change.sum(-1, keepdims=True) - change) / (len(own) - 1)
        made.append((own, _columns(change - beside, beside, count, pools)))
    return [row for own, (columns, t) in made for row in _rows(own, columns, t, pools)]


def _columns(excess: Floats, beside: Floats, count: Floats, pools: list[st.Pool]) -> tuple[dict[str, Floats], Floats]:
    """Figures (groups, experts) of one router, and what is tested; its permuted values go into the pools, one a group."""
    observed, null = studentized(excess, DRAWS, totals=count, binomial=np.zeros(excess.shape[-1]))
    for pool, values in zip(pools, np.moveaxis(null.against_rest(), 1, 0)):
        pool.add(values)
    n = np.broadcast_to(count[:, :, None], excess.shape)
    rest = [x.sum(1, keepdims=True) - x for x in (excess, n)]
    units = np.broadcast_to((count > 0).sum(0)[:, None], excess.shape[1:])
    value, low, high = st.over_documents(_difference, np.stack([excess, n, *rest], axis=-1), units=units)
    with np.errstate(invalid="ignore", divide="ignore"):
        others = beside.sum(0) / count.sum(0)[:, None]
    return {"delta_nll": value, "ci_low": low, "ci_high": high, "control_delta_nll": others}, observed.against_rest()


def _difference(sums: Floats) -> Floats:
    return np.asarray(sums[..., 0] / sums[..., 1] - sums[..., 2] / sums[..., 3])


def _rows(own: list[int], columns: dict[str, Floats], t: Floats, pools: list[st.Pool]) -> list[dict[str, Any]]:
    p = np.stack([pool.p(values) for pool, values in zip(pools, t)])
    return [{"job": job} | {name: x[:, i] for name, x in (columns | {"p": p}).items()} for i, job in enumerate(own)]
