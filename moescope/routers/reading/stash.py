"""What an edit leaves for the listeners of the same module, where the layer's own tensors cannot carry it."""

from collections import OrderedDict
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

_stashed: WeakKeyDictionary[nn.Module, Tensor] = WeakKeyDictionary()


class Stash(RemovableHandle):
    """One tensor kept for `module`; removing the handle, with the edit's hooks, forgets it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(OrderedDict())
        self._module = module

    def put(self, tensor: Tensor) -> None:
        """Leave a tensor."""
        _stashed[self._module] = tensor

    def get(self) -> Tensor:
        """What was left last."""
        return _stashed[self._module]

    def remove(self) -> None:
        """Forget it."""
        _stashed.pop(self._module, None)


def stashed(module: nn.Module) -> Tensor | None:
    """What an edit left for `module`, None if nobody edits it."""
    return _stashed.get(module)


def ratio(new: Tensor, old: Tensor) -> Tensor:
    """new / old, 0 where old is 0: what an edit has to multiply by after the edits before it."""
    return torch.where(old == 0, 0, new / old)
