"""Health of every router, step by step: what a training run must watch. Runs on the writing thread.

What the forwards of a step did is kept as sums, so that micro-batches add up to the step they are parts of.
"""

from typing import Any

import numpy as np

from ...store import RunWriter
from ..training_steps import Ended

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]
Measures = dict[str, float]


class Sums:
    """What one router with so many experts did so far: counts, and (sum, tokens) of what is averaged."""

    def __init__(self, experts: int) -> None:
        self.load, self.wanted = np.zeros(experts), np.zeros(experts)
        self.tokens = self.chosen = self.dropped = self.k = 0
        self.means: dict[str, tuple[Any, int]] = {}

    def add(self, arrays: Arrays, real: Array) -> "Sums":
        """A forward's (T, k) experts, and what else is known of its tokens, of which `real` (T,) are recorded."""
        chosen = arrays["experts"][real]
        dropped = arrays["dropped"][real] if "dropped" in arrays else np.zeros(chosen.shape, bool)
        self.load += _counts(chosen[~dropped], len(self.load))
        self.wanted += _counts(chosen, len(self.load))
        self.tokens, self.chosen, self.dropped = (
            self.tokens + len(chosen),
            self.chosen + chosen.size,
            self.dropped + dropped.sum(),
        )
        if chosen.size:
            self._mean("k", np.float64(chosen.size), len(chosen))
        for name, power in (("entropy", 1), ("log_sum_exp", 2)):
            if name in arrays:
                self._mean(name, (arrays[name][real].astype(float) ** power).sum(), len(chosen))
        if "mean_probability" in arrays:
            probability = arrays["mean_probability"][: len(self.load)].astype(float)
            self._mean("probability", probability * len(chosen) if len(chosen) else 0.0, len(chosen))
        return self

    def _mean(self, name: str, total: Any, count: int) -> None:
        before = self.means.get(name, (0.0, 0))
        self.means[name] = before[0] + total, before[1] + count

    def measures(self) -> Measures:
        """load_entropy: entropy of the load over its maximum. max_violation: (largest load - mean) / mean (Wang et al., arXiv
        2408.15664). dead: experts without a token. dropped_share: chosen but not run. routing_entropy: mean, nats. z_loss: mean
        squared log-sum-exp (ST-MoE, arXiv 2202.08906, eq. 5). balance_switch: E Σ f P with f a share of all assignments, 1 when
        even (Switch, arXiv 2101.03961, eq. 4-6); balance_transformers: the same with f summed over the k choices, k when even.
        """
        count, share = len(self.load), self.load / max(self.load.sum(), 1.0)
        found = {
            "load_entropy": float(-(share[share > 0] * np.log(share[share > 0])).sum() / np.log(max(count, 2))),
            "max_violation": float(share.max() * count - 1),
            "dead": float((self.load == 0).sum()),
            "dropped_share": float(self.dropped / self.chosen) if self.chosen else 0.0,
        }
        mean = {name: total / n for name, (total, n) in self.means.items() if n}
        if "entropy" in mean:
            found["routing_entropy"] = float(mean["entropy"])
        if "log_sum_exp" in mean:
            found["z_loss"] = float(mean["log_sum_exp"])
        if "probability" in mean and self.chosen:
            found["balance_switch"] = float(count * (self.wanted / self.chosen * mean["probability"]).sum())
            found["balance_transformers"] = found["balance_switch"] * float(mean["k"])
        return found


def _counts(chosen: Array, experts: int) -> Array:
    return np.bincount(chosen[(chosen >= 0) & (chosen < experts)].reshape(-1), minlength=experts)


def health(arrays: Arrays, tokens: Array, experts: list[int]) -> list[Measures]:
    """Measures of each router in stacked (R, T, k) arrays over the tokens that are recorded; one dict per router."""
    return [Sums(n).add({name: a[r] for name, a in arrays.items()}, tokens[r] >= 0).measures() for r, n in enumerate(experts)]


class Health:
    """Sums of the steps that are open, by part and router, until they end and become rows of `measures`."""

    def __init__(self, writer: RunWriter) -> None:
        self.writer = writer
        self.last: dict[str, tuple[int, dict[str, Measures]]] = {}  # part: the last step of it, measures by router path
        self._sums: dict[str, dict[int, tuple[Any, Sums]]] = {}

    def add(self, part: str, arrays: Arrays, sites: list[Any], tokens: Array) -> None:
        """One forward's decisions of some routers: (R, T, k) arrays and (R, T) token keys, -1 for padding."""
        sums = self._sums.setdefault(part, {})
        for r, site in enumerate(sites):
            _, own = sums.setdefault(site.key, (site, Sums(site.n_experts)))
            own.add({name: a[r] for name, a in arrays.items()}, tokens[r] >= 0)

    def latest(self, part: str | None = None) -> tuple[int, dict[str, Measures]]:
        """(step, measures by router path) of what ended last, of all or of a part; (0, {}) if nothing did."""
        part = part or next(iter(reversed(list(self.last))), "")
        return self.last.get(part, (0, {}))

    def end(self, ended: Ended) -> None:
        """Write the measures of what has ended."""
        sums = self._sums.pop(ended.part, {})
        if not sums or not ended.whole:
            return
        found = [(site, router, own.measures(), own.tokens) for router, (site, own) in sorted(sums.items())]
        self.last.pop(ended.part, None)
        self.last[ended.part] = ended.step, {site.path: values for site, _, values, _ in found}
        rows: dict[str, list[Any]] = {name: [] for name in ("router", "layer", "name", "value", "n")}
        for site, router, values, tokens in found:
            for name, value in values.items():
                for column, cell in zip(rows, (router, site.layer, name, value, tokens)):
                    rows[column].append(cell)
        self.writer.add("measures", {**rows, "subset": f"{ended.name} step {ended.step}".strip()})
