"""An edit: what every one of them is, and `intervene`, which puts them on a live model and takes them off again."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...contracts import Site, find
from ...routers.engine_block import check_here
from .selection import chosen

Undo = Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class Edit:
    """Where an edit applies: `layers` (a number, several, None for all), `stack` (encoder, decoder ...) or one `router` path.

    `tokens`: bool, one per place that the router looks at (for text batch × length, padding included); None for all.
    """

    mode: ClassVar[str] = "none"
    layers: int | Sequence[int] | None = None
    stack: str | None = None
    router: str | None = None
    tokens: Tensor | None = None

    def where(self, sites: Sequence[Site]) -> list[Site]:
        """The routers it means. InputError if there is none."""
        return chosen(sites, self.layers, self.stack, self.router)

    def check(self, model: nn.Module, sites: Sequence[Site]) -> None:
        """InputError or ModelError if it cannot be done; changes nothing."""
        self.where(sites)

    def attach(self, model: nn.Module, sites: Sequence[Site]) -> list[Undo]:
        """Put it on; gives what takes it off."""
        return []

    def as_dict(self) -> dict[str, Any]:
        """For `runs.overrides`: the mode and what differs from the default."""
        said = {f.name: _plain(getattr(self, f.name)) for f in fields(self) if getattr(self, f.name) is not None}
        return {"mode": self.mode, **said}


@contextmanager
def intervene(model: nn.Module, *edits: Edit, sites: Sequence[Site] | None = None) -> Iterator[list[Site]]:
    """Run the block with `edits` on `model`, left to right; gives the routers. All off afterwards, also after an exception.

    Everything is checked first: on InputError or ModelError nothing was changed. Of nested blocks the inner one's edits come
    first. To trace under an edit, enter the Tracer first: it proves the model as it is, and records what is executed.
    """
    check_here(model, "intervene in it")
    here = list(sites) if sites is not None else find(model)
    for edit in edits:
        edit.check(model, here)
    undo: list[Undo] = []
    try:
        for edit in reversed(edits):  # what is attached last is executed first
            undo += edit.attach(model, here)
        yield here
    finally:
        for step in reversed(undo):
            step()


def overrides(*edits: Edit) -> dict[str, Any]:
    """What `runs.overrides` says of a run under these edits."""
    return {"interventions": [edit.as_dict() for edit in edits]}


def patched(owner: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Undo:
    """Replace the method `name` of one object by `make(old)`; the undo brings back exactly what was there."""
    had = name in vars(owner)
    old = getattr(owner, name)
    setattr(owner, name, make(old))

    def undo() -> None:
        if had:
            setattr(owner, name, old)
        else:
            delattr(owner, name)

    return undo


def _plain(value: Any) -> Any:
    if torch.is_tensor(value):
        return {"places": int(value.sum()), "of": value.numel()} if value.dtype == torch.bool else value.tolist()
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(v) for v in value]
    return value if isinstance(value, int | float | str | bool) else f"{type(value).__name__}"
