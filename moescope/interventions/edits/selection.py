"""Which routers, experts and tokens an edit means; everything asked for is checked before anything is changed."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...contracts import Site
from ...decisions import ANY_K
from ...errors import InputError
from ...routers.calls import bare
from ...words import numbers

EXPERTS = 1 << 16  # as many as the store can number
_K = ("top_k", "num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "moe_top_k")


def chosen(
    sites: Sequence[Site], layers: int | Iterable[int] | None = None, stack: str | None = None, router: str | None = None
) -> list[Site]:
    """The routers in these layers (None: all), of this stack, or of this path. InputError if one that is named is not there."""
    if router is not None:
        found = [s for s in sites if s.path == router]
        if not found:
            raise InputError(f"there is no router {router!r}: the routers are {_listed(s.path for s in sites)}")
        return found
    here = [s for s in sites if stack is None or s.stack == stack]
    if not here:
        raise InputError(f"there is no router in a stack {stack!r}: the stacks are {_listed(sorted({s.stack for s in sites}))}")
    if layers is None:
        return here
    wanted = [layers] if isinstance(layers, int) else list(layers)
    there = sorted({s.layer for s in here if s.layer is not None})
    if missing := [n for n in wanted if n not in there]:
        raise InputError(f"no router in layer {missing[0]}: the layers with a router are {_listed(there)}")
    return [s for s in here if s.layer in wanted]


def check_experts(sites: Sequence[Site], experts: Iterable[int]) -> list[int]:
    """The experts asked for, each once, in order. InputError if a router has no such expert, or none is named."""
    wanted = sorted(set(experts))
    if not wanted:
        raise InputError("no expert is named: give at least one expert number")
    for site in sites:
        limit = choices(site)
        if bad := [e for e in wanted if not 0 <= e < limit]:
            raise InputError(f"router {site.path} has no expert {bad[0]}: its experts are 0 to {limit - 1}")
    return wanted


def check_left(site: Site, masked: Iterable[int]) -> None:
    """InputError if fewer experts would remain than the router has to choose."""
    count = len(set(masked))
    left, k = choices(site) - count, top_k(site) or 1
    if left < k:
        raise InputError(
            f"router {site.path} chooses {k} of {choices(site)} experts, and masking {count} leaves {left}: leave at least {k}"
        )


def choices(site: Site) -> int:
    """What a router chooses among: routed experts, and identities or a skip where it has them."""
    return site.n_experts + site.special_experts


def top_k(site: Site) -> int | None:
    """Experts per decision, as far as the modules say it before a record was seen."""
    if site.top_k is not None and site.kind not in ANY_K:
        return site.top_k
    if site.contract.configured:
        config: Any = site.router.config  # type: ignore[union-attr]
        return int(config.num_selected_experts) if site.kind == "token_choice" else None
    for module in filter(None, (site.router, site.block, site.experts)):
        for name in _K:
            if isinstance(value := getattr(bare(module), name, None), int):
                return value
    return None


def parse(text: str) -> dict[tuple[str | None, int], list[int] | None]:
    """'3:5,7 decoder.4:0 5' as {(None, 3): [5, 7], ('decoder', 4): [0], (None, 5): None}; None means every expert.

    Places are separated by blanks or semicolons. InputError for anything else.
    """
    found: dict[tuple[str | None, int], list[int] | None] = {}
    for part in re.split(r"[;\s]+", text.strip()):
        match = re.fullmatch(r"(?:([a-z]+)\.)?([0-9]{1,9})(?::([0-9,-]+))?", part)
        if match is None:
            raise InputError(f"{part!r} names no experts: write LAYER:EXPERTS such as 3:5,7 or decoder.4:0-3")
        key, some = (match[1], int(match[2])), None if match[3] is None else numbers(match[3], EXPERTS, "experts")
        before = found.get(key, [])
        found[key] = None if some is None or before is None else sorted({*before, *some})
    return found


def rows(tokens: Tensor | None, count: int, like: Tensor) -> Tensor | None:
    """(count, 1) bool: rows that an edit means, on `like`'s device. InputError if the mask is of another size."""
    if tokens is None:
        return None
    flat = torch.as_tensor(tokens, dtype=torch.bool).reshape(-1)
    if len(flat) != count:
        raise InputError(f"the edit names {len(flat)} token places, but the router looks at {count}: give one bool per place")
    return flat.to(like.device)[:, None]


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(map(str, values))
