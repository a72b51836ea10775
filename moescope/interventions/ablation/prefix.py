"""Do not compute twice what an edit cannot touch: modules called before the edited block answer with what they gave before.

The model runs as always, but every layer before the edited one, and inside that layer everything called before the routed block
(norms, attention), gives back its output of the baseline pass. What is computed are the same operations on the same numbers;
`fits` shows that the result is bit-identical for the model at hand, and who uses it falls back to the plain way otherwise.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...contracts import Site
from ...proof import tensors
from ..edits.base import patched


class Prefix:
    """Outputs of one baseline pass, by module; `resume(site)` makes later passes begin at that site's block."""

    def __init__(self, model: nn.Module, sites: Sequence[Site]) -> None:
        self.model = model
        self._names = dict(model.named_modules())
        self._units = {id(m): m for site in sites for m in self._candidates(site)}
        self._order: list[int] = []
        self._begun: list[int] = []
        self._outputs: dict[int, Any] = {}

    def run(self, inputs: Mapping[str, Any]) -> Any:
        """The baseline pass, remembered in place of the last one."""
        self._order, self._begun, self._outputs = [], [], {}
        handles = []
        for module in self._units.values():
            handles.append(module.register_forward_pre_hook(lambda m, _: self._begun.append(id(m))))
            handles.append(module.register_forward_hook(self._keep))
        try:
            with torch.no_grad():
                return self.model(**inputs)
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def resume(self, sites: Sequence[Site]) -> Iterator[None]:
        """Within the block, what ran before the first of these sites' blocks is not run again."""
        skipped = self._before(sites)
        undo = [patched(module, "forward", self._answer(module)) for module in skipped]
        try:
            yield
        finally:
            for step in reversed(undo):
                step()

    def fits(self, inputs: Mapping[str, Any], sites: Sequence[Site]) -> bool:
        """Whether resuming at each of the sites gives the baseline's output bit for bit; after `run` on the same inputs."""
        with torch.no_grad():
            plain = _result(self.model(**inputs))
            for site in sites:
                with self.resume([site]):
                    try:
                        resumed = _result(self.model(**inputs))
                    except Exception:
                        return False
                if not torch.equal(plain, resumed):
                    return False
        return True

    def _answer(self, module: nn.Module) -> Callable[[Any], Callable[..., Any]]:
        output = self._outputs[id(module)]
        return lambda _: lambda *args, **kwargs: _copied(output)

    def _candidates(self, site: Site) -> list[nn.Module]:
        """All layers of the lists that lie on the way to the block, and the children of its own layer."""
        parts = site.name.split(".")
        found: list[nn.Module] = []
        for end in range(1, len(parts) + 1):
            module = self._names[".".join(parts[:end])]
            inside = isinstance(module, nn.ModuleList) or end < len(parts)
            if inside and (isinstance(module, nn.ModuleList) or self._in_layer(parts[:end])):
                found += [child for child in module.children() if not isinstance(child, nn.ModuleList)]
        return found

    def _in_layer(self, parts: list[str]) -> bool:
        return any(isinstance(self._names[".".join(parts[:end])], nn.ModuleList) for end in range(1, len(parts)))

    def _keep(self, module: nn.Module, _: Any, output: Any) -> None:
        self._order.append(id(module))
        self._outputs[id(module)] = output

    def _before(self, sites: Sequence[Site]) -> list[nn.Module]:
        """Modules that had ended before the first of the blocks began, called once, and not inside another such one."""
        blocks = {id(m) for site in sites for m in self._above(site)}
        first = min((n for n, key in enumerate(self._begun) if key in blocks and self._is_last(key, blocks)), default=0)
        early = [key for key in self._begun[:first] if key not in blocks]
        once = {key for key in early if self._begun.count(key) == 1 and key in self._outputs}
        return [self._units[key] for key in once]

    def _is_last(self, key: int, blocks: set[int]) -> bool:
        """Whether a module on the way to a block has no other such module below it: the block itself, or its nearest holder."""
        below = {id(m) for m in self._units[key].modules()} - {key}
        return not below & blocks

    def _above(self, site: Site) -> list[nn.Module]:
        """The block and the modules around it, as far as they are watched."""
        parts = site.name.split(".")
        around = [self._names[".".join(parts[:end])] for end in range(1, len(parts) + 1)]
        return [m for m in around if id(m) in self._units]


def _result(output: Any) -> Tensor:
    """What is compared: logits, or whatever tensor comes first."""
    logits = getattr(output, "logits", None)
    return logits if torch.is_tensor(logits) else tensors(output)[0]


def _copied(output: Any) -> Any:
    """The same output in tensors of its own, so that nobody changes what is kept."""
    if isinstance(output, Tensor):
        return output.clone()
    if isinstance(output, tuple) and not hasattr(output, "_fields"):
        return tuple(_copied(part) for part in output)
    if isinstance(output, list):
        return [_copied(part) for part in output]
    return output
