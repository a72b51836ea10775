"""Ask a router once more, from the random state that it drew from: with room for all it names the experts that had none.

A router that hands out what is left after capacity no longer says which experts the dropped tokens wanted.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ... import hooks
from ..base import Edit, Emit, Site
from .router_call import RouterCall

_drawn: WeakKeyDictionary[nn.Module, Tensor] = WeakKeyDictionary()


class Drawing(RouterCall):
    """A contract of routers in which chance has a part: each call's random state is kept, so that it can be asked again."""

    def draws(self, router: Any) -> bool:
        """Whether chance has a part in what the router wants, as it is set now."""
        raise NotImplementedError

    def listen(self, site: Site, emit: Emit) -> list[RemovableHandle]:
        """As every router; where it draws, with the random state that it drew from."""
        return [self._remember(site), *super().listen(site, emit)]

    def edit(self, site: Site, edit: Edit) -> list[RemovableHandle]:
        """As every router."""
        return [self._remember(site), *super().edit(site, edit)]

    def _remember(self, site: Site) -> RemovableHandle:
        router = site.router
        assert router is not None
        return remember(router, lambda: self.draws(router))


def remember(router: nn.Module, draws: Callable[[], bool]) -> hooks.Handle:
    """Keep the random state that each call of `router` begins with, where chance has a part in what it wants."""

    def keep(_: nn.Module, args: tuple[Any, ...]) -> None:
        if draws():
            _drawn[router] = _random(args[0])
        else:
            _drawn.pop(router, None)

    return hooks.before(router, keep, last=True)


@contextmanager
def again(router: nn.Module, like: Tensor) -> Iterator[None]:
    """Inside, without gradients, `router.forward` draws what it drew last; behind it the random state is as it was."""
    now = _random(like)
    if router in _drawn:
        _put(like, _drawn[router])
    try:
        with torch.no_grad():
            yield
    finally:
        _put(like, now)


@contextmanager
def settings(owner: Any, **values: Any) -> Iterator[None]:
    """Attributes of `owner` changed for a while."""
    before = {name: getattr(owner, name) for name in values}
    try:
        for name, value in values.items():
            setattr(owner, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)


def _random(like: Tensor) -> Tensor:
    return torch.cuda.get_rng_state(like.device) if like.is_cuda else torch.get_rng_state()


def _put(like: Tensor, state: Tensor) -> None:
    torch.cuda.set_rng_state(state, like.device) if like.is_cuda else torch.set_rng_state(state)
