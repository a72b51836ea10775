"""The model must stay the one that was proved: a router that is replaced or added meanwhile would leave the trace silently."""

from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

from ...contracts import Site, find
from ...errors import ModelError


class Structure:
    """The modules on the way to every router, looked at before each forward; new modules are noticed as they are put in."""

    def __init__(self, model: nn.Module, sites: list[Site], routers: set[str]) -> None:
        self._model, self._routers = model, routers
        self._links = _links(model, sites)
        self._steps, self._modules = [link[:2] for link in self._links], [link[2] for link in self._links]
        self._inside = {id(module) for module in model.modules()}
        self._changed = False
        self._handle = register_module_module_registration_hook(self._registered)

    def _registered(self, module: nn.Module, _: str, __: Any) -> None:
        self._changed = self._changed or id(module) in self._inside

    def check(self) -> None:
        """ModelError if a module on the way to a router is another one now, or if the model has other routers than it had."""
        there: list[Any] = [owner.get(name) for owner, name in self._steps]
        if there != self._modules:  # all at once: this runs before every step
            changed = [link[3] for link in self._links if link[0].get(link[1]) is not link[2]]
            raise ModelError(
                f"{changed[0]} was replaced while the model is traced, so its routing would be missing from the run: end the "
                "Tracer first, and begin another one for the changed model"
            )
        if self._changed:
            self._changed = False
            if new := {site.name for site in find(self._model)} ^ self._routers:
                raise ModelError(
                    f"the routers of the model changed while it is traced ({min(new)}): end the Tracer first, and begin "
                    "another one for the changed model"
                )

    def close(self) -> None:
        """Look no longer."""
        self._handle.remove()


def _links(model: nn.Module, sites: list[Site]) -> list[tuple[dict[str, Any], str, nn.Module, str]]:
    """(children of a module, name of one, that one, its path): every step from the model to routers and experts, each once."""
    wanted = {id(m) for site in sites for m in (site.block, site.router, site.experts) if m is not None}
    found: dict[str, tuple[dict[str, Any], str, nn.Module, str]] = {}
    for path, module in model.named_modules():
        if id(module) in wanted:
            owner, steps = model, path.split(".") if path else []
            for number, name in enumerate(steps):
                here = ".".join(steps[: number + 1])
                child = owner._modules[name]
                assert child is not None
                found.setdefault(here, (owner._modules, name, child, here))
                owner = child
    return list(found.values())
