"""How alike the experts of a router are before it has seen a token: cosines of their weights, taken when a trace attaches.

`router_weight_cosine`: of the rows of the router's matrix (E, d), which decide who is chosen (Look-into-MoEs, 2406.18219);
`expert_weight_cosine`: of the experts' own parameters, of at most SAMPLE of them at equal steps. Rows of `measures`: a pair per
row with `expert` the smaller number and extra {"other": the larger}; every pair up to ALL experts, above that the NEAREST of
each expert, above MOST experts nothing. The row without an expert is the mean over all pairs.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...contracts import Site
from ...weights import dense, weights
from ...words import listed

ALL, MOST, NEAREST = 64, 256, 8
SAMPLE = 1 << 14  # parameters of an expert


def cosines(rows: np.ndarray) -> np.ndarray:
    """(E, E) cosines of (E, d) rows; 0 where a row is zero."""
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = np.divide(rows, norm, out=np.zeros_like(rows), where=norm > 0)
    return unit @ unit.T


def likeness(sites: Iterable[Site]) -> list[dict[str, Any]]:
    """The rows alone, see `compared`."""
    return compared(sites)[0]


def compared(sites: Iterable[Site]) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of the table `measures`, for the routers whose weights could be read; and a sentence on those that could not."""
    rows: list[dict[str, Any]] = []
    unread: dict[str, list[str]] = {}
    for site in sites:
        if 2 <= site.n_experts <= MOST:
            for name, read in (("router_weight_cosine", router_rows), ("expert_weight_cosine", expert_rows)):
                try:
                    found = read(site)
                except Unread:
                    unread.setdefault(name.partition("_")[0], []).append(site.path)
                    continue
                if found is not None and np.isfinite(found).all():
                    rows += _rows(site, name, found)
    return rows, [_said(kind, paths) for kind, paths in unread.items()]


class Unread(Exception):
    """A weight whose numbers are not at hand."""


def _said(kind: str, paths: list[str]) -> str:
    return f"{listed(paths)}: {kind} weights could not be read as the numbers that take part, so their cosines are left out"


def _rows(site: Site, name: str, weights: np.ndarray) -> list[dict[str, Any]]:
    table, common = cosines(weights), {"router": site.key, "layer": site.layer, "name": name}
    common["n"] = weights.shape[1]
    first, second = np.triu_indices(len(table), 1)
    mean = common | {"estimator": "mean over pairs", "value": float(table[first, second].mean())}
    if len(table) > ALL:
        near = np.argsort(table - 2 * np.eye(len(table)), axis=1)[:, -NEAREST:]
        pairs = {(min(e, o), max(e, o)) for e, others in enumerate(near.tolist()) for o in others}
        first, second = np.array(sorted(pairs)).T
    found = zip(first.tolist(), second.tolist(), table[first, second].tolist())
    return [mean, *(common | {"expert": e, "estimator": "pair", "value": v, "extra": {"other": o}} for e, o, v in found)]


@torch.no_grad()
def router_rows(site: Site) -> np.ndarray | None:
    """(E, d) of the router's one matrix with a row (or column) per expert; None where there is none, or several."""
    if site.router is None:
        return None
    found = [p for p in _readable(site.router) if p.dim() == 2 and site.n_experts in p.shape and min(p.shape) > 1]
    if len(found) != 1:
        return None
    matrix = found[0] if found[0].shape[0] == site.n_experts else found[0].T
    return _numbers(matrix)


@torch.no_grad()
def expert_rows(site: Site) -> np.ndarray | None:
    """(E, n) of the experts' parameters: one tensor of all experts per matrix, or one module per expert; None otherwise."""
    if site.experts is None:
        return None
    modules = [m for m in site.experts.children() if any(True for _ in weights(m))]
    if len(modules) == site.n_experts and len({_shapes(m) for m in modules}) == 1:
        return np.stack([_sampled([p.reshape(1, -1) for p in _readable(m)])[0] for m in modules])
    tensors = [p.flatten(1) for p in _readable(site.experts) if p.dim() >= 2 and p.shape[0] == site.n_experts]
    return _sampled(tensors) if tensors else None


def _readable(module: nn.Module) -> list[Tensor]:
    """The module's weights as dense numbers.

    Unread if one of them is not at hand, for cosines of the others would mislead, and where the forward changes them (an
    adapter, a parametrization).
    """
    if any("base_layer" in m._modules or "parametrizations" in m._modules for m in module.modules()):
        raise Unread
    found = [dense(weight) for _, weight in weights(module)]
    if any(numbers is None for numbers in found):
        raise Unread
    return [numbers for numbers in found if numbers is not None]


def _shapes(module: nn.Module) -> tuple[Any, ...]:
    return tuple(tuple(weight.shape) for _, weight in weights(module))


def _sampled(tensors: list[Tensor]) -> np.ndarray:
    """(rows, at most about SAMPLE): columns of all tensors at equal steps."""
    step = max(1, -(-sum(t.shape[1] for t in tensors) // SAMPLE))
    return np.concatenate([_numbers(t[:, ::step]) for t in tensors], axis=1)


def _numbers(tensor: Tensor) -> np.ndarray:
    return tensor.detach().to("cpu", torch.float64).numpy()
