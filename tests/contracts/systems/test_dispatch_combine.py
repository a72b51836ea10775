"""Gates with buffers: LIMoE, GLaM, st-moe-pytorch, mixture-of-experts in one and two levels; each recounted in plain loops."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from zoo_text import Layered, Rows, caught, leaves, output_without, same, stored, traced

import moescope
from moescope.contracts import find
from moescope.errors import ProofFailed
from moescope.models.zoo.language import glam
from moescope.models.zoo.modalities import limoe

mixture_of_experts = pytest.importorskip("mixture_of_experts")
HeirarchicalMoE, MoE = mixture_of_experts.HeirarchicalMoE, mixture_of_experts.MoE
StMoE = pytest.importorskip("st_moe_pytorch").MoE
Choice = tuple[int, float]


def filled(choices: list[list[Choice]], capacity: int, order: list[int] | None = None) -> tuple[Rows, set[tuple[int, int]]]:
    """One group: the n-th choices of all tokens before the n+1-th, each expert up to its capacity; who has none is dropped."""
    taken: dict[int, int] = {}
    rows: Rows = {token: {} for token in range(len(choices))}
    dropped = set()
    for number in range(max(map(len, choices))):
        for token in order or range(len(choices)):
            if number < len(choices[token]) and choices[token][number][0] >= 0:
                expert, weight = choices[token][number]
                if taken.get(expert, 0) < capacity:
                    rows[token][expert] = weight
                else:
                    dropped.add((token, expert))
                taken[expert] = taken.get(expert, 0) + 1
    return rows, dropped


def entered(model: nn.Module, inputs: dict[str, Any], block: nn.Module) -> tuple[tuple[Any, ...], Any]:
    """What a block was called with, and gave; chance as of seed 0."""
    with caught(block) as calls, torch.no_grad():
        torch.manual_seed(0)
        model(**inputs)
    return calls[0][0]


def dropped_rows(store: Any, router: str) -> int:
    """How many choices had no place."""
    return int(
        store.rows(f"select count(*) from routing join routers using (router) where name = '{router}' and dropped")[0][0]
    )


def kept(store: Any, router: str, mask: Tensor | None = None) -> Rows:
    """What ran, without what was dropped."""
    rows = stored(store, router, mask)
    return {token: {e: w for e, w in experts.items() if w > 0} for token, experts in rows.items()}


def summed(rows: Rows, hidden: Tensor, expert: Callable[[int, Tensor], Tensor]) -> Tensor:
    """(T, H) Σ w f_e(x)"""
    out = torch.zeros_like(hidden)
    for token, experts in rows.items():
        for number, weight in experts.items():
            out[token] += weight * expert(number, hidden[token : token + 1])[0]
    return out


@pytest.mark.parametrize("capacity", [0.5, 1.0, 8.0])
def test_glam(capacity: float, tmp_path: Path) -> None:
    """Top-2 of each token, weights divided by their sum, a sequence's first choices before its second ones."""
    model: Any = glam.build(capacity=capacity)
    inputs = glam.example(model)
    inputs["attention_mask"][1, 9:] = 0
    block = model.layers[1].mixture
    (hidden, real), output = entered(model, inputs, block)
    expected: Rows = {}
    lost = 0
    for b in range(3):
        chances = (hidden[b] @ block.gate.linear.weight.detach().T).softmax(-1)
        best = [chances[p].sort(descending=True) for p in range(12)]
        choices = [
            [(int(i[n]) if real[b, p] else -1, float(v[n] / (v[0] + v[1]))) for n in (0, 1)] for p, (v, i) in enumerate(best)
        ]
        rows, dropped = filled(choices, max(1, math.ceil(2 * 12 * capacity / 8)))
        expected |= {b * 12 + p: experts for p, experts in rows.items()}
        lost += len(dropped)
    assert torch.allclose(
        output.flatten(0, 1), summed(expected, hidden.flatten(0, 1), lambda e, x: block.experts[e](x)), atol=1e-5
    )
    assert (lost == 0) == (capacity == 8.0)
    with traced(model, inputs, tmp_path / "a.duckdb") as store:
        mask = inputs["attention_mask"]
        same(kept(store, "layers.1.mixture.gate", mask), {t: e for t, e in expected.items() if mask.flatten()[t]})
        assert dropped_rows(store, "layers.1.mixture.gate") == lost
        assert [layer for (layer,) in store.rows("select layer from routers order by router")] == [1, 3]


@pytest.mark.parametrize("capacity", [0.5, 8.0])
def test_limoe(capacity: float, tmp_path: Path) -> None:
    """Top-1 over the whole batch, large probabilities first whatever their modality; patches and words are told apart."""
    model: Any = limoe.build(capacity=capacity)
    inputs = limoe.example(model)
    inputs["attention_mask"][1, -5:] = 0
    block = model.layers[1].mixture
    (hidden, real), output = entered(model, inputs, block)
    hidden, real = hidden[0], real[0]
    chances = (hidden @ block.gate.linear.weight.detach().T).softmax(-1)
    choices = [[(int(c.argmax()) if ok else -1, float(c.max()))] for c, ok in zip(chances, real)]
    order = sorted(range(84), key=lambda t: (-choices[t][0][1], t))
    rows, dropped = filled(choices, math.ceil(84 * capacity / 8), order)
    assert bool(dropped) == (capacity < 1)
    assert torch.allclose(output[0], summed(rows, hidden, lambda e, x: block.experts[e](x)), atol=1e-5)
    with traced(model, inputs, tmp_path / "a.duckdb") as store:
        same(kept(store, "layers.1.mixture.gate", inputs["attention_mask"]), {t: e for t, e in rows.items() if real[t]})
        assert dropped_rows(store, "layers.1.mixture.gate") == len(dropped)
        assert store.rows("select unit, count(*), max(y), max(x) from tokens group by 1 order by 1") == [
            ("image", 48, 3, 3),
            ("text", 31, None, None),
        ]
        assert store.rows("select distinct tokens, capacity from pools") == [(84, math.ceil(84 * capacity / 8))]


def test_limoe_entropies() -> None:
    """Local: the mean entropy of a token; global: what the entropy of the mean lacks; of each modality's own tokens."""
    model: Any = limoe.build(layers=2, at_least=8)
    inputs = limoe.example(model)
    inputs["attention_mask"][1, -5:] = 0
    with caught(model.layers[1].mixture.gate) as calls, torch.no_grad():
        losses = model(**inputs).losses
    chances = calls[0][0][1].probabilities.view(3, 28, 8)
    parts = {
        "image": chances[:, :16].flatten(0, 1),
        "text": torch.cat([chances[0, 16:], chances[1, 16:23], chances[2, 16:]]),
    }
    for modality, p in parts.items():
        local = sum(-float(v) * math.log(float(v)) for row in p for v in row) / len(p)
        whole = sum(-float(v) * math.log(float(v)) for v in p.mean(0))
        assert float(losses[f"local_{modality}"]) == pytest.approx(local, abs=1e-5)
        assert float(losses[f"global_{modality}"]) == pytest.approx(max(0.0, math.log(8) - whole), abs=1e-5)
    model.train()
    loss = model(**inputs, return_loss=True).loss
    loss.backward()
    assert model.layers[1].mixture.gate.linear.weight.grad.abs().sum() > 0


def second_by_chance(gate: Any, hidden: Tensor, package: str) -> list[list[Choice]]:
    """The two choices of one layer's tokens (B N), the second as chance of seed 0 has it."""
    torch.manual_seed(0)
    weight = gate.to_gates.weight.T if package == "st" else gate.w_gating
    chances = (hidden @ weight.detach()).softmax(-1)
    values, numbers = chances.sort(-1, descending=True)
    share = values[..., :2] / values[..., :2].sum(-1, keepdim=True)
    draw = torch.rand(*hidden.shape[:2], 2)[..., 1] if package == "st" else torch.rand(hidden.shape[:2])
    routed = draw < share[..., 1] / 0.2
    pairs = zip(numbers.flatten(0, 1).tolist(), share.flatten(0, 1).tolist(), routed.flatten().tolist())
    return [[(n[0], w[0]), (n[1] if go else -1, w[1])] for n, w, go in pairs]


@pytest.mark.parametrize("package", ["st", "moe"])
@pytest.mark.parametrize("factor", [1.0, 4.0])
def test_packages(package: str, factor: float, tmp_path: Path) -> None:
    """The packages' layers, whose second choice is made by chance in evaluation too: stored is what was drawn."""
    make = StMoE if package == "st" else MoE
    model: Any = Layered(lambda: make(16, num_experts=4, capacity_factor_eval=factor)).eval()
    inputs = {"input_ids": limoe.text_example(512, 3, 16, 1)["input_ids"]}
    block = model.layers[0]
    (hidden, *_), output = entered(model, inputs, block)
    choices = second_by_chance(block.gate, hidden, package)
    capacity = max(4, min(16, int(16 * factor / 4)))
    expected: Rows = {}
    for b in range(3):
        rows, _ = filled_as_published(choices[16 * b : 16 * b + 16], capacity)
        expected |= {16 * b + t: experts for t, experts in rows.items()}
    assert any(len(e) == 1 for e in expected.values())

    def expert(number: int, x: Tensor) -> Tensor:
        if package == "st":
            return block.experts.experts[number](x)
        return (x @ block.experts.w1[number]).relu() @ block.experts.w2[number]

    with torch.no_grad():
        assert torch.allclose(output[0].flatten(0, 1), summed(expected, hidden.flatten(0, 1), expert), atol=1e-5)
    with traced(model, inputs, tmp_path / "a.duckdb") as store:
        same(kept(store, "layers.0.gate"), expected)
        pools = store.rows("select distinct tokens, capacity from pools where router = 0")
        assert pools == [(16, capacity)]
    without = output_without(model, inputs, "layers.0.gate", 2)
    rest = {t: {e: w for e, w in experts.items() if e != 2} for t, experts in expected.items()}
    with torch.no_grad():
        assert torch.allclose(without.flatten(0, 1), summed(rest, hidden.flatten(0, 1), expert), atol=1e-5)


def filled_as_published(choices: list[list[Choice]], capacity: int) -> tuple[Rows, set[tuple[int, int]]]:
    """As in tensor2tensor: second choices stand behind the first ones that were kept, not behind all that were made."""
    rows: Rows = {t: {} for t in range(len(choices))}
    behind: dict[int, int] = {}
    dropped = set()
    for number in (0, 1):
        made: dict[int, int] = {}
        fit: dict[int, int] = {}
        for token, pair in enumerate(choices):
            expert, weight = pair[number]
            if expert < 0:
                continue
            if made.get(expert, 0) + behind.get(expert, 0) < capacity:
                rows[token][expert] = weight
                fit[expert] = fit.get(expert, 0) + 1
            else:
                dropped.add((token, expert))
            made[expert] = made.get(expert, 0) + 1
        behind = {e: behind.get(e, 0) + fit.get(e, 0) for e in {*behind, *fit}}
    return rows, dropped


def recounted(block: Any, hidden: Tensor) -> tuple[Rows, list[Rows]]:
    """Groups of each token, and in each group its experts: both of them where the group was its first choice by weight, else
    the better one alone, with the whole weight."""
    outer: Rows = {}
    inner: list[Rows] = [{}, {}, {}]
    for b, x in enumerate(hidden):
        values, numbers = (x @ block.gate_outer.w_gating.detach()).softmax(-1).sort(-1, descending=True)
        share = values[:, :2] / values[:, :2].sum(-1, keepdim=True)
        choices = [list(zip(n[:2], w)) for n, w in zip(numbers.tolist(), share.tolist())]
        rows, _ = filled_as_published(choices, 5)
        outer |= {15 * b + t: experts for t, experts in rows.items()}
        for group in range(3):
            there = [t for n in (0, 1) for t in range(15) if choices[t][n][0] == group and group in rows[t]]
            best = [(x[t] @ block.gate_inner.w_gating[group]).detach().softmax(-1).sort(descending=True) for t in there]
            pairs: list[list[Choice]] = [
                [(int(i[0]), float(v[0] / (v[0] + v[1]))), (int(i[1]), float(v[1] / (v[0] + v[1])))]
                if rows[t][group] > 0.5
                else [(-1, 0.0), (int(i[0]), 1.0)]
                for t, (v, i) in zip(there, best)
            ]
            found, _ = filled_as_published(pairs, 4) if pairs else ({}, None)
            inner[group] |= {15 * b + there[n]: experts for n, experts in found.items()}
    return outer, inner


def test_two_levels(tmp_path: Path) -> None:
    """Groups by the outer gate, experts in a group by the inner one, whose rows are the tokens that the group got."""
    make = lambda: HeirarchicalMoE(16, num_experts=(3, 4), second_policy_eval="all", capacity_factor_eval=1.0)  # noqa: E731
    model: Any = Layered(make).eval()
    inputs = {"input_ids": limoe.text_example(512, 2, 15, 1)["input_ids"]}
    block = model.layers[0]
    (hidden, *_), output = entered(model, inputs, block)
    with traced(model, inputs, tmp_path / "a.duckdb") as store:
        outer = kept(store, "layers.0.gate_outer")
        inner = [kept(store, f"layers.0.gate_inner.group{g}") for g in range(3)]
        leaf_weights = leaves(store, "layers.0.gate_outer")
    wanted, within = recounted(block, hidden)
    same(outer, wanted)
    for group in range(3):
        same(inner[group], within[group])
    for token, groups in wanted.items():
        due = {(g, e): w * v for g, w in groups.items() for e, v in within[g].get(token, {}).items()}
        assert leaf_weights.get(token, {}) == pytest.approx(due, abs=1e-5)
    parts = torch.zeros(3, 30, 16)
    with torch.no_grad():
        for group in range(3):
            for token, experts in within[group].items():
                x = hidden.flatten(0, 1)[token]
                made = [w * ((x @ block.experts.w1[group, e]).relu() @ block.experts.w2[group, e]) for e, w in experts.items()]
                parts[group, token] += wanted[token][group] * sum(made)
        assert torch.allclose(output[0].flatten(0, 1), parts.sum(0), atol=1e-5)
        without = output_without(model, inputs, "layers.0.gate_outer", 1)
        assert torch.allclose(without.flatten(0, 1), parts.sum(0) - parts[1], atol=1e-5)
    assert {(s.name, s.parent_site, s.parent_expert) for s in find(model) if s.layer == 0} == {
        ("layers.0.gate_outer", None, None),
        *((f"layers.0.gate_inner.group{g}", "layers.0.gate_outer", g) for g in range(3)),
    }


def test_tokens_moved_into_a_full_buffer() -> None:
    """All tokens written to one expert run there, more than its capacity holds: buffers grow."""
    from moescope.proof import edited

    model: Any = glam.build(capacity=0.5)
    inputs = glam.example(model)
    block = model.layers[1].mixture
    site = next(s for s in find(model) if s.name == "layers.1.mixture")
    one = lambda *_: lambda e, w: (torch.where(torch.arange(2) == 0, 5, -1).expand_as(e), torch.ones_like(w))  # noqa: E731
    with edited([site], one):
        (hidden, _), output = entered(model, inputs, block)
    with torch.no_grad():
        assert torch.allclose(output, block.experts[5](hidden), atol=1e-5)


def test_what_only_looks_so_is_refused(tmp_path: Path) -> None:
    """A layer that comes back with other weights than its gate said."""

    class Unweighed(MoE):
        def forward(self, inputs: Tensor, **kwargs: Any) -> Any:
            out, loss = super().forward(inputs, **kwargs)
            return out.sign(), loss

    model = Layered(lambda: Unweighed(16, num_experts=4)).eval()
    inputs = {"input_ids": limoe.text_example(512, 2, 8, 1)["input_ids"]}
    with pytest.raises(ProofFailed, match="does not follow"), moescope.Tracer(model, tmp_path / "a.duckdb", inputs=inputs):
        pass
    assert not (tmp_path / "a.duckdb").exists()
