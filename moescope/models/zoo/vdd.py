"""VDD (Zhou and others 2024, arXiv 2406.12538): a mixture of Gaussians over actions, of which one component acts at each
step.

Read from `vdd/networks/gating.py` and `vdd/networks/moes.py` of github.com/intuitive-robots/vdd (GatingNet, GaussianMoE.act):
the gate is a softmax of a residual MLP over the observation, the action is the mean of the component with the largest
probability (greedy) or of one that is drawn; the means of all components come from one network. Here one observation instead
of a window of them behind a Transformer, and diagonal Gaussians whose spread does not depend on the observation.
"""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from ._parts_text import seeded

READS = "other"


class ResidualMLP(nn.Module):
    """(.., I) → (.., O)."""

    def __init__(self, width: int, hidden: int, out: int, layers: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(width, hidden), nn.Linear(hidden, out)
        self.layers = nn.ModuleList(nn.Sequential(nn.Mish(), nn.Linear(hidden, hidden)) for _ in range(layers))

    def forward(self, rows: Tensor) -> Tensor:
        """Each row on its own."""
        rows = self.first(rows)
        for layer in self.layers:
            rows = rows + layer(rows)
        return self.last(rows)


class GaussianMixture(nn.Module):
    """Observations (.., D) → actions (.., A)."""

    kind = "sampled"

    def __init__(self, observation: int, action: int, components: int, hidden: int, greedy: bool) -> None:
        super().__init__()
        self.components, self.greedy = components, greedy
        self.gate = ResidualMLP(observation, hidden, components, 2)
        self.means = ResidualMLP(observation, hidden, components * action, 1)
        self.log_deviations = nn.Parameter(torch.zeros(components, action))

    def route(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities (.., K), and the component that acts (..), by the largest or drawn."""
        chances = self.gate(observation).softmax(-1)
        if self.greedy:
            return chances, chances.argmax(-1)
        drawn = torch.multinomial(chances.flatten(0, -2), 1)
        return chances, drawn.view(chances.shape[:-1])

    def component(self, number: int, observation: Tensor) -> Tensor:
        """(.., A) what one component would do."""
        return self.means(observation).unflatten(-1, (self.components, -1))[..., number, :]

    def forward(self, observation: Tensor) -> Tensor:
        """The mean of the component that acts; nothing where none does (-1)."""
        _, acts = self.route(observation)
        means = self.means(observation).unflatten(-1, (self.components, -1))
        picked = means.gather(-2, acts.clamp(min=0)[..., None, None].expand(*acts.shape, 1, means.shape[-1]))
        return picked.squeeze(-2) * (acts >= 0)[..., None]

    def log_density(self, observation: Tensor, action: Tensor) -> Tensor:
        """(..) of actions (.., A) under the whole mixture; what training maximizes."""
        means = self.means(observation).unflatten(-1, (self.components, -1))
        each = torch.distributions.Normal(means, self.log_deviations.exp()).log_prob(action[..., None, :]).sum(-1)
        return (each + self.gate(observation).log_softmax(-1)).logsumexp(-1)


class VDD(nn.Module):
    """A policy: observations (B, steps, D) → an object with `action` (B, steps, A)."""

    def __init__(self, policy: GaussianMixture) -> None:
        super().__init__()
        self.config, self.policy = SimpleNamespace(model_type="vdd"), policy

    def forward(self, observations: Tensor) -> SimpleNamespace:
        """Every step on its own."""
        return SimpleNamespace(action=self.policy(observations))


def build(seed: int = 0, *, observation: int = 10, action: int = 3, components: int = 4, hidden: int = 32,
          greedy: bool = True) -> VDD:  # fmt: skip
    """A tiny one."""
    return seeded(lambda: VDD(GaussianMixture(observation, action, components, hidden, greedy)), seed)


def example(model: VDD, batch: int = 3, places: int = 12, seed: int = 0) -> dict[str, Any]:
    """Observations of `batch` episodes of `places` steps."""
    random = torch.Generator().manual_seed(seed)
    return {"observations": 3 * torch.randn(batch, places, model.policy.gate.first.in_features, generator=random)}
