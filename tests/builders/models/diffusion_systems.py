"""Systems of the diffusion and multimodal kind, ready to run: the small models of our own, those of packages, tiny twins."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from moescope.models import zoo
from moescope.models.packages import diffusers as package


@dataclass
class System:
    """A model and the inputs of one forward."""

    model: nn.Module
    inputs: dict[str, Any]

    def __call__(self) -> Any:
        """One forward."""
        with torch.no_grad():
            return self.model(**self.inputs)


def own(name: str, *, trained: bool = False, **changes: Any) -> System:
    """A model of `moescope.models.zoo`."""
    module = zoo.system(name)
    model = module.build(**changes)
    inputs = module.example(model)
    return System(model.train(trained), inputs)


class Stack(nn.Module):
    """Hidden states (B, S, H) through layers with a residual."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, hidden_states: Tensor) -> Tensor:
        for layer in self.layers:
            hidden_states = hidden_states + layer(hidden_states)
        return hidden_states


def stacked(*layers: nn.Module) -> System:
    """Layers of 8 features on three sequences of five."""
    return System(Stack(*layers).eval(), {"hidden_states": torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))})


class GroupedGate(nn.Module):
    """As litgpt's GroupedTopkRouter: weights first, then numbers."""

    def __init__(self, experts: int = 4) -> None:
        super().__init__()
        self.linear = nn.Linear(8, experts, bias=False)

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        weights, numbers = self.linear(rows).sigmoid().topk(2)
        return weights / weights.sum(-1, keepdim=True), numbers


class LitGPTLike(nn.Module):
    """As litgpt's LLaMAMoE with that gate."""

    def __init__(self, gate: nn.Module | None = None) -> None:
        super().__init__()
        self.gate = gate or GroupedGate()
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.GELU()) for _ in range(4))

    def forward(self, hidden: Tensor) -> Tensor:
        rows = hidden.reshape(-1, 8)
        weights, numbers = self.gate(rows)[:2]
        made = torch.zeros_like(rows)
        for number, expert in enumerate(self.experts):
            token, slot = torch.where(numbers == number)
            made[token] += weights[token, slot, None] * expert(rows[token])
        return made.view_as(hidden)


class TitanRouter(nn.Module):
    """As torchtitan's router: scores (B, L, K), numbers (B, L, K), all scores (B, L, E)."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(8, 5, bias=False)

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scores = self.gate(hidden).sigmoid()
        return *scores.topk(2, sorted=False), scores


class TitanExperts(nn.Module):
    """As torchtitan's routed experts: rows, scores, numbers and counts in, the weighted sum out."""

    def __init__(self) -> None:
        super().__init__()
        self.w1, self.w2 = nn.Parameter(torch.randn(5, 8, 6) / 3), nn.Parameter(torch.randn(5, 6, 8) / 3)

    def forward(self, x: Tensor, scores: Tensor, numbers: Tensor, counts: Tensor) -> Tensor:
        rows, scores, numbers = x.reshape(-1, 8), scores.reshape(-1, scores.shape[-1]), numbers.reshape(-1, scores.shape[-1])
        order = numbers.flatten().argsort(stable=True)
        token, made = order // scores.shape[-1], []
        for number, part in enumerate(torch.split(token, counts.tolist())):
            made.append(torch.relu(rows[part] @ self.w1[number]) @ self.w2[number])
        weighed = torch.cat(made) * scores.flatten()[order, None]
        return torch.zeros_like(rows).index_add(0, token, weighed).view_as(x)


class TitanLike(nn.Module):
    """As torchtitan's MoE."""

    def __init__(self) -> None:
        super().__init__()
        self.router, self.routed_experts, self.shared_experts = TitanRouter(), TitanExperts(), nn.Linear(8, 8)

    def forward(self, hidden: Tensor) -> Tensor:
        scores, numbers, _ = self.router(hidden)
        counts = torch.bincount(numbers.flatten(), minlength=5)
        return self.routed_experts(hidden, scores, numbers, counts) + self.shared_experts(hidden)


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """The same weights each time."""
    torch.manual_seed(0)
    return make()


def inputs_of(system: System, *paths: str) -> Mapping[str, tuple[tuple[Any, ...], Any]]:
    """{path: (what the module at it was called with, what it gave)} in one forward, by hooks of this file alone."""
    heard: dict[str, tuple[tuple[Any, ...], Any]] = {}

    def hook(path: str) -> Callable[..., None]:
        def after(_: nn.Module, args: tuple[Any, ...], given: dict[str, Any], output: Any) -> None:
            heard[path] = (*args, *given.values()), output

        return after

    handles = [
        system.model.get_submodule(path).register_forward_hook(hook(path), with_kwargs=True) for path in dict.fromkeys(paths)
    ]
    try:
        system()
    finally:
        for handle in handles:
            handle.remove()
    return heard


class Multiway(nn.Module):
    """As torchscale's MultiwayNetwork."""

    def __init__(self, module: Callable[[], nn.Module], split: int) -> None:
        super().__init__()
        self.A, self.B, self.split_position, self.dim = module(), module(), split, 1

    def forward(self, x: Tensor) -> Tensor:
        if self.split_position == -1:
            return self.A(x)
        if self.split_position == 0:
            return self.B(x)
        first, second = torch.split(x, [self.split_position, x.shape[1] - self.split_position], dim=1)
        return torch.cat([self.A(first), self.B(second)], dim=1)


class MultiwayLayer(nn.Module):
    """A projection that is called attention's, and a feed-forward."""

    def __init__(self, split: int) -> None:
        super().__init__()
        self.self_attn = nn.ModuleDict({"q_proj": Multiway(lambda: nn.Linear(8, 6), split)})
        self.ffn = Multiway(lambda: nn.Sequential(nn.Linear(6, 8), nn.GELU()), split)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.ffn(self.self_attn["q_proj"](hidden))


def hidream(**settings: Any) -> System:
    """diffusers' HiDream."""
    return System(*package.hidream(**settings))


def nucleus(use_sigmoid: bool = False) -> System:
    """diffusers' NucleusMoE."""
    return System(*package.nucleus(use_sigmoid))


def cogvideox(**settings: Any) -> System:
    """diffusers' CogVideoX."""
    return System(*package.cogvideox(**settings))


wan = package.wan
