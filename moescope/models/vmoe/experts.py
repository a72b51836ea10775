"""The experts of one layer: they execute a Routing and decide nothing."""

import torch
from torch import nn

from .initial import normal_, xavier_uniform_
from .routing import AnyRouting, Assignments, SoftSlots


class Experts(nn.Module):
    """E two-layer perceptrons with gelu (tanh form), their parameters fused on a leading expert axis.

    `bfloat16` rounds what goes into and comes out of experts, while weights stay float32 (Bfloat16Dispatcher in
    vmoe/moe.py). Soft routing always rounds.
    """

    def __init__(self, hidden: int, mlp_dim: int, experts: int, dropout: float = 0.0, split: bool = True) -> None:
        """`split` False: all experts begin with the same parameters (`split_rngs` of the authors)."""
        super().__init__()
        self.num_experts, self.bfloat16 = experts, False
        self.up_proj = nn.Parameter(xavier_uniform_(torch.empty(experts, hidden, mlp_dim), hidden, mlp_dim))
        self.up_proj_bias = nn.Parameter(normal_(torch.empty(experts, mlp_dim), 1e-6))
        self.down_proj = nn.Parameter(xavier_uniform_(torch.empty(experts, mlp_dim, hidden), mlp_dim, hidden))
        self.down_proj_bias = nn.Parameter(normal_(torch.empty(experts, hidden), 1e-6))
        self.dropout = nn.Dropout(dropout)
        if not split:
            with torch.no_grad():
                for parameter in self.parameters():
                    parameter.copy_(parameter[:1].expand_as(parameter))

    def expert(self, number: int, tokens: torch.Tensor) -> torch.Tensor:
        """What one expert makes of tokens (n, hidden)."""
        inner = torch.addmm(self.up_proj_bias[number], tokens, self.up_proj[number])
        inner = self.dropout(nn.functional.gelu(inner, approximate="tanh"))
        return self.dropout(torch.addmm(self.down_proj_bias[number], inner, self.down_proj[number]))

    def forward(self, tokens: torch.Tensor, routing: AnyRouting) -> torch.Tensor:
        """(G, S, hidden): for each token the weighted sum of its executed experts; exactly 0 where there is none."""
        if isinstance(routing, SoftSlots):
            return self._mix(tokens, routing)
        return self._execute(tokens.flatten(0, 1), routing.assignments()).view_as(tokens)

    def _execute(self, tokens: torch.Tensor, assigned: Assignments) -> torch.Tensor:
        inputs, order = self._round(tokens), torch.argsort(assigned.experts, stable=True)
        counts = torch.bincount(assigned.experts, minlength=self.num_experts).tolist()
        outputs = torch.zeros_like(tokens)
        for number, mine in enumerate(order.split(counts)):
            where = assigned.tokens[mine]
            made = self._round(self.expert(number, inputs[where]))
            outputs.index_add_(0, where, made * assigned.weights[mine].unsqueeze(-1))
        return outputs

    def _mix(self, tokens: torch.Tensor, routing: SoftSlots) -> torch.Tensor:
        slots = torch.einsum("gsep,gsh->egph", routing.dispatch, _bfloat16(tokens))
        made = [self.expert(number, slots[number].flatten(0, 1)) for number in range(self.num_experts)]
        return torch.einsum("gsep,egph->gsh", routing.combine, _bfloat16(torch.stack(made)).view_as(slots))

    def _round(self, x: torch.Tensor) -> torch.Tensor:
        return _bfloat16(x) if self.bfloat16 else x


def _bfloat16(x: torch.Tensor) -> torch.Tensor:
    return x.to(torch.bfloat16).to(x.dtype)
