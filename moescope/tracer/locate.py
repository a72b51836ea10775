"""From a decision found in SQL back to the activation behind it: in the plain model, in nnsight, in TransformerLens."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..models.sources import unwrap
from ..routers.base import own_path
from ..store import Store
from ..weights import home


@dataclass(frozen=True)
class Place:
    """Where a decision was made: `router` of `layer` looked at `position` of a sequence of `ids` (1, T).

    `state` is the hidden state (H,) that the router saw, recomputed by running the ids once more (the tokens before it in its
    sequence are its context; beams and images have none to give).
    """

    layer: int
    router: str
    position: int
    ids: Tensor
    document: str | None

    @property
    def hook(self) -> str:
        """TransformerLens' name for what enters the routed block."""
        return f"blocks.{self.layer}.mlp.hook_in"

    def state(self, model: Any) -> Tensor:
        """(H,) what the router saw, from the plain model (or the one inside a bridge or an envoy)."""
        inner = unwrap(model)
        seen: list[Tensor] = []
        module = _router(inner, self.router)
        handle = module.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
        try:
            with torch.no_grad():
                inner(self.ids.to(home(inner)))
        finally:
            handle.remove()
        return seen[0].reshape(-1, seen[0].shape[-1])[self.position]

    def nnsight(self, model: Any) -> Tensor:
        """The same through an nnsight model's own trace: `with model.trace(place.ids): ....<router>.input`."""
        from nnsight import save

        envoy = model
        for name in self.router.split("."):
            envoy = envoy[int(name)] if name.isdigit() else getattr(envoy, name)
        with torch.no_grad(), model.trace(self.ids):
            state = save(envoy.input)
        return state.reshape(-1, state.shape[-1])[self.position]

    def transformer_lens(self, bridge: Any) -> Tensor:
        """The same from a TransformerBridge's cache, under `hook`."""
        with torch.no_grad():
            _, cache = bridge.run_with_cache(self.ids, names_filter=lambda name: name == self.hook)
        return cache[self.hook].reshape(-1, cache[self.hook].shape[-1])[self.position]


def locate(store: Store, token: int, layer: int) -> Place:
    """The place of `token` (tokens.token) in `layer`, from any query's answer.

    InputError when the store has no such token, the layer has no router for it, or the token's vocabulary ids were not stored.
    """
    found = store.rows(
        "select r.name, t.position, t.sequence, s.document from decisions d join routers r using (router) "
        "join tokens t using (token) join sequences s on s.sequence = t.sequence where d.token = ? and r.layer = ? limit 1",
        [token, layer],
    )
    if not found:
        layers = store.rows(
            "select distinct r.layer from decisions join routers r using (router) where token = ? order by 1", [token]
        )
        there = ", ".join(str(n) for (n,) in layers)
        raise InputError(
            f"token {token} has no decision in layer {layer}" + (f"; it has some in {there}" if there else ": no such token")
        )
    router, position, sequence, document = found[0]
    ids = store.rows(
        "select vocab_id from tokens t anti join (select token from token_labels where kind = 'draft') d using (token) "
        "where sequence = ? and position <= ? order by position",
        [sequence, position],
    )
    if any(i is None for (i,) in ids):
        raise InputError(f"token {token} is no text token, so there are no ids to run again; trace the image itself")
    return Place(layer, router, position, torch.tensor([[i for (i,) in ids]]), document)


def _router(model: Any, path: str) -> Any:
    """The module at a path that leaves out what was put in between: of several at one path the outermost."""
    names: dict[str, Any] = {}
    for name, module in model.named_modules():
        names.setdefault(own_path(name), module)
    return names[path]
