"""Prove once per model object and configuration: a Tracer around every step of somebody's loop need not do it again.

What a proof shows is how a model's modules speak, not what its weights are; so it holds until a module, its forward, a hook, a
setting, a dtype or a device is another one.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from torch import nn

from ..contracts import Site
from ..hooks import Own
from ..weights import as_bytes
from .prove import Proof, prove

_SETTING = (bool, int, float, str, type(None), torch.dtype, torch.device)
_KEPT = 4  # configurations of one model that are remembered


@dataclass(frozen=True)
class _Known:
    """A proof: of what, and what was learnt of the sites, in their order."""

    modules: list[Any]  # weak references
    settings: int
    learnt: dict[str, tuple[int | None, str | None, bool]]  # top_k, score, repeats
    rows: Proof

    def fits(self, modules: list[nn.Module], settings: int) -> bool:
        return (
            settings == self.settings
            and len(modules) == len(self.modules)
            and all(there() is here for there, here in zip(self.modules, modules))
        )


_known: WeakKeyDictionary[nn.Module, list[_Known]] = WeakKeyDictionary()


def proved(model: nn.Module, sites: list[Site], inputs: Mapping[str, Any]) -> Proof:
    """As `prove`, from memory where nothing has changed since; `sites` are put in order and learn the same."""
    modules = list(model.modules())
    settings = hash(tuple(_settings(modules, sites, inputs)))
    for known in _known.get(model, []):
        if known.fits(modules, settings):
            return _again(known, sites)
    rows = prove(model, sites, inputs)
    learnt = {s.name: (s.top_k, s.score, s.repeats) for s in sites}
    known = _Known([ref(m) for m in modules], settings, learnt, rows)
    _known[model] = [known, *_known.get(model, [])[: _KEPT - 1]]
    return Proof(rows, rows.left_out)


def _again(known: _Known, sites: list[Site]) -> Proof:
    order = {name: place for place, name in enumerate(known.learnt)}
    sites.sort(key=lambda site: order[site.name])
    for site in sites:
        site.top_k, site.score, site.repeats = known.learnt[site.name]
    return Proof([replace(row) for row in known.rows], known.rows.left_out)


def _settings(modules: list[nn.Module], sites: list[Site], inputs: Mapping[str, Any]) -> Iterator[Any]:
    """Everything that a proof may depend on, hashable."""
    yield from ((site.name, site.contract.name, site.n_experts, site.kind) for site in sites)
    yield from ((name, _value(value)) for name, value in sorted(inputs.items()))
    yield torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")
    configs = {id(config): config for config in (vars(m).get("config") for m in modules) if config is not None}
    yield from (repr(_plain(config)) for config in configs.values())
    for module in modules:
        yield type(module), id(vars(module).get("forward"))
        yield from (n for hooks in (module._forward_hooks, module._forward_pre_hooks) for n, h in hooks.items() if not _own(h))
        yield from ((name, v) for name, v in vars(module).items() if isinstance(v, _SETTING) and name != "training")
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if tensor is not None:
                yield type(tensor), tensor.dtype, tensor.device, tensor.shape


def _own(hook: Any) -> bool:
    return isinstance(hook, Own)


def _plain(value: Any) -> Any:
    """A configuration's attributes, those of the configurations in it too."""
    held = getattr(value, "__dict__", None)
    return {name: _plain(inner) for name, inner in sorted(held.items())} if isinstance(held, dict) else value


def _value(value: Any) -> Any:
    """A value to compare an input by; for objects, which may change inside, one that equals no other."""
    if torch.is_tensor(value) and not value.is_meta:
        return value.shape, value.dtype, as_bytes(value.cpu()).numpy().tobytes()
    return value if isinstance(value, _SETTING) else object()
