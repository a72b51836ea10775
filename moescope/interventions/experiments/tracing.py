"""Causal tracing of expert updates: whose update, taken from the clean prompt, brings the right token back?

Expert-aware causal tracing (arXiv 2606.03780). A prompt is corrupted: noise on the embeddings of its subject (of `noise` times
the standard deviation of the embedding matrix; the paper's 3), or another prompt of as many tokens. In the corrupted run one
update is patched at one place: c clean less c corrupted is added to the block's output, c being the expert's routing weight
times its output, 0 where it does not run. D = logit of the right token less that of the wrong one, at the last place.
* rescue: D patched less D corrupted, in logits; by an expert's update, and by all of the block's ("layer"). A case in which the
  expert does not run in the clean prompt counts as 0.
* specificity: an expert's rescue less the mean rescue of the other experts that ran in the clean prompt there; over the cases
  where it ran. Any clean update may help a little: an expert is in question where this is above 0.
Cases are left out whose words are not one token each. Cases are kept where D is at least `margin` in the clean run and falls
by at least `drop` (the paper's 1.0 and 0.5); experts
where they run in at least half of them. `positions`: last (the paper's), or all, counted from the end of the prompt.
Null: the signs of the cases flipped, two-sided. Intervals draw cases. `cases` names a file with one JSON object a line.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ... import statistics as st
from ...analyses._shared.answer import figures, gather
from ...contracts import Call, Site
from ...errors import InputError
from ...proof import observed
from ...routers.contribution import contribution, runs
from ...words import Count, Some
from ..edits.added import Add
from ..edits.base import intervene
from ._cases import Case, cases, noised
from ._setting import Found, Setting

ANALYSIS = "tracing"
SOURCE, FLIPS, RECURRENT, ROWS = "2606.03780", 4999, 0.5, 64
NULL = "signs of the cases flipped"
LAYER = -1  # stands for the block's whole output


@dataclass
class Patch:
    """One update (H,) that is added at one place of the corrupted prompt; `expert` or LAYER."""

    expert: int
    place: int
    update: Tensor


def run(
    here: Setting, cases: str, layers: str | int | None = None, positions: Literal["last", "all"] = "last", noise: float = 3.0,
    margin: float = 1.0, drop: float = 0.5, limit: Count = 256, seed: Some = 0,
) -> Found:  # fmt: skip
    """Of the decoder's routers in `layers`, over at most `limit` cases that pass."""
    sites, rows = here.routers(layers), []
    given, longer = _read(here, cases, noise, seed)
    passed = 0
    for number, case in enumerate(given):
        here.report(number, len(given))
        made = _traced(here, sites, case, positions, margin, drop)
        rows += [row | {"case": passed} for row in made]
        passed += bool(made)
        if passed >= limit:
            break
    if not passed:
        raise InputError(
            f"none of {len(given)} cases of {cases} has a margin of {margin:g} logits that falls by {drop:g} when corrupted; "
            "give others, more noise, or smaller bounds"
        )
    frame = pd.DataFrame(rows)
    frames = [made for _, part in frame.groupby(["router", "position"], sort=True) for made in _figures(part, passed)]
    found = gather(frames, family=())
    return Found(found, [{"cases": passed, "of": len(given), "longer": longer}] * len(found))


def _read(here: Setting, path: str, noise: float, seed: int) -> tuple[list[Case], int]:
    return cases(path, here.loaded.tokenizer, here.model, noise, seed)


def _traced(
    here: Setting, sites: Sequence[Site], case: Case, positions: str, margin: float, drop: float
) -> list[dict[str, Any]]:
    """Rescues of one case, by router, position and expert; none where it does not pass."""
    clean, before = _observed(here, sites, case.clean, None, case)
    corrupted, after = _observed(here, sites, case.corrupted, case.noise, case)
    if before < margin or before - after < drop:
        return []
    length, rows = len(case.clean), []
    places = [length - 1] if positions == "last" else list(range(length))
    for site in sites:
        patches = _patches(site, clean[site.name][0], corrupted[site.name][0], places)
        for start in range(0, len(patches), ROWS):
            part = patches[start : start + ROWS]
            for patch, value in zip(part, _patched(here, sites, site, case, part)):
                said = {"expert": patch.expert, "position": patch.place - length, "rescue": value - after}
                rows.append(here.where(site) | said)
    return rows


def _observed(
    here: Setting, sites: Sequence[Site], ids: Tensor, noise: Tensor | None, case: Case
) -> tuple[dict[str, list[Call]], float]:
    with observed(list(sites)) as calls, noised(here.model, noise):
        logits = here.model(input_ids=ids[None].to(here.model.device)).logits
    return calls, float(_contrast(logits, case)[0])


def _contrast(logits: Tensor, case: Case) -> Tensor:
    last = logits[:, -1].float()
    return last[:, case.true] - last[:, case.foil]


def _patches(site: Site, clean: Call, corrupted: Call, places: Sequence[int]) -> list[Patch]:
    """The block's update at each place, and that of every expert that ran there in the clean prompt."""
    at = torch.tensor(places)
    whole = (clean.output.float() - corrupted.output.float()).flatten(0, -2)[at]
    found = [Patch(LAYER, place, update) for place, update in zip(places, whole)]
    for expert in range(site.n_experts):
        ran = runs(clean, expert)[at]
        if bool(ran.any()):
            updates = contribution(clean, expert)[at] - contribution(corrupted, expert)[at]
            found += [Patch(expert, place, u) for place, u, there in zip(places, updates, ran.tolist()) if there]
    return found


def _patched(here: Setting, sites: Sequence[Site], site: Site, case: Case, patches: Sequence[Patch]) -> list[float]:
    """D of the corrupted prompt under each patch, all in one forward."""
    length = len(case.corrupted)
    updates = torch.zeros(len(patches), length, patches[0].update.shape[-1])
    for row, patch in enumerate(patches):
        updates[row, patch.place] = patch.update.cpu()
    edit = Add(router=site.path, updates=updates.flatten(0, 1))
    ids = case.corrupted[None].expand(len(patches), -1).to(here.model.device)
    with noised(here.model, case.noise), intervene(here.model, edit, sites=sites):
        return [float(v) for v in _contrast(here.model(input_ids=ids).logits, case)]


def _figures(part: pd.DataFrame, count: int) -> list[pd.DataFrame]:
    """Of one router and position."""
    first = part.iloc[0]
    where = {"stack": first["stack"], "layer": first["layer"], "router": first["router"]}
    subset = "" if first["position"] == -1 else f"position {first['position']}"
    table = part.pivot(index="case", columns="expert", values="rescue").reindex(range(count))
    experts = table.drop(columns=LAYER)
    frames = [_row(where | {"subset": subset}, "rescue by the layer (logits)", table[LAYER].to_numpy())]
    for expert in experts.columns[experts.notna().mean() >= RECURRENT]:
        at = where | {"subset": subset, "expert": int(expert)}
        frames.append(_row(at, "rescue by an expert's update (logits)", experts[expert].fillna(0).to_numpy()))
        ran = experts[experts[expert].notna()]
        others = ran.drop(columns=expert).mean(axis=1)
        if len(alone := (ran[expert] - others).dropna().to_numpy()):
            frames.append(_row(at, "specificity of an expert's update (logits)", alone))
    return frames


def _row(where: dict[str, Any], name: str, value: np.ndarray) -> pd.DataFrame:
    value = value[np.isfinite(value)]
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (FLIPS, len(value)))
    draws = st.bootstrap_weights(len(value)) @ value / len(value)
    return figures(where, name, value.mean(), source=SOURCE, chance=0.0, draws=draws, null=signs @ value / len(value),
                   null_name=NULL, side="both", n=len(value), units=len(value))  # fmt: skip
