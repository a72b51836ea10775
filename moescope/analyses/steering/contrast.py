"""How much oftener does each expert run for one set of texts than for another, and is that more than documents vary by?

Risk difference of expert e (SteerMoE, arXiv 2509.09660): share of the tokens of the first set for which it ran, less that of
the second. Null: documents dealt anew among the two sets; what is compared is the difference over its own standard error by
document (Neuhaus 1993; Janssen 1997), so that a set of few, or of short, documents is as noisy as it is. p counts the null of
all experts of the router, which are alike once divided by their errors.
"""

from dataclasses import dataclass

import numpy as np

from ...statistics import Array

DEALS = 999


@dataclass(frozen=True)
class Contrast:
    """`ran` (documents, experts) and `tokens` (documents,) of both sets; `first` (documents,) bool.

    `counts`: `ran` counts tokens; False where it is a sum of anything else, such as changes of a loss.
    """

    ran: Array
    tokens: Array
    first: Array
    counts: bool = True

    def difference(self, first: Array) -> tuple[Array, Array]:
        """(..., experts) risk differences and their squared errors, for sets `first` (..., documents) as floats.

        The error of a set is that of independent tokens at the rate of both sets, or more: none of a few short documents may
        have run an expert, and they are no surer of its rate for that.
        """
        value, error = 0.0, 0.0
        pooled = np.minimum(self.ran.sum(0) / max(self.tokens.sum(), 1), 1)
        for sign, member in ((1, first), (-1, 1 - first)):
            n, count = member @ self.tokens, member.sum(-1)
            rate = (member @ self.ran) / np.maximum(n, 1)[..., None]
            off = member @ self.ran**2 - 2 * rate * (member @ (self.ran * self.tokens[:, None]))
            off = off + rate**2 * (member @ self.tokens**2)[..., None]
            value = value + sign * rate
            seen = np.maximum(off, 0) * (count / np.maximum(count - 1, 1) / np.maximum(n, 1) ** 2)[..., None]
            error = error + (np.maximum(seen, pooled * (1 - pooled) / np.maximum(n, 1)[..., None]) if self.counts else seen)
        return np.asarray(value), np.asarray(error)

    def tested(self, seed: int = 0) -> tuple[Array, Array, Array]:
        """(experts,) differences, (DEALS, experts) under the null, (experts,) p."""
        rng = np.random.default_rng(seed)
        dealt = rng.permuted(np.tile(self.first.astype(float), (DEALS, 1)), axis=1)
        value, error = self.difference(self.first.astype(float))
        null, null_error = self.difference(dealt)
        seen, under = (np.abs(v) / np.sqrt(np.maximum(e, 1e-18)) for v, e in ((value, error), (null, null_error)))
        alive = (self.ran != 0).any(0)
        under = np.sort(under[:, alive].ravel())
        above = len(under) - np.searchsorted(under, seen - 1e-9, "left")
        return value, null, np.where(alive, (1 + above) / (1 + len(under)), np.nan)
