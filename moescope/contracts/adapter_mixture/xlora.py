"""PEFT's X-LoRA (Buehler and Buehler 2024, arXiv 2402.07148; peft 0.21, tuners/xlora): one classifier says the adapters'
weights for every token and every adapted projection, from hidden states of a first pass in which the adapters have a fixed
weight.

A site is a LoRA projection whose forward is `XLoraLinearLayer.forward`; its decision is what `get_maybe_topk_scalings`
returns, and what the first pass asks of it (`scalings` that are not the classifier's) is no decision. The weight multiplies
the input.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ...routers.base import Edit, Emit, Record, Site
from ...routers.reading.wrapped_method import after_method
from ._adapter_site import AdapterSite, everyone, place_of

_METHOD = "get_maybe_topk_scalings"


class XLora(AdapterSite):
    """Linear projections; X-LoRA on embeddings and convolutions is not traced."""

    def find(self, name: str, module: nn.Module) -> Iterable[Site]:
        """A site for each projection that X-LoRA has taken over."""
        layer: Any = getattr(getattr(module, "forward", None), "__self__", None)
        if type(layer).__name__ != "XLoraLinearLayer" or not hasattr(layer, _METHOD):
            return
        names = [n for n in layer.target.active_adapters if n in layer.target.lora_A]
        kind = "dense" if layer.config.top_k_lora is None else "token_choice"
        site = Site(name, module, None, None, self, len(names), kind, "input", place=place_of(name), shared=0)
        site.expert_names, site.score = dict(enumerate(names)), "softmax" if layer.config.enable_softmax else None
        site.rule = {"global_scaling_weight": layer.config.global_scaling_weight}
        yield site

    def listen(self, site: Site, emit: Emit) -> list[RemovableHandle]:
        """What the method returns for the classifier's weights, behind all edits."""

        def after(args: tuple[Any, ...], output: Any) -> Any:
            if _real(site, args):
                emit(self.read(site, args, output))
            return output

        return [after_method(_layer(site), _METHOD, after, last=True)]

    def edit(self, site: Site, edit: Edit) -> list[RemovableHandle]:
        """Return other weights."""

        def change(args: tuple[Any, ...], output: Any) -> Any:
            if not _real(site, args):
                return output
            record = self.read(site, args, output)
            return self.write(site, args, output, *edit(record.experts, record.weights))

        return [after_method(_layer(site), _METHOD, change, last=False)]

    def read(self, site: Site, args: tuple[Any, ...], output: Any) -> Record:
        """(B·S, adapters), or the k that have a weight."""
        weights = output.reshape(-1, output.shape[-1])
        layer = _layer(site)
        said = args[0][:, :, layer.layer_number, :].reshape(-1, output.shape[-1])
        logits = said.log() if layer.config.enable_softmax else None  # softmax of these are the classifier's weights
        if layer.config.top_k_lora is None:
            return Record(site, everyone(weights), weights, logits)
        experts = weights.abs().topk(min(layer.config.top_k_lora, weights.shape[-1]), dim=-1).indices
        given = weights.gather(-1, experts)
        return Record(site, experts.masked_fill(given == 0, -1), given, logits)

    def write(self, site: Site, args: tuple[Any, ...], output: Any, experts: Tensor, weights: Tensor) -> Any:
        """(B, S, adapters)"""
        dense = torch.zeros_like(output).reshape(-1, output.shape[-1])
        return dense.scatter_add(1, experts.clamp(min=0), weights.masked_fill(experts < 0, 0).to(dense.dtype)).view_as(output)

    def part(self, site: Site, number: int, inputs: tuple[Any, ...]) -> Tensor:
        """One LoRA, scaled."""
        layer, hidden = _layer(site), inputs[0]
        target, name = layer.target, site.expert_names[number]
        low, up = target.lora_A[name], target.lora_B[name]
        made = up.forward(low.forward(hidden.to(low.weight.dtype)))
        return made * target.scaling[name] * layer.config.global_scaling_weight  # type: ignore[no-any-return]

    def rest(self, site: Site, inputs: tuple[Any, ...]) -> Tensor:
        """The projection without adapters."""
        return _layer(site).target.base_layer.forward(inputs[0])  # type: ignore[no-any-return]


def _layer(site: Site) -> Any:
    forward: Any = site.block.forward
    return forward.__self__


def _real(site: Site, args: tuple[Any, ...]) -> bool:
    """Whether weights are those that the classifier gave for this forward."""
    return args[0] is getattr(_layer(site).model, "internal_xlora_scalings", None)


way = XLora()
