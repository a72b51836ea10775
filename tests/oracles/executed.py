"""What a model's experts are really called with: their class's own forward, underneath every hook, says it."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

Calls = dict[str, list[tuple[torch.Tensor, torch.Tensor]]]
"""{path of the experts: (experts (T, k), weights (T, k)) of every call}"""


@contextmanager
def executed(model: nn.Module) -> Iterator[Calls]:
    """Collect what enters `forward(hidden, experts, weights)` of every module called experts while the block runs."""
    names = {id(m): name for name, m in model.named_modules() if name.rpartition(".")[2] == "experts"}
    calls: Calls = {}
    kinds = {type(m) for name, m in model.named_modules() if name.rpartition(".")[2] == "experts"}
    own = {kind: kind.forward for kind in kinds}
    try:
        for kind in kinds:
            kind.forward = _telling(own[kind], names, calls)  # type: ignore[method-assign]
        yield calls
    finally:
        for kind in kinds:
            kind.forward = own[kind]  # type: ignore[method-assign]


def _telling(forward: Any, names: dict[int, str], calls: Calls) -> Any:
    @functools.wraps(forward)
    def told(self: nn.Module, hidden: Any, experts: Any, weights: Any, *rest: Any, **more: Any) -> Any:
        if id(self) in names:
            calls.setdefault(names[id(self)], []).append((experts.detach().clone(), weights.detach().clone()))
        return forward(self, hidden, experts, weights, *rest, **more)

    return told


def rows(calls: Calls) -> list[tuple[str, int, int, float]]:
    """(path of the block, row, expert, weight) of every assignment of the one call of each, by path, row and expert."""
    found = []
    for path, ((experts, weights),) in calls.items():
        block = path.rpartition(".")[0]
        for row, (some, given) in enumerate(zip(experts.tolist(), weights.float().tolist())):
            found += [(block, row, e, w) for e, w in zip(some, given)]
    return sorted(found)
