"""What an expert writes: which tokens does its update make likelier, and are they the tokens that come?

An expert's update of a token is its routing weight times its output, as it is added to the residual stream.
* peak of the mean update: an expert's mean update through the gain of the final norm and the unembedding gives a value for
  every token of the vocabulary, its dictionary entry (the "semantic dictionary" of arXiv 2604.14434, there of rank-1 experts,
  whose output has one direction); the largest one in standard deviations from their mean. Null: random directions through the
  same gain and unembedding. Those tokens, and the ones made least likely, are kept with it. The categories by which that
  paper calls an expert monosemantic could not be read, and are left out.
* direct attribution to the next token: update times the final norm, held as it was at that token, times the unembedding row of
  the token that really came, less the mean row (logits; direct logit attribution as in the code of arXiv 2604.02178,
  causal.py). Null: the next tokens of the expert's other tokens in the same document, signs of the documents' gains over them
  flipped; so that writing the document's topic at every token does not count as writing this one. Of each expert, and of all
of a router. Updates work through later layers, too: what is attributed here is the direct path alone.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from ... import statistics as st
from ...analyses._shared.answer import figures, gather
from ...contracts import Call, Site
from ...routers.contribution import contribution, runs
from ...words import Count, Some
from ..data import Batch, Batches
from ._setting import Found, Setting
from ._unembedding import Unembedding, unembedding

ANALYSIS = "writes"
PEAK, DIRECT = "peak of the mean update (z)", "direct attribution to the next token (logits)"
RANDOM = "random directions through the same norm and unembedding"
OTHERS = "next tokens of the expert's other tokens in the document, signs of documents flipped"
DICTIONARY, DLA = "2604.14434, semantic dictionary", "direct logit attribution, code of 2604.02178"
GROUPS, DIRECTIONS, FLIPS, KEPT = 10, 499, 4999, 10


@dataclass
class Sums:
    """Of one router: `update` (groups, E, H) and `count` (groups, E); `gains` (documents, E, 3): own, others, tokens."""

    update: Tensor
    count: Tensor
    gains: np.ndarray
    best: list[list[tuple[float, int]]]  # by expert: attribution and token key of the tokens that it wrote most for


def run(here: Setting, layers: str | int | None = None, tokens: Count = 4096, seed: Some = 0) -> Found:
    """Of the decoder's routers in `layers`, over the first documents that hold about so many `tokens`."""
    batches, sites = here.batches(), here.routers(layers)
    first = next(iter(batches))
    out, final = unembedding(here.model, lambda: here.calls(first, []))
    sums: dict[str, Sums] = {}
    seen = 0
    with final:
        for batch in here.each(batches):
            _, calls = here.calls(batch, sites)
            for site in sites:
                _add(sums, site, calls[site.name], batch, batches, final.states, out)
            seen += int((batch.scored >= 0).sum())
            if seen >= tokens:
                break
    made = [_figures(here, site, sums[site.path], out, seed) for site in sites if site.path in sums]
    more = [extra for _, extras in made for extra in extras]
    return Found(gather([frame for frames, _ in made for frame in frames], family=()), more)


def _add(
    sums: dict[str, Sums], site: Site, calls: list[Call], batch: Batch, batches: Batches, final: Tensor, out: Unembedding
) -> None:
    """One batch: what each expert wrote at the places that have a next token."""
    documents = batches.document_of
    rows, places = np.nonzero(batch.scored >= 0)
    width = batch.inputs["input_ids"].shape[1]
    at = torch.from_numpy(rows * width + places)
    key = batch.read[rows, places]
    document = documents[0][key - batches.first_token]
    target = batch.targets[rows, places]
    wanted = out.weight[target.to(out.weight.device)] - out.weight.mean(0)
    states = final.reshape(-1, final.shape[-1])[at]
    for call in calls[:1]:
        for expert in range(site.n_experts):
            ran = runs(call, expert)[at]
            if not bool(ran.any()):
                continue
            update = contribution(call, expert)[at][ran]
            mine = sums.setdefault(site.path, _empty(site, update.shape[-1], len(documents[1])))
            hit = ran.cpu().numpy()
            group = torch.from_numpy(document[hit] % GROUPS).to(update.device)
            mine.update[:, expert].index_add_(0, group.cpu(), update.float().cpu())
            mine.count[:, expert] += torch.bincount(group.cpu(), minlength=GROUPS)
            _direct(mine, expert, out.scaled(update, states[hit]), wanted[hit], document[hit], key[hit])


def _empty(site: Site, width: int, documents: int) -> Sums:
    experts = site.n_experts
    return Sums(torch.zeros(GROUPS, experts, width), torch.zeros(GROUPS, experts), np.zeros((documents, experts, 3)),
                [[] for _ in range(experts)])  # fmt: skip


def _direct(mine: Sums, expert: int, scaled: Tensor, wanted: Tensor, document: np.ndarray, key: np.ndarray) -> None:
    """Attribution to the token that came, and to those that came after the expert's other tokens of the document."""
    for number in np.unique(document):
        here = torch.from_numpy(np.flatnonzero(document == number)).to(scaled.device)
        each = (scaled[here] @ wanted[here].T).double().cpu().numpy()
        own = np.diag(each)
        mine.best[expert] = sorted([*mine.best[expert], *zip(own.tolist(), key[document == number].tolist())])[-3:]
        if len(own) > 1:
            others = (each.sum(1) - own) / (len(own) - 1)
            mine.gains[number, expert] += own.sum(), others.sum(), len(own)


def _figures(
    here: Setting, site: Site, sums: Sums, out: Unembedding, seed: int
) -> tuple[list[pd.DataFrame], list[dict[str, Any]]]:
    where, documents = here.where(site), int((sums.gains[:, :, 2].sum(1) > 0).sum())
    null = _peaks(
        out.direction(torch.randn(DIRECTIONS, sums.update.shape[-1], generator=torch.Generator().manual_seed(seed))), out
    )
    frames, extras = [], []
    for expert in range(site.n_experts):
        total = sums.count[:, expert].sum()
        if total >= 2:
            peak, low, high, said = _entry(here, sums, expert, out)
            row = figures(where | {"expert": expert}, PEAK, peak, source=DICTIONARY, chance=np.nan, null=null,
                          null_name=RANDOM, n=int(total), units=documents)  # fmt: skip
            frames.append(row.assign(ci_low=low, ci_high=high))
            extras.append(said)
        if (gain := sums.gains[:, expert])[:, 2].sum():
            frames.append(_attribution(where | {"expert": expert}, gain))
            extras.append({"tokens": [[value, token] for value, token in reversed(sums.best[expert])]})
    if sums.gains[:, :, 2].sum():
        frames.append(_attribution(where, sums.gains.sum(1)))
        extras.append({})
    return frames, extras


def _attribution(where: dict[str, Any], gain: np.ndarray) -> pd.DataFrame:
    """`gain` (documents, 3): own, others, tokens."""
    own, others, n = gain[gain[:, 2] > 0].T
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (FLIPS, len(n)))
    weights = st.bootstrap_weights(len(n))
    return figures(where, DIRECT, own.sum() / n.sum(), source=DLA, chance=0.0, null_name=OTHERS, n=int(n.sum()), units=len(n),
                   null=(others.sum() + signs @ (own - others)) / n.sum(),
                   draws=(weights @ own) / np.maximum(weights @ n, 1))  # fmt: skip


def _peaks(directions: Tensor, out: Unembedding) -> np.ndarray:
    """(n,) largest value over the vocabulary, in standard deviations from their mean."""
    found = []
    for part in directions.split(64):
        logits = part.to(out.weight.device) @ out.weight.T
        found.append(((logits.amax(-1) - logits.mean(-1)) / logits.std(-1).clamp(min=1e-30)).cpu().numpy())
    return np.concatenate(found).astype(float)


def _entry(here: Setting, sums: Sums, expert: int, out: Unembedding) -> tuple[float, float, float, dict[str, Any]]:
    """Peak, its interval (groups of documents left out in turn, the token held), and the dictionary entry."""
    update, count = sums.update[:, expert], sums.count[:, expert]
    logits = _logits(update.sum(0) / count.sum(), out)
    top = int(logits.argmax())
    used = torch.nonzero(count)[:, 0].tolist()
    left = [float(_logits((update.sum(0) - update[g]) / (count.sum() - count[g]).clamp(min=1), out)[top]) for g in used]
    n = len(used)
    low = high = np.nan
    if n >= st.MIN_UNITS:
        wide = float(stats.t.isf(0.025, n - 1) * np.sqrt((n - 1) / n * np.sum((np.array(left) - np.mean(left)) ** 2)))
        low, high = float(logits[top]) - wide, float(logits[top]) + wide
    order = logits.argsort(descending=True)
    said = {"promotes": _texts(here, order[:KEPT]), "suppresses": _texts(here, order[-KEPT:].flip(0))}
    return float(logits[top]), low, high, said


def _logits(mean: Tensor, out: Unembedding) -> Tensor:
    """(V,) values of a mean update, centred, in standard deviations."""
    logits = out.weight @ out.direction(mean[None])[0].to(out.weight.device)
    return (logits - logits.mean()) / logits.std().clamp(min=1e-30)


def _texts(here: Setting, ids: Tensor) -> list[str]:
    tokenizer = here.loaded.tokenizer
    return [str(i) if tokenizer is None else tokenizer.decode([i]) for i in ids.tolist()]
