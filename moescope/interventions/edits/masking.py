"""Inside a router's forward: take experts out of the choice, or change how many are chosen.

A TorchFunctionMode sees each topk, argmax, max and sort over the experts and puts -inf in the columns of those that must not be
chosen. So the family's own bias, group limit, gather and renormalization follow as they are; weights of the others are not
inflated where the family does not renormalize. Groups see it too: in (T, groups, experts per group) the same experts are -inf.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ...contracts import Site
from ...errors import InputError, ModelError
from .selection import choices

_PICKS = {getattr(owner, name) for owner in (torch, torch.Tensor) for name in ("topk", "argmax", "max", "sort")}
_TOPK = {torch.topk, torch.Tensor.topk}
_DIM = {torch.max: None, torch.Tensor.max: None, torch.argmax: None, torch.Tensor.argmax: None}
LOGIT_MASKED = ("PhimoeTopKRouter",)  # its choice and its weights both come from thresholds on the logits


class Masked(TorchFunctionMode):
    """`mask`: (E,) or (T, E) bool, True where an expert must not be chosen."""

    def __init__(self, mask: Tensor, logits: bool = False) -> None:
        super().__init__()
        self.mask, self.logits, self.hits = mask, logits, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if self.logits:
            out = func(*args, **kwargs)
            return self.masked(out) if func is torch.nn.functional.linear else out
        if func in _PICKS and args and torch.is_tensor(args[0]) and _last(func, args, kwargs):
            args = (self.masked(args[0]), *args[1:])
        return func(*args, **kwargs)

    def masked(self, x: Tensor) -> Tensor:
        """`x` with -inf for the masked experts where its last axis, or its last two, are the experts."""
        width = self.mask.shape[-1]
        grouped = x.dim() == 3 and x.shape[-1] != width and x.shape[-2] * x.shape[-1] == width
        if not x.is_floating_point() or not (x.shape[-1] == width or grouped):
            return x
        mask = self.mask.to(x.device)
        if mask.dim() == 2:
            if mask.shape[0] * width != x.numel():
                raise InputError(
                    f"the edit names {mask.shape[0]} token places, but the router sees {x.numel() // width}: give it as many"
                )
            mask = mask.reshape(x.shape)
        elif grouped:
            mask = mask.view(x.shape[-2:])
        self.hits += 1
        return x.masked_fill(mask, float("-inf"))


class ProductKeys(Masked):
    """Doge: two lists of half keys; the expert of each candidate is known only after the first topk.

    A topk over (T, E) that follows no such list has the experts themselves as columns.
    """

    _candidates: Tensor | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func not in _TOPK:
            return func(*args, **kwargs)
        x = args[0]
        if x.dim() == 3:
            out = func(*args, **kwargs)
            (first, second), keys = out.indices, x.shape[-1]
            self._candidates = (first.unsqueeze(-1) * keys + second.unsqueeze(-2)).flatten(-2)
            return out
        mask = self.mask.to(x.device).expand(len(x), -1)
        mask = mask if self._candidates is None else mask.gather(-1, self._candidates)
        self.hits, self._candidates = self.hits + 1, None
        return func(x.masked_fill(mask, float("-inf")), *args[1:], **kwargs)


class Count(TorchFunctionMode):
    """Another number of experts: every topk of `old` out of the experts becomes one of `new`."""

    def __init__(self, width: int, old: int, new: int) -> None:
        super().__init__()
        self.width, self.old, self.new, self.hits = width, old, new, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in _TOPK and torch.is_tensor(args[0]) and args[0].shape[-1] == self.width:
            k = args[1] if len(args) > 1 else kwargs.pop("k")
            self.hits += 1
            args = (args[0], self.new if k == self.old or not self.old else k, *args[2:])
        return func(*args, **kwargs)


def under(
    site: Site,
    make: Callable[[], Any],
    old: Callable[..., Any],
    why: str,
    does: str = "choose by topk, argmax, max or sort over its experts",
) -> Callable[..., Any]:
    """`old` run under a fresh mode of `make`; ModelError if it never `does` what the mode waits for."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        with make() as mode:
            out = old(*args, **kwargs)
        if not mode.hits:
            raise ModelError(f"router {site.path} does not {does}, so {why}")
        return out

    return forward


def mask_of(site: Site, experts: list[int], tokens: Tensor | None) -> Tensor:
    """(E,) bool, or (T, E) where only some token places are meant."""
    mask = torch.zeros(choices(site), dtype=torch.bool)
    mask[experts] = True
    return mask if tokens is None else torch.as_tensor(tokens, dtype=torch.bool).reshape(-1, 1) & mask


def _last(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether the call works along the last axis (max and argmax without an axis do not)."""
    default = -1 if func not in _DIM else None
    place = 2 if func in _TOPK else 1
    dim = kwargs.get("dim", args[place] if len(args) > place else default)
    return isinstance(dim, int) and not isinstance(dim, bool) and dim in (-1, args[0].dim() - 1)
