"""Effects of ablations, as a store holds them: which there are, and how they stand beside controls and use."""

import json
from typing import Any

import numpy as np
import pandas as pd

from moescope.app.queries import store_access
from moescope.app.wording import clean

KNOWN = """
select mode, counted_at, group_kind, stack, layer, count(*) as n
from ablation_effects where run = ? group by all order by all"""
ROWS = """
select stack, layer, (select block_type from routers r where r.router = x.router) as block_type,
  router, expert, experts, mode, control,
       load, per_load, group_kind, "group", n, units, delta_nll, ci_low, ci_high, p, q, control_delta_nll, baseline_nll, kl,
       delta_correct, delta_margin, rerouted
from ablation_effects x
where run = ? and mode = ? and counted_at = ? and group_kind = ? and (? is null or router = ?)
qualify row_number() over (partition by cast(experts as varchar), control, "group" order by n desc, q) = 1
order by stack, layer, expert, cast(experts as varchar), n desc limit 20000"""
USE = """
select router, expert, share, weight / nullif(sum(weight) over (partition by router), 0) as gate_mass,
       weight / nullif(assignments, 0) as mean_weight
from expert_load where run = ?"""
OF_EXPERT = """
select group_kind, "group", mode, control, delta_nll, ci_low, ci_high, p, q, control_delta_nll, load, per_load, kl, rerouted,
       n, units
from ablation_effects where run = ? and router = ? and expert = ?
order by group_kind <> 'all', mode, control, delta_nll desc limit 500"""


def rows(run: int, mode: str, at: str, kind: str, router: int | None) -> tuple[pd.DataFrame, list[Any]]:
    """Effects in one mode on one kind of group, each with a `name` of its experts; and the parameters of ROWS."""
    params = [run, mode, at, kind, router, router]
    frame = read(run, store_access.frame(ROWS, *params))
    return frame.assign(name=names(frame)), params


def read(run: int, frame: pd.DataFrame) -> pd.DataFrame:
    """The rows, groups of one token as one reads it."""
    spelled, tokens = store_access.spelling(run), frame["group_kind"] == "token"
    return frame.assign(group=[spelled(g) if own else g for g, own in zip(frame["group"], tokens, strict=True)])


WHAT = {
    "none": "effect",
    "load": "difference from experts of equal load",
    "random": "difference from random experts",
    "router": "difference from the router's other experts and other groups",
}


def marked(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with a column `is`: whether `delta_nll` is the effect itself or the difference from a control's."""
    return frame.assign(**{"is": frame["control"].map(WHAT).fillna(frame["control"])})


def names(frame: pd.DataFrame) -> list[str]:
    """Experts as a reader names and sorts them, layer and expert: "3.05", "3.05+07" for a set."""
    twice = frame.drop_duplicates("router").duplicated(["stack", "layer"]).any()  # attention and ffn in one layer
    wide, deep = (len(str(int(frame[c].max()))) if frame[c].notna().any() else 1 for c in ("expert", "layer"))
    return [_named(row, wide, deep, twice) for row in frame.itertuples()]


def spoken(row: Any) -> str:
    """The same in a sentence: "expert 5 of layer 3", "experts 5 and 7 of decoder layer 3"."""
    sets = list(json.loads(row["experts"]).values())
    if pd.isna(row["layer"]) or not sets:
        return f"the set of experts in {len(sets)} layers"
    stack = f"{row['stack']} " if row["stack"] not in (None, "decoder", "vision") else ""
    some = " and ".join(map(str, sets[0])) if len(sets[0]) < 4 else f"{', '.join(map(str, sets[0][:3]))} …"
    return clean(f"expert{'s' if len(sets[0]) > 1 else ''} {some} of {stack}layer {int(row['layer'])}", 60)


def _named(row: Any, wide: int, deep: int, twice: bool) -> str:
    sets = list(json.loads(row.experts).values())
    some = "+".join(f"{e:0{wide}d}" for e in sets[0]) + (" …" if len(sets) > 1 else "")
    if pd.isna(row.layer):
        return clean(f"{len(sets)} layers: {some}", 24)
    stack = f"{row.stack} " if row.stack not in (None, "decoder", "vision") else ""
    place = f"{stack}{int(row.layer):0{deep}d}{f' {row.block_type} ' if twice else '.'}"
    return clean(place + some, 24)


def beside(frame: pd.DataFrame, control: str = "load") -> pd.DataFrame:
    """For each set two rows: what it changes, with its interval, and what the controls of equal load change."""
    own = frame[frame["control"] == "none"].assign(what="itself")
    other = frame[frame["control"] == control]
    other = other.assign(what="others of equal load", delta_nll=other["control_delta_nll"], ci_low=np.nan, ci_high=np.nan)
    return pd.concat([own, other], ignore_index=True)


def against_use(run: int, frame: pd.DataFrame) -> pd.DataFrame:
    """Effects of single experts beside their share of load, of gate mass, and their mean weight."""
    single = frame[(frame["control"] == "none") & frame["expert"].notna()]
    return single.merge(store_access.frame(USE, run), on=["router", "expert"], how="left")


def rank_correlation(x: pd.Series, y: pd.Series, draws: int = 2000) -> tuple[float, float, float]:
    """Spearman's rho with its 95 % bootstrap interval over experts; NaN below five experts or without variation."""
    a, b = x.rank().to_numpy(float), y.rank().to_numpy(float)
    from moescope import statistics  # SciPy is behind it

    if len(a) < statistics.MIN_UNITS or not a.std() or not b.std():
        return float("nan"), float("nan"), float("nan")
    pick = np.random.default_rng(0).integers(0, len(a), (draws, len(a)))
    left, right = (pd.DataFrame(v[pick].T).rank().to_numpy() for v in (a, b))
    left, right = left - left.mean(0), right - right.mean(0)
    spread = np.sqrt((left**2).sum(0) * (right**2).sum(0))
    drawn = np.divide((left * right).sum(0), spread, out=np.zeros(draws), where=spread > 0)
    value = np.corrcoef(a, b)[0, 1]
    low, high = statistics.interval(value, drawn, len(a))
    return float(value), max(float(low), -1.0), min(float(high), 1.0)
