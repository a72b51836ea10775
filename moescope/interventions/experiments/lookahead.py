"""Looking ahead: what does a router choose when it is given the input of the router before?

As Megatron-LM's tools/moe_routing/analyze_routing_predictability.py has it: a router's weights are applied to the states that
the router before took, its scores and its selection bias are made of them, and its k best are the prediction. Limits to
groups of experts are not applied, there or here.
* load predicted: cosine and Spearman's correlation of the experts' predicted and actual numbers of tokens, and the overlap of
  the most loaded eighth of the experts, as that tool reports them. Null: expert numbers of the prediction permuted.
* assignments predicted: share of the experts that ran that were predicted for that very token; chance k / E. Null: predictions
  shuffled among the tokens of a document. "own input": the same made of the router's own states; less than 1 where it is more
  than its weights (groups, noise, capacity), and no prediction of that kind can do better.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from ... import statistics as st
from ...analyses._shared.answer import figures, gather
from ...contracts import Site
from ...errors import ModelError
from ...routers.calls import bare
from ...words import Count
from ._setting import Found, Setting

ANALYSIS = "predictability"
SOURCE = "Megatron-LM tools/moe_routing/analyze_routing_predictability.py"
LOAD, EACH = "load predicted from the layer before", "assignments predicted from the layer before"
NUMBERS, SHUFFLED = "expert numbers of the prediction permuted", "predictions shuffled within documents"
PERMUTED, SHUFFLES = 999, 19


def run(here: Setting, layers: str | int | None = None, tokens: Count = 8192) -> Found:
    """Of neighbouring routers of the decoder in `layers`, over about `tokens` tokens."""
    sites = [s for s in here.routers(layers) if _weight(s) is not None]
    if len(sites) < 2:
        raise ModelError("looking ahead takes two routers of the decoder that are a matrix each, and there are fewer")
    ran, chose, unit = _collected(here, sites, tokens)
    frames = []
    for _, site in pairwise(sites):
        name, experts = site.name, site.n_experts
        actual = _hot(ran[name], experts)
        frames += _loads(here.where(site), actual, _hot(chose[name, "before"], experts), unit)
        for which, estimator in (("before", "definition"), ("own", "own input")):
            frames.append(_each(here.where(site), actual, _hot(chose[name, which], experts), unit, estimator))
    return Found(gather(frames, family=()))


def _weight(site: Site) -> Tensor | None:
    """(E, H) of a router that is a matrix."""
    for module in [] if site.router is None else [bare(site.router), *bare(site.router).children()]:
        weight: Any = getattr(module, "weight", None)
        if torch.is_tensor(weight) and weight.dim() == 2 and weight.shape[0] == site.n_experts:
            return weight.detach()
    return None


def _collected(
    here: Setting, sites: Sequence[Site], tokens: int
) -> tuple[dict[str, np.ndarray], dict[tuple[str, str], np.ndarray], np.ndarray]:
    """Experts that ran (tokens, k) and that were predicted, by site; document of every token."""
    ran: dict[str, list[Tensor]] = {s.name: [] for s in sites}
    chose: dict[tuple[str, str], list[Tensor]] = {}
    units, batches = [], here.batches()
    for batch in here.each(batches):
        heard: dict[str, Tensor] = {}
        handles = [
            s.router.register_forward_pre_hook(lambda _, args, name=s.name, heard=heard: heard.update({name: args[0].detach()}))
            for s in sites if s.router is not None
        ]  # fmt: skip
        try:
            _, calls = here.calls(batch, sites)
        finally:
            for handle in handles:
                handle.remove()
        key = batch.keys["decoder"]
        real = torch.from_numpy(key >= 0)
        units.append(batches.document_of[0][key[key >= 0] - batches.first_token])
        for before, site in pairwise(sites):
            record = calls[site.name][0].record
            ran[site.name].append(torch.where(record.ran, record.experts, -1).cpu()[real])
            for which, states in (("before", heard[before.name]), ("own", heard[site.name])):
                found = _predicted(site, states.flatten(0, -2), record.experts.shape[-1]).cpu()[real]
                chose.setdefault((site.name, which), []).append(found)
        if sum(map(len, units)) >= tokens:
            break
    joined = {name: torch.cat(parts).numpy() for name, parts in ran.items() if parts}
    return joined, {name: torch.cat(parts).numpy() for name, parts in chose.items()}, np.concatenate(units)


def _predicted(site: Site, states: Tensor, k: int) -> Tensor:
    """(T, k) experts of the largest scores, with the bias that the router selects by."""
    weight = _weight(site)
    assert weight is not None
    logits = states.to(weight.device, torch.float32) @ weight.float().T
    bias: Any = getattr(bare(site.router), "bias", None) if site.router is not None else None
    if torch.is_tensor(bias) and bias.shape == logits.shape[-1:]:
        logits = logits + bias.detach().float()
    scores = logits.sigmoid() if site.score == "sigmoid" else logits.softmax(-1)
    chosen_by = (
        next((b for n, b in site.router.named_buffers() if n.endswith("correction_bias")), None) if site.router else None
    )
    return (scores if chosen_by is None else scores + chosen_by.float()).topk(k).indices


def _hot(chosen: np.ndarray, experts: int) -> np.ndarray:
    """(tokens, E) bool."""
    found = np.zeros((len(chosen), experts + 1), dtype=bool)
    np.put_along_axis(found, np.where((chosen < 0) | (chosen >= experts), experts, chosen), True, axis=1)
    return found[:, :experts]


def _by_document(unit: np.ndarray, values: np.ndarray) -> np.ndarray:
    _, at = np.unique(unit, return_inverse=True)
    found = np.zeros((int(at.max()) + 1, *values.shape[1:]))
    np.add.at(found, at, values)
    return found


def _loads(where: dict[str, Any], actual: np.ndarray, predicted: np.ndarray, unit: np.ndarray) -> list[pd.DataFrame]:
    """The tool's three figures."""
    real, said = _by_document(unit, actual), _by_document(unit, predicted)
    weights = st.bootstrap_weights(len(real))
    drawn = st.resampled(weights, real), st.resampled(weights, said)
    rng, rows = np.random.default_rng(0), []
    mixed = rng.permuted(np.tile(said.sum(0), (PERMUTED, 1)), axis=1)
    common: dict[str, Any] = {"source": SOURCE, "null_name": NUMBERS, "n": len(actual), "units": len(real), "bounds": (-1, 1)}
    for name, measure in (("cosine", _cosine), ("Spearman", _spearman), ("most loaded eighth", _overlap)):
        chance = (
            max(1, actual.shape[1] // 8) / actual.shape[1] if measure is _overlap else 0.0 if measure is _spearman else np.nan
        )
        rows.append(figures(where, LOAD, measure(real.sum(0), said.sum(0)), estimator=name, chance=chance,
                            draws=measure(*drawn), null=measure(real.sum(0)[None], mixed), **common))  # fmt: skip
    return rows


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray((a * b).sum(-1) / np.maximum(np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1), 1e-300))


def _spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    ranks = [stats.rankdata(x, axis=-1) for x in (a, b)]
    return _cosine(*(r - r.mean(-1, keepdims=True) for r in ranks))


def _overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    most = max(1, a.shape[-1] // 8)
    hot = [np.argsort(-x, axis=-1, kind="stable")[..., :most] for x in (a, b)]
    return np.asarray((hot[0][..., :, None] == hot[1][..., None, :]).any(-1).mean(-1))


def _each(where: dict[str, Any], actual: np.ndarray, predicted: np.ndarray, unit: np.ndarray, estimator: str) -> pd.DataFrame:
    """Share of assignments predicted, token by token."""
    sums, total = _by_document(unit, (actual & predicted).sum(1)), _by_document(unit, actual.sum(1))
    weights = st.bootstrap_weights(len(total))
    null = [float((actual & predicted[order]).sum() / actual.sum()) for order in st.orders(unit, SHUFFLES)]
    return figures(where, EACH, sums.sum() / total.sum(), estimator=estimator, source=SOURCE, bounds=(0, 1),
                   chance=predicted.sum(1).mean() / actual.shape[1], null=np.array(null), null_name=SHUFFLED, tail="t",
                   draws=(weights @ sums) / np.maximum(weights @ total, 1), n=int(total.sum()), units=len(total))  # fmt: skip
