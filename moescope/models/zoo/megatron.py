"""A twin of Megatron-Core's mixture (NVIDIA/Megatron-LM d98e8a6, megatron/core/transformer/moe): its router says (T, E)
probabilities and a boolean map, for rows that are sequence-first, (S, B).

`topk_routing_with_score_function`: softmax before or after top-k, or sigmoid with a bias that selects and does not weigh and
weights divided by their sum; groups kept by the sum of their best k / groups_kept scores; a scale.
`apply_router_token_dropping`: capacity ceil(k T / E · factor) over the whole batch, kept by probability or by position (the
published code takes the first by `topk` over zeros and ones, whose ties fall as they fall; here they fall in order).
Probabilities multiply what an expert gives, or with `moe_apply_probs_on_input` what it takes. The residual is added to the
layer's output in place; `state_dict` holds a None.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ._parts_adapters import CausalLM, FeedForward, Output, causal, example_text, random_weights
from ._parts_megatron import SequentialMLP

READS = "text"
example = example_text


@dataclass
class Config:
    """Settings by Megatron's names."""

    num_moe_experts: int = 8
    moe_router_topk: int = 2
    moe_router_score_function: str = "softmax"
    moe_router_pre_softmax: bool = False
    moe_router_num_groups: int | None = None
    moe_router_group_topk: int | None = None
    moe_router_topk_scaling_factor: float | None = None
    moe_router_enable_expert_bias: bool = False
    moe_expert_capacity_factor: float | None = None
    moe_token_drop_policy: str = "probs"
    moe_apply_probs_on_input: bool = False
    moe_shared_expert_intermediate_size: int | None = None
    hidden_size: int = 32


class TopKRouter(nn.Module):
    """(S, B, H) → probabilities (T, E), 0 where not chosen, and the map (T, E) of what was."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config, self.topk, self.score_function = config, config.moe_router_topk, config.moe_router_score_function
        self.weight = nn.Parameter(torch.randn(config.num_moe_experts, config.hidden_size) / math.sqrt(config.hidden_size))
        bias = torch.randn(config.num_moe_experts) / 5 if config.moe_router_enable_expert_bias else None
        self.register_buffer("expert_bias", bias)

    def gating(self, hidden: Tensor) -> Tensor:
        """(S, B, E)"""
        return hidden @ self.weight.T

    def routing(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """(T, E) each, from (S, B, E)."""
        logits = logits.flatten(0, 1)
        weights, experts = self._chosen(logits)
        probs = torch.zeros_like(logits).scatter(1, experts, weights * (self.config.moe_router_topk_scaling_factor or 1.0))
        chosen = torch.zeros_like(logits, dtype=torch.bool).scatter(1, experts, True)
        if self.config.moe_expert_capacity_factor is not None:
            chosen = chosen & self._room(probs, chosen)
        return probs * chosen, chosen

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Gating, then routing."""
        return self.routing(self.gating(hidden))

    def _chosen(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        if self.score_function == "sigmoid":
            scores = logits.sigmoid()
            experts = self._best(scores if self.expert_bias is None else scores + self.expert_bias)
            weights = scores.gather(1, experts)
            return (weights / (weights.sum(-1, keepdim=True) + 1e-20) if self.topk > 1 else weights), experts
        scores = logits.softmax(-1) if self.config.moe_router_pre_softmax else logits
        experts = self._best(scores)
        weights = scores.gather(1, experts)
        return weights if self.config.moe_router_pre_softmax else weights.softmax(-1), experts

    def _best(self, scores: Tensor) -> Tensor:
        groups, kept = self.config.moe_router_num_groups, self.config.moe_router_group_topk
        if groups is not None and kept is not None:
            grouped = scores.unflatten(1, (groups, -1))
            best = grouped.topk(self.topk // kept, dim=-1).values.sum(-1).topk(kept, dim=-1).indices
            allowed = torch.zeros(grouped.shape[:2], dtype=torch.bool, device=scores.device).scatter(1, best, True)
            scores = grouped.masked_fill(~allowed[..., None], float("-inf")).flatten(1)
        return scores.topk(self.topk, dim=-1).indices

    def _room(self, probs: Tensor, chosen: Tensor) -> Tensor:
        assert self.config.moe_expert_capacity_factor is not None
        capacity = math.ceil(len(probs) * self.topk / probs.shape[1] * self.config.moe_expert_capacity_factor)
        if self.config.moe_token_drop_policy == "position":
            return chosen.cumsum(0) <= capacity
        first = probs.topk(min(capacity, len(probs)), dim=0).indices
        return torch.zeros_like(chosen).scatter(0, first, True)


class MoELayer(nn.Module):
    """(S, B, H) → (S, B, H), and no bias."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config, self.num_local_experts = config, config.num_moe_experts
        self.router, self.experts = (
            TopKRouter(config),
            SequentialMLP(config.num_moe_experts, config.hidden_size, config.moe_apply_probs_on_input),
        )
        width = config.moe_shared_expert_intermediate_size
        self.shared_experts = FeedForward(config.hidden_size, width) if width else None

    def forward(self, hidden: Tensor) -> tuple[Tensor, None]:
        """Every expert's rows in the order of the tokens, summed up by token."""
        probs, chosen = self.router(hidden)
        expert, token = chosen.T.nonzero(as_tuple=True)
        rows = hidden.flatten(0, 1)
        made, _ = self.experts(rows[token], chosen.sum(0), probs[token, expert])
        out = torch.zeros_like(rows).index_add(0, token, made).view_as(hidden)
        return (out if self.shared_experts is None else out + self.shared_experts(hidden)), None


class GPTModel(CausalLM):
    """Ids (B, S) outside, sequence-first within; the residual is added to each mixture's output in place."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None) -> Output:
        """As CausalLM's."""
        hidden = (self.embed(input_ids) + self.position.weight[: input_ids.shape[1]]).transpose(0, 1).contiguous()
        allowed = causal(input_ids, attention_mask)
        for layer in self.layers:
            part: Any = layer
            mixed = part.self_attn(part.attention_norm(hidden).transpose(0, 1), allowed).transpose(0, 1)
            hidden = hidden + mixed
            made, _ = part.mlp(part.ffn_norm(hidden))
            hidden = made.add_(hidden)
        return self.said(self.head(self.norm(hidden)).transpose(0, 1), labels)


def build(seed: int = 0, vocabulary: int = 512, **changes: Any) -> nn.Module:
    """Two layers of 8 experts; `changes`: of `Config`, by Megatron's names."""
    torch.manual_seed(seed)
    config = Config(**changes)
    return random_weights(GPTModel("megatron", 2, config.hidden_size, vocabulary, lambda _: MoELayer(config)))
