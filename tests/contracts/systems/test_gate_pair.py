"""Gates that return numbers and weights: DiT-MoE, Diff-MoE, Switch-DiT, Uni-MoE, HiDream, twins of litgpt and torchtitan."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusion_systems import GroupedGate, LitGPTLike, System, TitanLike, hidream, inputs_of, own, seeded, stacked
from systems_checks import dense, executes, halved, moved, same_rows, stored_rows, without
from torch import Tensor, nn

import moescope
from moescope.contracts import find
from moescope.errors import UnknownContract
from moescope.models.zoo._parts_diffusion import denoise
from moescope.proof import observed

Rule = Callable[[Any, tuple[Any, ...]], tuple[Tensor, Tensor]]
"""(block, what it was called with) → experts and weights of its rows, by the published rule."""


def softmax_top2(weight: Callable[[Any], Tensor]) -> Rule:
    """Two largest of the softmax over all experts, as they are."""

    def rule(block: Any, args: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
        scores = torch.exp(args[0].reshape(-1, args[0].shape[-1]) @ weight(block).T)
        scores = scores / scores.sum(-1, keepdim=True)
        order = scores.argsort(-1, descending=True)[:, :2]
        return order, scores.gather(-1, order)

    return rule


def by_timestep(block: Any, args: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
    """Switch-DiT: of the timestep's embedding alone; one row for each image."""
    linear = block.gate.linear
    timed = args[1] * torch.sigmoid(args[1])
    scores = torch.softmax(8 * (timed @ linear.weight.T + linear.bias), -1)
    order = scores.argsort(-1, descending=True)[:, :2]
    return order, scores.gather(-1, order)


def as_many_as_needed(block: Any, args: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
    """Uni-MoE, token by token: the fewest of six dynamic experts whose softmax reaches 0.7, then two fixed ones."""
    experts, weights = [], []
    for row, real in zip(args[0].reshape(-1, args[0].shape[-1]), args[1].flatten().tolist()):
        logits = (block.router.linear.weight @ row).tolist()
        chances = torch.tensor(logits[:6]).softmax(0).tolist()
        order, shares, reached = sorted(range(6), key=lambda e: -logits[e]), {}, 0.0
        for place, expert in enumerate(order if real else []):
            best = logits[expert]
            near = [e for e in order[place:] if (best - logits[e]) / max(abs(logits[e]), abs(best)) <= 0.02]
            shares[expert] = 1 / sum(torch.tensor(logits[e] - best).exp().item() for e in near)
            reached += chances[expert]
            if reached >= 0.7:
                break
        whole = {e: torch.tensor(logits[e]).exp().item() for e in [*shares, 6, 7]}
        dealt = sum(whole[e] for e in shares) / sum(whole.values())
        found = {e: s / sum(shares.values()) * dealt for e, s in shares.items()}
        found |= {e: whole[e] / sum(whole.values()) for e in (6, 7)}
        experts.append([*found, *[-1] * (8 - len(found))])
        weights.append([*found.values(), *[0.0] * (8 - len(found))])
    return torch.tensor(experts), torch.tensor(weights)


def litgpt_rule(block: Any, args: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
    """Two largest sigmoids, divided by their sum."""
    scores = torch.sigmoid(args[0].reshape(-1, 8) @ block.gate.linear.weight.T)
    order = scores.argsort(-1, descending=True)[:, :2]
    kept = scores.gather(-1, order)
    return order, kept / kept.sum(-1, keepdim=True)


def titan_rule(block: Any, args: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
    """Two largest sigmoids."""
    scores = torch.sigmoid(args[0].reshape(-1, 8) @ block.router.gate.weight.T)
    order = scores.argsort(-1, descending=True)[:, :2]
    return order, scores.gather(-1, order)


gate_weight = softmax_top2(lambda block: block.gate.weight)
SYSTEMS: dict[str, tuple[Callable[[], System], Rule, tuple[int, str, str]]] = {
    "dit_moe": (lambda: own("dit_moe"), gate_weight, (2, "token", "ffn")),
    "diff_moe": (lambda: own("diff_moe"), gate_weight, (2, "token", "ffn")),
    "switch_dit": (lambda: own("switch_dit"), by_timestep, (3, "sequence", "ffn")),
    "uni_moe": (lambda: own("uni_moe"), as_many_as_needed, (2, "token", "ffn")),
    "hidream": (hidream, gate_weight, (2, "token", "double.ffn, single.ffn")),
    "litgpt": (lambda: stacked(seeded(LitGPTLike)), litgpt_rule, (1, "token", "ffn")),
    "torchtitan": (lambda: stacked(seeded(TitanLike)), titan_rule, (1, "token", "ffn")),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_sites(name: str) -> None:
    """Every routed layer, by this contract, with its unit and place."""
    make, _, (count, unit, place) = SYSTEMS[name]
    sites = find(make().model)
    assert [s.contract.name for s in sites] == ["gate_pair"] * count
    assert {s.unit for s in sites} == {unit}
    assert ", ".join(dict.fromkeys(s.block_type for s in sites)) == place


@pytest.mark.parametrize("name", SYSTEMS)
def test_stored_is_the_rule(name: str, tmp_path: Path) -> None:
    """What is stored of every row is what the published rule gives for the layer's own input."""
    make, rule, _ = SYSTEMS[name]
    system = make()
    stored = stored_rows(system, tmp_path / "run.duckdb")
    blocks = {s.path: s.name for s in find(system.model)}
    heard = inputs_of(system, *blocks.values())
    assert set(stored) == set(blocks)
    for router, rows in stored.items():
        expected = dense(*rule(system.model.get_submodule(blocks[router]), heard[blocks[router]][0]))
        real = [e for e, keep in zip(expected, kept(system, len(expected))) if keep]
        same_rows(rows, real)
    assert len({str(sorted(row)) for rows in stored.values() for row in rows}) > 3


def kept(system: System, rows: int) -> list[bool]:
    """Which rows are no padding."""
    mask = system.inputs.get("attention_mask")
    return [True] * rows if mask is None else mask.bool().flatten().tolist()


@pytest.mark.parametrize("edit", [moved, halved, without(0)], ids=["moved", "halved", "without 0"])
@pytest.mark.parametrize("name", SYSTEMS)
def test_other_decisions_are_executed(name: str, edit: Any) -> None:
    """The layer does what is written instead, and the listener says so."""
    executes(SYSTEMS[name][0](), edit)


def test_roles_of_uni_moe() -> None:
    """Numbers behind the routed experts: two null ones, two fixed ones."""
    assert find(own("uni_moe").model)[0].roles == {4: "null", 5: "null", 6: "shared", 7: "shared"}


def test_hidream_streams() -> None:
    """Double-stream rows are the 16 patches of each image; single-stream rows have its three texts of 3 behind them."""
    system = hidream()
    sites = find(system.model)
    with observed(sites) as calls:
        system()
    assert [len(calls[s.name][0].record.experts) for s in sites] == [2 * 16, 2 * (16 + 9)]
    assert all(calls[s.name][0].record.logits is not None for s in sites)


class InOrder(GroupedGate):
    """The same decision in another order and form, with logits of all four experts, a number and nothing among it."""

    def __init__(self, order: str, k: int = 2) -> None:
        super().__init__()
        self.order, self.k = order, k

    def forward(self, rows: Tensor) -> tuple[Any, ...]:
        logits = self.linear(rows)
        weights, numbers = logits.softmax(-1).topk(self.k)
        said = {"n": numbers, "i": numbers.int(), "w": weights, "l": logits, "0": torch.tensor(0.1), "-": None}
        return tuple(said[part] for part in self.order)


class AnyOrder(LitGPTLike):
    """A layer that knows what its gate returns where."""

    def forward(self, hidden: Tensor) -> Tensor:
        rows, order = hidden.reshape(-1, 8), self.gate.order  # type: ignore[union-attr]
        said = self.gate(rows)
        numbers, weights = said[order.replace("i", "n").index("n")], said[order.index("w")]
        made = torch.zeros_like(rows)
        for number, expert in enumerate(self.experts):
            token, slot = torch.where(numbers == number)
            made[token] += weights[token, slot, None] * expert(rows[token])
        return made.view_as(hidden)


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("order", ["nw", "wn", "iw", "nwl", "wnl", "lwn", "0nw-", "l0wi"])
def test_any_order(order: str, k: int) -> None:
    """Numbers and weights are found wherever they stand, also where all experts are chosen and logits have their shape."""
    system = stacked(seeded(lambda: AnyOrder(InOrder(order, k))))
    site = find(system.model)[0]
    executes(system, moved)
    with observed([site]) as calls:
        system()
    record = calls[site.name][0].record
    assert record.experts.shape == record.weights.shape == (15, k)
    assert (record.logits is not None) == ("l" in order)


def test_logits_that_look_like_the_weights_are_refused(tmp_path: Path) -> None:
    """All experts chosen, and logits nearer to the numbers than the weights: read wrongly, so the proof refuses it."""
    system = stacked(seeded(lambda: AnyOrder(InOrder("ln-w", 4))))
    with pytest.raises(moescope.errors.ProofFailed), moescope.Tracer(
        system.model, tmp_path / "run.duckdb", inputs=system.inputs
    ):  # fmt: skip
        pass


class Floats(GroupedGate):
    """A gate that returns no numbers."""

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        weights, numbers = super().forward(rows)
        return weights, numbers.float()


class FloatsLike(LitGPTLike):
    """A layer around it, right in itself."""

    def forward(self, hidden: Tensor) -> Tensor:
        rows = hidden.reshape(-1, 8)
        weights, numbers = self.gate(rows)
        parts = [(weights * (numbers == n)).sum(-1, keepdim=True) * expert(rows) for n, expert in enumerate(self.experts)]
        return sum(parts).view_as(hidden)  # type: ignore[union-attr]


class LateWeights(LitGPTLike):
    """A layer that multiplies by something else than what its gate returned."""

    def forward(self, hidden: Tensor) -> Tensor:
        return super().forward(hidden) * 1.5


BAD: dict[str, tuple[Callable[[], nn.Module], type[Exception], list[str]]] = {
    "no numbers": (
        lambda: FloatsLike(Floats()),
        UnknownContract,
        ["layers.0 (FloatsLike) decides by float32 (15, 2), float32 (15, 2)", "contract 'gate_pair'", "docs/plugin.md"],
    ),
    "other weights": (LateWeights, moescope.errors.ProofFailed, ["layers.0 does not follow from what would be stored"]),
    "logits only": (
        lambda: LitGPTLike(nn.Linear(8, 4)),
        UnknownContract,
        ["layers.0 (LitGPTLike) looks like a routed layer", "docs/plugin.md"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_fits_are_refused(case: str, tmp_path: Path) -> None:
    """One sentence that names the layer; nothing is written."""
    make, kind, words = BAD[case]
    system = stacked(seeded(make))
    with pytest.raises(kind) as caught, moescope.Tracer(system.model, tmp_path / "run.duckdb", inputs=system.inputs):
        pass
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["dit_moe", "diff_moe", "switch_dit"])
def test_denoising_steps(name: str, tmp_path: Path) -> None:
    """Each step of the sampling loop is a forward of its own."""
    system = own(name)
    inputs = dict(system.inputs)
    inputs.pop("timestep")
    with moescope.Tracer(system.model, tmp_path / "run.duckdb", inputs=system.inputs) as tracer:
        made = denoise(system.model, inputs.pop("hidden_states"), steps=3, **inputs)
    assert made.shape == system.inputs["hidden_states"].shape
    assert tracer.run is not None
    assert moescope.open(tmp_path / "run.duckdb").rows("select count(*) from forwards") == [(3,)]
