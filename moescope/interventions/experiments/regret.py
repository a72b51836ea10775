"""Counterfactual routing: would the next token have been likelier had this one gone to other experts?

After arXiv 2605.07260 ("When Are Experts Misrouted?"): one token's set of experts in one layer is replaced by others of the
same size, everything else held, and each is scored by the log probability of the token that really came next. Regret: best
alternative minus executed, in nats, 0 or more. `alternatives` sets are drawn among the token's `pool` best experts by router
logits; of a router that first chooses among groups, those that it can be made to choose. `tokens` places are drawn evenly
over documents.

The best of many alternatives beats one set by luck alone, so regret has no meaning by itself. Null: any one of the sets is
called the executed one, drawn at random: what a router would regret that drew evenly among them. Fragile tokens are those whose
next token is least likely, in the mean over all sets (the executed one has no part in how they are chosen; the paper's own
bound between confident and fragile could not be read, so quarters are given).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ... import statistics as st
from ...analyses._shared.answer import figures, gather
from ...words import Count, Some
from ..counterfactual import regrets
from ._setting import Found, Setting, drawn

ANALYSIS = "regret"
SOURCE, NULL, DRAWS = "2605.07260", "the executed set drawn evenly among all that were scored", 999
KEPT = 100  # tokens per layer


def run(
    here: Setting,
    layers: str | int | None = None,
    tokens: Count = 64,
    alternatives: Count = 32,
    pool: Count = 32,
    seed: Some = 0,
) -> Found:
    """Of the decoder's routers in `layers` ("3,5-7"; default all)."""
    batches, sites = here.batches(), here.routers(layers)
    places = drawn(batches, tokens, seed)
    frames: list[pd.DataFrame] = []
    more: list[dict[str, Any]] = []
    for number, site in enumerate(sites):
        rows = []
        for at, (batch, row, place, document) in enumerate(places):
            here.report(number * len(places) + at, len(sites) * len(places))
            found = regrets(here.loaded, batch, site, [(row, place)], alternatives=alternatives, pool=pool, seed=seed + at)
            rows.append(found.assign(document=document))
        frame = pd.concat(rows, ignore_index=True)
        made = [*_whole(here.where(site), frame), _tokens(here.where(site), frame)]
        frames += made
        more += [{} for figured in made[:-1] for _ in range(len(figured))] + _said(frame)
    return Found(gather(frames, family=()), more)


def _whole(where: dict[str, Any], frame: pd.DataFrame) -> list[pd.DataFrame]:
    """Mean regret, and share of alternatives that are better: of all tokens, and by quarter of likelihood."""
    null = _null(frame["scores"])
    mean = frame["scores"].map(np.mean).rank(method="first", pct=True).to_numpy()
    parts = {"": np.ones(len(frame), dtype=bool)}
    if len(frame) >= 16:
        parts |= {f"likelihood quarter {n + 1} of 4": np.clip(np.ceil(mean * 4) - 1, 0, 3) == n for n in range(4)}
    rows = []
    for subset, mine in parts.items():
        unit = pd.factorize(frame["document"][mine])[0]
        for name, value, under in (("regret (nats)", "regret", 0), ("share of alternatives that are better", "better", 1)):
            sums = np.bincount(unit, frame[value][mine]), np.bincount(unit)
            weights = st.bootstrap_weights(len(sums[1]))
            draws = (weights @ sums[0]) / np.maximum(weights @ sums[1], 1)
            chance = np.nan if value == "regret" else 0.5
            rows.append(figures(where | {"subset": subset}, name, frame[value][mine].mean(), source=SOURCE, chance=chance,
                                draws=draws, null=null[under][:, mine].mean(1), null_name=NULL, side="less",
                                bounds=(0, 1 if value == "better" else np.inf), n=int(mine.sum()),
                                units=len(sums[1])))  # fmt: skip
    return rows


def _null(scores: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(DRAWS, tokens) regret and share of better others, each set executed with equal chance."""
    rng = np.random.default_rng(0)
    regret, better = np.empty((2, DRAWS, len(scores)))
    for token, log_p in enumerate(scores):
        said = log_p[rng.integers(0, len(log_p), DRAWS)]
        regret[:, token] = log_p.max() - said
        better[:, token] = (log_p[None] > said[:, None]).sum(1) / (len(log_p) - 1)
    return regret, better


def _kept(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.nlargest(KEPT, "regret")


def _tokens(where: dict[str, Any], frame: pd.DataFrame) -> pd.DataFrame:
    """A row per token, those of most regret first; a token has no interval and no null of its own."""
    some = _kept(frame)
    return figures(where | {"subset": [f"token {key}" for key in some["token"]]}, "regret of a token (nats)",
                   some["regret"], source=SOURCE, null_name="none: one token", n=1, units=1)  # fmt: skip


def _said(frame: pd.DataFrame) -> list[dict[str, Any]]:
    names = ("token", "executed", "best", "log_p", "margin", "better", "alternatives")
    return [{name: row[name] for name in names} for row in _kept(frame).to_dict("records")]
