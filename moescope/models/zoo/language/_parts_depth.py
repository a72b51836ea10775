"""What models that spend more or less depth on a token are made of: take places out of a stream, run them, put them back."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Route(NamedTuple):
    """What a depth router decides of N runs of a block, each (B, S, N); `capacity`: places of a sequence, where it is fixed.

    chosen: which runs a place takes part in. weights: what each run's result is multiplied by. logits: the router's own.
    """

    chosen: Tensor
    weights: Tensor
    logits: Tensor
    capacity: int | None = None


def top_places(scores: Tensor, alive: Tensor | None, count: int) -> Tensor:
    """(B, S) bool: the `count` places of each sequence with the largest scores (B, S), of those that are alive."""
    scores = scores if alive is None else scores.masked_fill(~alive, float("-inf"))
    chosen = torch.zeros_like(scores, dtype=torch.bool)
    chosen.scatter_(1, scores.topk(min(count, scores.shape[1]), dim=1).indices, True)
    return chosen if alive is None else chosen & alive


def taken(chosen: Tensor) -> Tensor:
    """(B, K) places of what is chosen (B, S), in order; -1 where a sequence has fewer than the fullest."""
    count = int(chosen.sum(1).max())
    order = torch.argsort((~chosen).to(torch.uint8), dim=1, stable=True)[:, :count]
    return torch.where(chosen.gather(1, order), order, -1)


def gathered(hidden: Tensor, index: Tensor) -> Tensor:
    """(B, K, ...) of (B, S, ...) at places (B, K); place 0 where there is none."""
    wide = index.clamp(min=0).reshape(*index.shape, *[1] * (hidden.dim() - 2)).expand(*index.shape, *hidden.shape[2:])
    return hidden.gather(1, wide)


def deepened(hidden: Tensor, route: Route, run: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """(B, S, H): each place plus the result of the last run that it takes part in; as it was, where it takes part in none.

    `run(index (B, K), state (B, S, H))` → (B, K, H) gives what the block makes of the places taken. The result of a run, times
    its weight, is the state that the next run begins with.
    """
    runs = torch.arange(route.chosen.shape[-1], device=hidden.device)
    last = torch.where(route.chosen, runs, -1).amax(-1)
    state, out = hidden, hidden
    for number in runs.tolist():
        index = taken(route.chosen[..., number])
        made = run(index, state) * gathered(route.weights[..., number], index)[..., None]
        row, slot = (index >= 0).nonzero(as_tuple=True)
        place, made = index[row, slot], made[row, slot]
        state = state.index_put((row, place), made)
        ends = last[row, place] == number
        out = out.index_put((row[ends], place[ends]), made[ends], accumulate=True)
    return out
