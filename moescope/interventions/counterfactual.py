"""What if this token had gone elsewhere: regret of the executed set of experts against others, and how fragile a decision is.

After arXiv 2605.07260: alternative sets for one token in one layer, scored by the log probability of the next token that really
came; regret = best alternative minus executed. Weights of an alternative are what the family gives when it may choose only
among that set. Each alternative is a row of one batch of the same prefix, so only the token meant differs.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import combinations, islice
from math import comb
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from .. import statistics as st
from ..contracts import Site, find
from ..errors import InputError, ModelError
from ..models.loading import Loaded
from ..proof import observed
from ..routers.scores import summarize
from .data import Batch
from .edits.base import intervene
from .edits.choice import RouteAround
from .edits.selection import choices, chosen

Sets = list[tuple[int, ...]]


def regrets(
    loaded: Loaded, batch: Batch, layer: int | Site, places: Sequence[tuple[int, int]], *, alternatives: int | None = 32,
    pool: int | None = None, seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """One row per (row, place) of `batch`: regret in nats, the executed and the best set, and the router's margin.

    `layer`: its number, or its router. `alternatives`: sets sampled evenly beside the executed one; None for all. `pool`: of
    the token's so many best experts by router logits only (at least k + 1). Columns: scores (log p of the next token by set,
    the executed one first), token (key of the token read), executed,
    best (sets), log_p (executed), regret (at least 0), gain_mean (alternatives' mean minus executed), better (share of
    alternatives that are better), flip (change when the last chosen gives way to the first not chosen), margin.
    InputError for places without a next token; ModelError for routers whose tokens do not choose.
    """
    sites = find(loaded.model)
    site = chosen(sites, layer, "decoder")[0] if isinstance(layer, int) else next(s for s in sites if s.path == layer.path)
    if site.kind != "token_choice" or "decoder_input_ids" in batch.inputs or "input_ids" not in batch.inputs:
        raise ModelError(f"router {site.path} is not of a decoder whose tokens choose: there is no other set for one token")
    rng = np.random.default_rng(seed)
    return pd.DataFrame([_one(loaded, batch, site, sites, row, place, alternatives, pool, rng) for row, place in places])


def fragility(frame: pd.DataFrame, bins: int = 4, units: Sequence[Any] | None = None) -> pd.DataFrame:
    """Regret by quantile of margin: a row per bin with n, margins, regret, better; interval over `units` (else tokens)."""
    frame = frame[frame["margin"].notna()]
    cut = pd.qcut(frame["margin"].rank(method="first"), bins, labels=False)
    unit_of = pd.Series(np.arange(len(frame)) if units is None else np.asarray(units)[frame.index], frame.index)
    rows = []
    for _, part in frame.groupby(cut):
        unit = pd.factorize(unit_of[part.index])[0]
        sums, count = np.bincount(unit, part["regret"]), np.bincount(unit)
        _, low, high = st.over_documents(lambda x: x[..., 0] / x[..., 1], np.stack([sums, count], -1))
        row = {"margin_from": part["margin"].min(), "margin_to": part["margin"].max(), "n": len(part)}
        means = part[["regret", "better", "flip"]].mean().to_dict()
        rows.append(row | means | {"ci_low": float(low), "ci_high": float(high)})
    return pd.DataFrame(rows)


def _one(
    loaded: Loaded, batch: Batch, site: Site, sites: Sequence[Site], row: int, place: int, alternatives: int | None,
    pool: int | None, rng: Any,
) -> dict[str, Any]:  # fmt: skip
    if int(batch.targets[row, place]) < 0:
        raise InputError(f"place {place} of row {row} has no next token, so nothing says which set would have been better")
    prefix = batch.inputs["input_ids"][row : row + 1, : place + 1]
    record = _record(loaded, site, prefix)
    executed = tuple(sorted(record.experts[-1].tolist()))
    flip, margin = _flip(record, site)
    among = _pool(record, choices(site), len(executed), pool)
    sets = [executed, flip, *_others(executed, flip, among, alternatives, rng, lambda s: _within(site, s))]
    target = int(batch.targets[row, place])
    if site.rule.get("groups"):
        sets = _reached(loaded, sites, site, prefix, sets, target)
    log_p = _scores(loaded, sites, site, prefix, sets, target)
    gain = log_p[1:] - log_p[0]
    return {
        "token": int(batch.read[row, place]), "executed": executed, "best": sets[int(np.argmax(log_p))], "log_p": log_p[0],
        "regret": max(float(gain.max()), 0.0), "gain_mean": float(gain.mean()), "better": float((gain > 0).mean()),
        "flip": float(gain[0]) if sets[1] == flip else float("nan"), "margin": margin,
        "alternatives": len(gain), "scores": log_p,
    }  # fmt: skip


def _record(loaded: Loaded, site: Site, prefix: Tensor) -> Any:
    model: Any = loaded.model
    with torch.no_grad(), observed([site]) as calls:
        model(input_ids=prefix)
    return calls[site.name][0].record


def _flip(record: Any, site: Site) -> tuple[tuple[int, ...], float]:
    """The executed set with its least-weighted expert replaced by the best one not chosen, and the margin between them."""
    experts, logits = record.experts[-1], record.logits[-1].float()
    rest = logits.clone()
    rest[experts] = float("-inf")
    least = int(record.weights[-1].argmin())
    new = [*(e for n, e in enumerate(experts.tolist()) if n != least), int(rest.argmax())]
    margin = summarize(record.logits[-1:], record.experts[-1:], site.score, ["margin"])["margin"]
    return tuple(sorted(new)), float(margin[0])


def _pool(record: Any, experts: int, k: int, pool: int | None) -> list[int]:
    """The experts that alternatives are drawn from: those of the largest logits, or all."""
    if pool is None or pool >= experts:
        return list(range(experts))
    return sorted(record.logits[-1].float().topk(max(pool, k + 1)).indices.tolist())


def _within(site: Site, experts: tuple[int, ...]) -> bool:
    """Whether a router that chooses among groups first may choose these: of few enough groups, and none alone in its group.

    Groups are ranked by their two best experts, so that one whose others are all masked is not chosen.
    """
    groups = site.rule.get("groups")
    if not groups:
        return True
    used = Counter(expert // (site.n_experts // groups) for expert in experts)
    return len(used) <= (site.rule.get("groups_kept") or groups) and min(used.values()) > 1


def _others(
    executed: tuple[int, ...], flip: tuple[int, ...], among: list[int], limit: int | None, rng: Any,
    fits: Callable[[tuple[int, ...]], bool],
) -> Sets:  # fmt: skip
    k, known = len(executed), {executed, flip}
    if limit is None or comb(len(among), k) - 2 <= limit:
        return [s for s in combinations(among, k) if s not in known and fits(s)]
    drawn = (tuple(sorted(int(e) for e in rng.choice(among, k, replace=False))) for _ in range(50 * limit))
    return list(islice(dict.fromkeys(s for s in drawn if s not in known and fits(s)), limit))


def _reached(loaded: Loaded, sites: Sequence[Site], site: Site, prefix: Tensor, sets: Sets, target: int) -> Sets:
    """The executed set, and those others that a router which first chooses among groups can be made to choose.

    ModelError if there is none.
    """
    found = [sets[0]]
    for one in sets[1:]:
        with suppress(ModelError):
            _scores(loaded, sites, site, prefix, [sets[0], one], target)
            found.append(one)
    if len(found) < 2:
        raise ModelError(
            f"router {site.path} chooses among groups first, and cannot be made to choose any other set for this token; draw "
            "more alternatives"
        )
    return found


def _scores(loaded: Loaded, sites: Sequence[Site], site: Site, prefix: Tensor, sets: Sets, target: int) -> np.ndarray:
    """(sets,) log probability of the target when the last token runs each set; the first set is the executed one, unmasked."""
    length, model = prefix.shape[1], loaded.model
    mask = torch.zeros(len(sets), length, choices(site), dtype=torch.bool)
    for number, which in enumerate(sets[1:], 1):
        mask[number, -1] = True
        mask[number, -1, list(which)] = False
    edit = RouteAround(router=site.path, mask=mask.flatten(0, 1))
    with torch.no_grad(), intervene(model, edit, sites=sites):
        logits = model(input_ids=prefix.expand(len(sets), -1)).logits[:, -1]
    return torch.log_softmax(logits.float(), -1)[:, target].double().cpu().numpy()
