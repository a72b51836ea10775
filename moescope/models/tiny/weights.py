"""Seeded weights for a tiny model: every parameter is drawn anew, so that nothing is left at zero, tied or uninitialised.

Families leave traps at random initialisation: gates at zero (every expert ties), expert stacks in uninitialised memory,
correction biases at zero (biased selection would never be exercised), lookup tables that send every token to expert 0.
"""

import torch

SPREAD = 0.2  # standard deviation of a matrix: at hidden size 32, normed states give router logits a spread near 1
NUDGE = 0.05  # standard deviation of biases, and of vectors around the family's own start: norms stay near 1


@torch.no_grad()
def refill(model: torch.nn.Module, seed: int) -> None:
    """Draw every parameter, correction bias and expert table of `model` in place, from one CPU generator."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2 or "bias" in name:
            parameter.add_(_normal(parameter, NUDGE, generator))
        else:
            parameter.copy_(_normal(parameter, SPREAD, generator))
    for name, buffer in model.named_buffers():
        if buffer.is_floating_point() and "bias" in name:
            buffer.copy_(_normal(buffer, NUDGE, generator))
        elif name.endswith("tid2eid"):
            _deal(buffer, model.get_submodule(name.rpartition(".")[0]).num_experts, generator)


def _normal(like: torch.Tensor, spread: float, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(like.shape, generator=generator).mul_(spread).to(like)


def _deal(table: torch.Tensor, experts: int, generator: torch.Generator) -> None:
    """Fill a table int64 [vocabulary, k] with k distinct experts for every vocabulary id."""
    shuffled = torch.rand(table.shape[0], experts, generator=generator).argsort(dim=-1)
    table.copy_(shuffled[:, : table.shape[1]])
