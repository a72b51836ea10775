"""All experts of a layer at a glance: their tokens, the label they prefer most surely, their load, the effect of each.

One set of questions for the dashboard's cards and for `moescope.show.experts`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ..pictures.wording import clean, share, visible
from ..store import spelling
from . import expert_labels
from .layers import Layer

Row = dict[str, Any]
Ask = Callable[..., pd.DataFrame]  # (sql, *params): the rows
Labelled = Callable[[str, bool], tuple[np.ndarray, np.ndarray, Any]]  # (kind, of tokens): as expert_labels.counts
TOKENS, WORDS = 40, 6  # of an expert that are searched, and shown
KINDS, FEW_KINDS = 8, 3  # kinds of labels that are counted, and in large runs
LARGE = 1_000_000  # decisions of a large run
LEAST, SURE = 20, 5  # tokens that must bear a label; documents below which there is no interval
LOAD = """
select expert, share, assignments, dropped,
       (assignments + dropped) / nullif(sum(assignments + dropped) over (), 0) as demand
from expert_load where router = ? order by expert"""
WHOLE = """
select d.decisions * ? = sum(l.assignments) and d.decisions > 0
       and exists (select 1 from vocab_rollup v where v.run = d.run and v.router = d.router) as whole
from decision_rollup d join load_rollup l using (router) where router = ? group by d.run, d.router, d.decisions"""
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
qualify row_number() over (partition by y.expert order by low desc, y.vocab_id) <= {most}
order by y.expert, low desc, y.vocab_id"""
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
    demand: float | None  # share of what was asked for in its layer
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


def of(ask: Ask, run: Row, layer: Layer, few: str = "", labelled: Labelled | None = None) -> list[Card]:
    """A card for every expert of a layer; `few` leaves tokens out (a condition on `a.token`), `labelled` counts labels."""
    cards = {
        int(r.expert): Card(int(r.expert), _number(r.share), _number(r.demand), int(r.assignments), int(r.dropped))
        for r in ask(LOAD, layer.router).itertuples()
    }
    for row in spelling.of(ask, run["run"]).column(_tokens(ask, run, layer, few)).itertuples():
        if row.expert in cards and isinstance(row.text, str):
            cards[row.expert].words.append(row.text)
    for expert, found in _labels(ask, run, layer, labelled or _counting(ask, run, layer, few)).items():
        cards[expert].labels = sorted(found, key=lambda best: -best.low)
    _effects(ask, run, layer, cards)
    return list(cards.values())


def exact(ask: Ask, layer: Layer) -> bool:
    """True where the kept sums by vocabulary id say all: ids there are, and every decision ran its `top_k` experts.

    Where some were dropped, sums of what ran do not tell how often a token was looked at; then decisions are counted.
    """
    return bool(layer.top_k) and bool(ask(WHOLE, layer.top_k, layer.router)["whole"].fillna(False).any())


def _number(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)


def _tokens(ask: Ask, run: Row, layer: Layer, few: str) -> pd.DataFrame:
    if exact(ask, layer):
        return ask(KEPT + RANKED.format(most=TOKENS), layer.top_k, run["run"], layer.router, run["run"])
    return ask(COUNTED.format(few=few) + RANKED.format(most=TOKENS), layer.router, layer.router, run["run"])


def kinds(ask: Ask, run: int) -> list[tuple[str, bool]]:
    """Kinds of labels, each with whether it is of tokens; those with more values than are counted name tokens, not kinds."""
    found = ask(expert_labels.KINDS, run, run)
    return [(r.kind, bool(r.of_tokens)) for r in found.itertuples() if r.n <= expert_labels.LABELS]


def _counting(ask: Ask, run: Row, layer: Layer, few: str) -> Labelled:
    def labelled(kind: str, of_tokens: bool) -> tuple[np.ndarray, np.ndarray, Any]:
        sql, params = expert_labels.query(run["run"], layer.router, kind, of_tokens, few)
        return expert_labels.counts(ask(sql, *params), layer.experts)

    return labelled


def _labels(ask: Ask, run: Row, layer: Layer, labelled: Labelled) -> dict[int, list[Best]]:
    found: dict[int, list[Best]] = {expert: [] for expert in range(layer.experts)}
    most = KINDS if (run.get("decisions") or 0) <= LARGE else FEW_KINDS
    for kind, of_tokens in kinds(ask, run["run"])[:most]:
        ran, every, labels = labelled(kind, of_tokens)
        if not every.size:
            continue
        shares, lifts, low, high = expert_labels.lifted(ran.astype(float), every)
        sure = (low > 1) & (every.sum(0) >= LEAST)[:, None] & ((every > 0).sum(0) >= SURE)[:, None]
        for label, expert in zip(*np.nonzero(sure), strict=True):
            at = (label, expert)
            found[int(expert)].append(Best(kind, str(labels[label]), *(float(v[at]) for v in (shares, lifts, low, high))))
    return found


def _effects(ask: Ask, run: Row, layer: Layer, cards: dict[int, Card]) -> None:
    known: dict[tuple[int, str, str], tuple[float, float, float]] = {
        (int(r.expert), r.group_kind, str(r.group)): (r.delta_nll, r.ci_low, r.ci_high)
        for r in ask(EFFECTS, run["run"], layer.router).itertuples()
    }
    for expert, card in cards.items():
        card.effect = next((v for (e, kind, _), v in known.items() if e == expert and kind == "all"), None)
        if card.best and (own := known.get((expert, card.best.kind, card.best.label))):
            card.of_group = card.best.label, own[0]


def table(cards: list[Card]) -> pd.DataFrame:
    """What the cards say, as rows."""
    return pd.DataFrame([
        {
            "expert": card.expert, "load": card.load, "demand": card.demand, "assignments": card.assignments,
            "dropped": card.dropped, "tokens": " ".join(visible(word) for word in card.words[:WORDS]),
            "label": card.best and f"{card.best.kind}: {card.best.label}", "share": card.best and card.best.share,
            "lift": card.best and card.best.lift, "low": card.best and card.best.low, "high": card.best and card.best.high,
            "effect": card.effect and card.effect[0], "summary": card.summary,
        }
        for card in cards
    ])  # fmt: skip


def told(card: Card, even: float, asked: bool) -> Row:
    """What a picture draws of a card; `asked`: its bar is of what was asked for, since some of it was dropped."""
    own, best = card.demand if asked else card.load, card.best
    return {
        "expert": card.expert, "ran": card.assignments, "share": own, "even": even,
        "says": f"asked {share(card.demand)}, ran {share(card.load)}" if asked else f"{share(card.load)} of the load",
        "dropped": card.dropped, "words": [visible(word, 14) for word in card.words[:WORDS]],
        "label": best and f"{best.kind}: {clean(best.label, 30)}", "lift": best and best.lift, "low": best and best.low,
        "high": best and best.high, "effect": card.effect and card.effect[0], "summary": card.summary,
        "search": "\n".join([*map(visible, card.words), *(f"{b.kind} {b.label}" for b in card.labels)]),
    }  # fmt: skip
