"""MoCLE (Gou et al. 2023, arXiv 2312.12379): the instruction's cluster chooses one LoRA expert, and a universal one takes the
rest.

G = softmax(W C[cluster] / τ), e = argmax G, y = W0 x + G_e LoRA_e(x) + (1 - G_e) LoRA_universal(x) (from memory of the paper;
the noise on the logits belongs to training). Clusters are k-means centres of sentence embeddings; here the nearest of fixed
random centres to the mean token embedding. A decision is one of a sequence. The published code was not at hand.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ._parts_adapters import example_text, random_weights
from ._parts_mixtures import AdaptedLM, Context, Decision, LoraMixture, put_on

READS = "text"
CLUSTERS = 6
example = example_text


class MoCLE(LoraMixture):
    """One Linear; expert number `experts` is the universal one."""

    def __init__(self, base: nn.Linear, experts: int, context: Context, temperature: float = 0.5) -> None:
        super().__init__(base, experts + 1, context)
        self.cluster_embedding, self.gate = nn.Embedding(CLUSTERS, 8), nn.Linear(8, experts, bias=False)
        self.temperature = temperature
        self.mixture = {"experts": experts, "kind": "token_choice", "unit": "sequence", "roles": {experts: "shared"}}
        self.mixture["names"] = {experts: "universal"}

    def route(self, hidden: Tensor) -> Decision:  # type: ignore[override]
        """(B, 2): the cluster's expert, the universal one."""
        logits = self.gate(self.cluster_embedding(self.context.clusters)) / self.temperature
        best, expert = logits.softmax(-1).max(-1)
        universal = torch.full_like(expert, len(self.adapters) - 1)
        return Decision(torch.stack((expert, universal), -1), torch.stack((best, 1 - best), -1))


class ClusteredLM(AdaptedLM):
    """Says which cluster each sequence is of."""

    def __init__(self, name: str, **sizes: Any) -> None:
        super().__init__(name, **sizes)
        self.register_buffer("centres", torch.randn(CLUSTERS, self.config.hidden_size) / 3)

    def about(self, input_ids: Tensor, attention_mask: Tensor | None) -> None:
        """The centre that is nearest to the mean of the tokens' embeddings."""
        super().about(input_ids, attention_mask)
        mask = self.context.mask[..., None]
        mean = (self.embed(input_ids) * mask).sum(1) / mask.sum(1).clamp(min=1)
        self.context.clusters = torch.cdist(mean, self.centres).argmin(-1)


def build(seed: int = 0, experts: int = 4, **sizes: Any) -> nn.Module:
    """Experts at queries, values and the feed-forward's `down_proj`."""
    torch.manual_seed(seed)
    model = ClusteredLM("mocle", **sizes)
    put_on(model, r"self_attn\.[qv]_proj$|mlp\.down_proj$", lambda base: MoCLE(base, experts, model.context))
    return random_weights(model)
