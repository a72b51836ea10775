"""mixlora 0.2 (Li et al. 2024, arXiv 2404.15159): Mixtral's rule over feed-forwards that share their base and have LoRAs of
their own.

`mlp.forward` is the method of an object that torch does not know as a part of the model: its gate is a plain tensor, its
experts are values of a dictionary, and the decision stands inside the forward. So the rule is applied to what the mlp took.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ...routers.base import Record, Site
from ._adapter_site import Inline


class MixLora(Inline):
    """An mlp that MixLoRA has taken over."""

    def find(self, name: str, module: nn.Module) -> Iterable[Site]:
        """A site for each."""
        moe: Any = getattr(getattr(module, "forward", None), "__self__", None)
        if type(moe).__name__ == "MixLoraSparseMoe" and moe is not module:
            yield Site(name, module, None, moe, self, moe.num_experts_, "token_choice", "output", shared=0, score="softmax")

    def read(self, site: Site, args: tuple[Any, ...], output: Any) -> Record:
        """(T, k) of the softmax, renormalized."""
        moe: Any = site.experts
        hidden = args[0].reshape(-1, args[0].shape[-1]).to(moe.dtype_)
        logits = torch.nn.functional.linear(hidden, moe.gate_.to(hidden))
        weights, experts = logits.softmax(1, dtype=moe.dtype_).topk(moe.topk_, dim=-1)
        return Record(site, experts, weights / weights.sum(-1, keepdim=True), logits)

    def part(self, site: Site, number: int, inputs: tuple[Any, ...]) -> Tensor:
        """One expert on all tokens."""
        moe: Any = site.experts
        hidden = inputs[0].reshape(-1, inputs[0].shape[-1])
        chosen = torch.zeros(site.n_experts, moe.topk_, len(hidden), dtype=torch.long, device=hidden.device)
        chosen[number, 0] = 1
        made = moe.forward_fn_(chosen, hidden.to(moe.dtype_), inputs[0].dtype)[number]
        return made.view(*inputs[0].shape[:-1], -1)  # type: ignore[no-any-return]


way = MixLora()
