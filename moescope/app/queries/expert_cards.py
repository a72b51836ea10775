"""All experts of a layer at a glance: their tokens, the label they prefer most surely, their load, the effect of each."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from moescope.app.queries import experts, sampling, store_access
from moescope.app.queries.layers import Layer
from moescope.app.wording import clean, share, visible

Row = dict[str, Any]
TOKENS, WORDS = 40, 6  # of an expert that are searched, and shown
KINDS, FEW_KINDS = 8, 3  # kinds of labels that are counted, and in large runs
LEAST, SURE = 20, 5  # tokens that must bear a label; documents below which there is no interval
KEPT = """
with n as (
  select expert, vocab_id, sum(assignments)::double as here,
         sum(sum(assignments)) over (partition by vocab_id) / ? as seen
  from vocab_rollup where run = ? and router = ? group by expert, vocab_id)"""
COUNTED = """
with seen as (
  select t.vocab_id, count(*)::double as seen from decisions a join tokens t using (token) where a.router = ?{few}
  group by all),
n as (
  select a.expert, t.vocab_id, count(*)::double as here, any_value(seen.seen) as seen
  from assignments a join tokens t using (token) join seen on seen.vocab_id is not distinct from t.vocab_id
  where a.router = ? and not a.dropped{few} group by all)"""
RANKED = """,
x as (select *, here / seen as rate, 1.96 as z from n where vocab_id is not null),
y as (
  select *, (rate + z * z / (2 * seen) - z * sqrt(greatest(rate * (1 - rate), 0) / seen + z * z / (4 * seen * seen)))
    / (1 + z * z / seen) as low from x)
select y.expert, coalesce(v.text, '#' || y.vocab_id) as text, y.here::bigint as tokens, y.seen::bigint as occurrences, y.low
from y join runs u on u.run = ? left join vocab v on v.model = u.model and v.vocab_id = y.vocab_id
qualify row_number() over (partition by y.expert order by low desc, y.vocab_id) <= {most} order by y.expert, low desc"""
EFFECTS = """
select expert, group_kind, "group", delta_nll, ci_low, ci_high from ablation_effects
where run = ? and router = ? and control = 'none' and expert is not null and counted_at = 'target' and delta_nll is not null
qualify row_number() over (partition by expert, group_kind, "group" order by n desc, mode) = 1"""


@dataclass(frozen=True)
class Best:
    """A label and how much of it comes to an expert; `low` and `high` are of the lift, 95 % over documents."""

    kind: str
    label: str
    share: float
    lift: float
    low: float
    high: float


@dataclass
class Card:
    """One expert."""

    expert: int
    load: float | None  # share of what ran in its layer
    assignments: int
    dropped: int
    words: list[str] = field(default_factory=list)  # its surest tokens, the surest first
    labels: list[Best] = field(default_factory=list)  # that surely come here more than by chance, the surest first
    effect: tuple[float, float, float] | None = None  # change of the loss without it, and its interval
    of_group: tuple[str, float] | None = None  # the same on the tokens of its best label, where that was measured

    @property
    def best(self) -> Best | None:
        """The label that it prefers most surely."""
        return self.labels[0] if self.labels else None

    @property
    def summary(self) -> str:
        """One line, from measured figures only."""
        if not self.assignments:
            return "never ran on this data" if not self.dropped else f"asked {self.dropped} times, and never ran"
        said = []
        if self.best:
            label = clean(self.best.label, 24)
            said.append(f"{label}: {share(self.best.share)} of {self.best.kind} {label} tokens, lift {self.best.lift:.1f} ×")
        elif self.words:
            said.append("no label stands out; surest tokens " + ", ".join(f"“{visible(w, 12)}”" for w in self.words[:3]))
        else:
            said.append("no label stands out")
        if self.of_group:
            said.append(f"without it {clean(self.of_group[0], 24)} {self.of_group[1]:+.3f} nats")
        elif self.effect:
            said.append(f"without it {self.effect[0]:+.3f} nats")
        return "; ".join(said)

    def matches(self, text: str) -> bool:
        """Whether a token of it, or a label that it prefers, has this in it."""
        text = text.lower().strip()
        named = [f"{b.kind} {b.label}" for b in self.labels]
        return any(text in word.lower() for word in [*self.words, *named, *(visible(w) for w in self.words)])


def of(run: Row, layer: Layer) -> list[Card]:
    """A card for every expert of a layer."""
    load = store_access.frame(experts.LOAD, layer.router)
    cards = {
        int(r.expert): Card(int(r.expert), None if pd.isna(r.share) else float(r.share), int(r.assignments), int(r.dropped))
        for r in load.itertuples()
    }
    for row in store_access.spelling(run["run"]).column(_tokens(run, layer)).itertuples():
        if row.expert in cards and isinstance(row.text, str):
            cards[row.expert].words.append(row.text)
    for expert, found in _labels(run, layer).items():
        cards[expert].labels = sorted(found, key=lambda best: -best.low)
    _effects(run, layer, cards)
    return list(cards.values())


def _tokens(run: Row, layer: Layer) -> pd.DataFrame:
    if experts.exact(layer):
        return store_access.frame(KEPT + RANKED.format(most=TOKENS), layer.top_k, run["run"], layer.router, run["run"])
    sql = COUNTED.format(few=experts.part_of(run, layer)[0]) + RANKED.format(most=TOKENS)
    return store_access.frame(sql, layer.router, layer.router, run["run"])


def kinds(run: int) -> list[tuple[str, bool]]:
    """Kinds of labels, each with whether it is of tokens; those with more values than are counted name tokens, not kinds."""
    found = store_access.rows(experts.KINDS, run, run)
    return [(r["kind"], bool(r["of_tokens"])) for r in found if r["n"] <= experts.LABELS]


def _labels(run: Row, layer: Layer) -> dict[int, list[Best]]:
    found: dict[int, list[Best]] = {expert: [] for expert in range(layer.experts)}
    most = KINDS if (run.get("decisions") or 0) <= sampling.EXACT else FEW_KINDS
    for kind, of_tokens in kinds(run["run"])[:most]:
        ran, every, labels = experts.labelled(run, layer, kind, of_tokens)
        if not every.size:
            continue
        shares, lifts, low, high = lifted(ran.astype(float), every)
        sure = (low > 1) & (every.sum(0) >= LEAST)[:, None] & ((every > 0).sum(0) >= SURE)[:, None]
        for label, expert in zip(*np.nonzero(sure), strict=True):
            at = (label, expert)
            found[int(expert)].append(Best(kind, str(labels[label]), *(float(v[at]) for v in (shares, lifts, low, high))))
    return found


def lifted(ran: np.ndarray, every: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(labels, experts): share of a label's tokens for which an expert ran, its lift, and the ends of the lift's 95 % interval.

    `ran` (documents, labels, experts), `every` (documents, labels). The wider of two at each end: linearized over documents, as
    in `sampling`, and Wilson's over tokens, without which a share of all tokens would be certain. The share that the lift
    is over is taken as it is.
    """
    mine, whole, units = ran.sum(0), every.sum(0)[:, None], (every > 0).sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = mine / whole
        mixed = np.einsum("dle,dl->le", ran, every)
        off = (ran**2).sum(0) - 2 * shares * mixed + shares**2 * (every**2).sum(0)[:, None]
        half = 1.96 * np.sqrt(np.maximum(off, 0) * (units / np.maximum(units - 1, 1))[:, None]) / whole
        z = 1.96**2 / whole
        middle, wide = (shares + z / 2) / (1 + z), 1.96 * np.sqrt(shares * (1 - shares) / whole + z / whole / 4) / (1 + z)
        low, high = np.minimum(shares - half, middle - wide), np.maximum(shares + half, middle + wide)
        overall = mine.sum(0) / whole.sum()
        return shares, shares / overall, np.maximum(low, 0) / overall, np.minimum(high, 1) / overall


def _effects(run: Row, layer: Layer, cards: dict[int, Card]) -> None:
    known: dict[tuple[int, str, str], tuple[float, float, float]] = {
        (int(r["expert"]), r["group_kind"], str(r["group"])): (r["delta_nll"], r["ci_low"], r["ci_high"])
        for r in store_access.rows(EFFECTS, run["run"], layer.router)
    }
    for expert, card in cards.items():
        card.effect = next((v for (e, kind, _), v in known.items() if e == expert and kind == "all"), None)
        if card.best and (own := known.get((expert, card.best.kind, card.best.label))):
            card.of_group = card.best.label, own[0]
