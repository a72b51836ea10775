"""Two systems called MoELoRA. `rule="tokens"` (Luo et al. 2024, arXiv 2402.12851): on the queries and values, each token takes
the k LoRA experts with the largest softmax, renormalized; the contrastive loss between experts belongs to training. No
published code was found. `rule="tasks"` (Liu et al. 2023, MOELoRA, arXiv 2310.18339): one dense weight per task, softmax(W_T
E[task]) over experts, as `lora_gate` of the published mmoelora.py (liuqidong07/MOELoRA-peft); forward takes `task_ids` (B,),
and a decision is one of a whole sequence.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ._parts_adapters import Output, example_text, random_weights
from ._parts_mixtures import AdaptedLM, Context, Decision, LoraMixture, everyone, put_on

READS = "text"
TASKS = 5


class ByToken(LoraMixture):
    """Top-k of a token's softmax."""

    def __init__(self, base: nn.Linear, experts: int, context: Context, k: int = 2) -> None:
        super().__init__(base, experts, context)
        self.gate, self.k = nn.Linear(base.in_features, experts, bias=False), k
        self.mixture = {"experts": experts, "kind": "token_choice", "score": "softmax"}

    def route(self, hidden: Tensor) -> Decision:  # type: ignore[override]
        """(B·S, k)"""
        logits = self.gate(hidden).flatten(0, 1)
        weights, experts = logits.softmax(-1).topk(self.k, dim=-1)
        return Decision(experts, weights / weights.sum(-1, keepdim=True), logits)


class ByTask(LoraMixture):
    """A dense softmax of the task's embedding."""

    def __init__(self, base: nn.Linear, experts: int, context: Context) -> None:
        super().__init__(base, experts, context)
        self.lora_task_embedding = nn.Embedding(TASKS, 8)
        self.lora_gate = nn.Linear(8, experts, bias=False)
        self.mixture = {"experts": experts, "unit": "sequence", "score": "softmax"}

    def route(self, hidden: Tensor) -> Decision:  # type: ignore[override]
        """(B, E)"""
        logits = self.lora_gate(self.lora_task_embedding(self.context.tasks))
        weights = logits.softmax(-1)
        return Decision(everyone(weights), weights, logits)


class TaskLM(AdaptedLM):
    """Also takes tasks."""

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        task_ids: Tensor | None = None,
    ) -> Output:
        """As CausalLM's; `task_ids` (B,), task 0 where none are given."""
        self.context.tasks = input_ids.new_zeros(len(input_ids)) if task_ids is None else task_ids
        return super().forward(input_ids, attention_mask, labels)


def build(seed: int = 0, rule: str = "tokens", experts: int = 4, **sizes: Any) -> nn.Module:
    """Experts at the queries and values (`tokens`), or at every projection of the attention (`tasks`)."""
    torch.manual_seed(seed)
    if rule == "tokens":
        model = AdaptedLM("moe_lora", **sizes)
        put_on(model, r"self_attn\.[qv]_proj$", lambda base: ByToken(base, experts, model.context))
    else:
        model = TaskLM("moe_lora", **sizes)
        put_on(model, r"self_attn\.[qkvo]_proj$", lambda base: ByTask(base, experts, model.context))
    return random_weights(model)


def example(model: Any, batch: int = 3, places: int = 12, seed: int = 0) -> dict[str, Any]:
    """Random ids, and a task for each sequence where the model takes them."""
    tasks = {"task_ids": torch.arange(batch) % TASKS} if isinstance(model, TaskLM) else {}
    return example_text(model, batch, places, seed) | tasks
