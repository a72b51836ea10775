"""How a stored router ranks experts, read off what it did: no rule is believed that its decisions do not bear out.

A run holds what the logits become (`routers.score`) and, in `routers.extra`, the bias that selects but does not weigh
(`bias`) and in how many of how many groups a token may choose (`groups_kept`, `groups`). Tried are the largest score, score +
bias and logit + bias, each among all experts, in the groups whose best two have the largest sum (DeepSeek-V3, arXiv
2412.19437) and in those with the largest single value (DeepSeek-V2, arXiv 2405.04434).
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray
HELD = 0.9  # share of decisions that a rule has to give
_SAME = 4e-6  # values that near are equal: biases are stored to six decimals
_BEST = {"the best two": 2, "the best one": 1}


@dataclass(frozen=True, eq=False)
class Ranking:
    """A way to rank experts; without `bias` by the score alone, with `groups` = 0 among all of them."""

    score: str  # softmax | sigmoid | sqrtsoftplus | probabilities | logit
    bias: Array | None = None  # (experts,)
    on: str = "score"  # what the bias is added to: score | logit
    groups: int = 0
    kept: int = 0
    group_by: str = "the best two"

    @property
    def words(self) -> str:
        """The rule as a reader knows it."""
        by = self.score if self.on == "score" else "logit"
        bias = "" if self.bias is None else " + correction bias"
        return by + bias + (f", in the best {self.kept} of {self.groups} groups" if self.groups else "")

    def values(self, logits: Array) -> Array:
        """(decisions, experts) what is compared, from logits of that shape; -inf outside of the groups of a token."""
        values = np.asarray(raw_scores(logits, self.score) if self.on == "score" else logits, dtype=float)
        values = values if self.bias is None else values + self.bias
        return self._limited(values) if self.groups else values

    def _limited(self, values: Array) -> Array:
        grouped = values.reshape(len(values), self.groups, -1)
        strength = np.sort(grouped, axis=-1)[..., -_BEST[self.group_by] :].sum(-1)
        best = np.argsort(-strength, axis=-1, kind="stable")[:, : self.kept]
        inside = np.zeros(strength.shape, dtype=bool)
        np.put_along_axis(inside, best, True, axis=-1)
        return np.where(inside[..., None], grouped, -np.inf).reshape(values.shape)


def raw_scores(logits: Array, score: str) -> Array:
    """(..., experts) what a router makes of its logits before it normalizes anything; "logit" is the logit itself."""
    logits = np.asarray(logits, dtype=float)
    if score == "softmax":
        power = np.exp(logits - logits.max(-1, keepdims=True))
        return np.asarray(power / power.sum(-1, keepdims=True))
    if score == "sigmoid":
        return np.asarray(np.exp(-np.logaddexp(0, -logits)))
    return np.sqrt(np.logaddexp(0, logits)) if score == "sqrtsoftplus" else logits


def learn(score: str | None, extra: Any, logits: Sequence[Array], chosen: Sequence[Sequence[int]]) -> Ranking | None:
    """The rule by which a router chose `chosen` in HELD of its decisions or more, None where no rule that is known does.

    `score` and `extra` are columns of `routers`; `logits` (experts,) and `chosen` are of one decision each.
    """
    known = [(x, e) for x, e in zip(logits, chosen, strict=True) if np.isfinite(x).all() and max(e) < len(x)]
    if not known:
        return None
    table = np.stack([x for x, _ in known]).astype(float)
    shares = [(_share(rule, table, [e for _, e in known]), rule) for rule in _rules(score, extra, table.shape[1])]
    best = max(share for share, _ in shares)
    return next(rule for share, rule in shares if share == best) if best >= HELD else None


def plainest(score: str | None) -> Ranking:
    """By the score alone, or by the logit where nothing is known of the score."""
    return Ranking(score if score in ("softmax", "sigmoid", "sqrtsoftplus", "probabilities") else "logit")


def on_top(values: Array, chosen: Sequence[int]) -> bool:
    """Whether the chosen experts are those with the largest of `values` (experts,)."""
    others = np.delete(values, list(chosen))
    return bool(values[list(chosen)].min() > -np.inf and values[list(chosen)].min() >= others.max(initial=-np.inf) - _SAME)


def _share(rule: Ranking, logits: Array, chosen: Sequence[Sequence[int]]) -> float:
    return float(np.mean([on_top(values, some) for values, some in zip(rule.values(logits), chosen, strict=True)]))


def _rules(score: str | None, extra: Any, experts: int) -> Iterator[Ranking]:
    """Every rule that the notes of a router allow; those that use most of the notes first."""
    notes = json.loads(extra) if isinstance(extra, str) else extra or {}
    values = np.array((notes.get("bias") or {}).get("values") or [], dtype=float)
    groups, kept = notes.get("groups") or 0, notes.get("groups_kept") or 0
    limits: list[dict[str, Any]] = [{}]
    if groups > 1 and kept and experts % groups == 0:
        limits = [{"groups": groups, "kept": kept, "group_by": by} for by in _BEST] + limits
    plain = plainest(score).score
    for limit in limits:
        if len(values) == experts:
            yield from (Ranking(plain, values, on, **limit) for on in ("score", "logit"))
        yield Ranking(plain, **limit)
