"""One forward of a proof: see what every site does, or make it do something else."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import torch
from torch import Tensor

from .. import hooks
from ..contracts import Call, Edit, Site

Run = Callable[[], Any]


@contextmanager
def observed(sites: list[Site]) -> Iterator[dict[str, list[Call]]]:
    """Collect what every site does while the block runs: {site name: its calls}, in the order in which they first fired."""
    calls: dict[str, list[Call]] = {site.name: [] for site in sites}
    handles = []
    for site in sites:
        records: list[Any] = []

        def keep(inputs: tuple[Any, ...], output: Tensor, site: Site = site, records: list[Any] = records) -> None:
            if records:
                if not calls[site.name]:
                    calls[site.name] = calls.pop(site.name)
                calls[site.name].append(Call(records.pop(), tuple(map(_kept, inputs)), output.detach().clone()))

        handles += site.contract.watch(site, keep)
        handles += site.contract.listen(site, records.append)  # later, so that it hears of a call before its output is seen
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _kept(value: Any) -> Any:
    """A tensor as it is now: layers may write into it afterwards (a residual that is added in place)."""
    return value.detach().clone() if torch.is_tensor(value) else value


@contextmanager
def edited(sites: list[Site], edit: Callable[[Site, int], Edit], *, last: bool = False) -> Iterator[None]:
    """Execute `edit(site, call number)(experts, weights)` instead of what the sites decide; `last`: behind all hooks."""
    handles = []
    for site in sites:
        handles += site.contract.edit(site, _numbered(site, edit))
    if last:
        hooks.stay_last(handles, all_of_them=True)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _numbered(site: Site, edit: Callable[[Site, int], Edit]) -> Edit:
    numbers = count()
    return lambda experts, weights: edit(site, next(numbers))(experts, weights)
