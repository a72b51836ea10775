"""Health of every router, forward by forward: what a training run must watch. Runs on the writing thread."""

from collections.abc import Iterable
from typing import Any

import numpy as np

Rows = dict[str, list[Any]]


def health(arrays: dict[str, np.ndarray], tokens: np.ndarray, experts: list[int]) -> list[dict[str, float]]:
    """Measures of each router in stacked (R, T, k) arrays over the tokens that are recorded; one dict per router.

    load_entropy: entropy of the load over its maximum. max_violation: (largest load - mean) / mean (Wang et al., arXiv
    2408.15664). dead: experts without a token. dropped_share: chosen but not run. routing_entropy: mean, nats. z_loss: mean
    squared log-sum-exp (ST-MoE, arXiv 2202.08906, eq. 5). balance_switch: E Σ f P with f a share of all assignments, 1 when
    even (Switch, arXiv 2101.03961, eq. 4-6); balance_transformers: the same with f summed over the k choices, k when even.
    """
    return [_one({name: a[r] for name, a in arrays.items()}, tokens[r] >= 0, count) for r, count in enumerate(experts)]


def _one(arrays: dict[str, np.ndarray], real: np.ndarray, count: int) -> dict[str, float]:
    chosen = arrays["experts"][real]
    dropped = arrays["dropped"][real] if "dropped" in arrays else np.zeros(chosen.shape, bool)
    load = np.bincount(chosen[(chosen >= 0) & (chosen < count) & ~dropped], minlength=count).astype(float)
    share = load / max(load.sum(), 1.0)
    found = {
        "load_entropy": float(-(share[share > 0] * np.log(share[share > 0])).sum() / np.log(max(count, 2))),
        "max_violation": float(share.max() * count - 1),
        "dead": float((load == 0).sum()),
        "dropped_share": float(dropped.mean()) if dropped.size else 0.0,
    }
    if "entropy" in arrays:
        found["routing_entropy"] = float(arrays["entropy"][real].mean())
    if "log_sum_exp" in arrays:
        found["z_loss"] = float((arrays["log_sum_exp"][real].astype(float) ** 2).mean())
    if "mean_probability" in arrays and chosen.size:
        wanted = np.bincount(chosen[(chosen >= 0) & (chosen < count)], minlength=count) / chosen.size
        found["balance_switch"] = float(count * (wanted * arrays["mean_probability"][:count]).sum())
        found["balance_transformers"] = found["balance_switch"] * chosen.shape[-1]
    return found


def measure_rows(found: Iterable[tuple[Any, int, dict[str, float]]], step: int, n: int) -> Rows:
    """Rows of `measures` from (site, router number, measures) at a training step."""
    rows: Rows = {name: [] for name in ("router", "layer", "name", "value", "subset", "n")}
    for site, router, values in found:
        for name, value in values.items():
            for column, cell in zip(rows, (router, site.layer, name, value, f"step {step}", n)):
                rows[column].append(cell)
    return rows
