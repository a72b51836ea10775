"""Dense mixtures, trees and selectors: proved, stored as an independent count has it, edited, and refused."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from zoo_text import Rows, caught, leaves, output_without, same, stored, traced

import moescope
from moescope.contracts import find
from moescope.errors import ProofFailed
from moescope.models.zoo.denoisers import moee
from moescope.models.zoo.language import dselect_k, evomoe, hierarchical, moe1991, shazeer
from moescope.models.zoo.language._parts_dense import Mixture

HierarchicalMixtureOfExperts = pytest.importorskip("neural_trees").HierarchicalMixtureOfExperts
ALL = moe1991, hierarchical, shazeer, dselect_k, evomoe


def given(zoo: ModuleType, padded: int = 4) -> tuple[Any, dict[str, Tensor]]:
    """A model, and ids of which the second row ends early."""
    model = zoo.build()
    inputs = zoo.example(model, seed=1)
    inputs["attention_mask"][1, 12 - padded :] = 0
    return model, inputs


def entered(model: nn.Module, inputs: dict[str, Any], *blocks: nn.Module) -> list[Tensor]:
    """(T, H) what each block was called with, noise as of seed 0."""
    with caught(*blocks) as calls, torch.no_grad():
        torch.manual_seed(0)
        model(**inputs)
    return [seen[0][0][0].reshape(-1, seen[0][0][0].shape[-1]) for seen in calls]


def rows(weights: Tensor, mask: Tensor) -> Rows:
    """The experts whose weight is not 0, of the tokens that are no padding."""
    real = mask.flatten().nonzero()[:, 0].tolist()
    return {t: {e: float(w) for e, w in enumerate(weights[t]) if w != 0} for t in real}


def linear(layer: Any, hidden: Tensor) -> Tensor:
    """W x + b"""
    made = hidden @ layer.weight.detach().T
    return made if layer.bias is None else made + layer.bias.detach()


def smooth(value: float) -> float:
    """The smooth step of width 1."""
    return 0.0 if value <= -0.5 else 1.0 if value >= 0.5 else -2 * value**3 + 1.5 * value + 0.5


def selected(gate: Any, hidden: Tensor) -> Tensor:
    """(T, E) a selector's weights, bit by bit."""
    codes = linear(gate.linear, hidden)
    weights = torch.ones(len(hidden), 8)
    for token in range(len(hidden)):
        for expert in range(8):
            for bit, text in enumerate(f"{expert:03b}"):
                step = smooth(float(codes[token, bit]))
                weights[token, expert] *= step if text == "1" else 1 - step
    return weights


def executed(zoo: ModuleType, block: Any, hidden: Tensor) -> Tensor:
    """(T, E) the weights of a block's own gate, by the paper; `hidden` is of the first block that draws."""
    gate = block.gate
    if zoo is shazeer:
        torch.manual_seed(0)
        drawn = linear(gate.clean, hidden) + torch.randn(len(hidden), 8) * softplus(linear(gate.spread, hidden))
        bound = drawn.sort(-1).values[:, -2:-1]
        kept = torch.where(drawn >= bound, drawn.exp(), 0.0)
        return kept / kept.sum(-1, keepdim=True)
    if zoo is evomoe:
        torch.manual_seed(0)
        noise = -torch.empty(len(hidden), 8).exponential_().log()
        weights = ((linear(gate.linear, hidden).log_softmax(-1) + noise) / 0.5).exp()
        weights = weights / weights.sum(-1, keepdim=True)
        return torch.where(weights > 0.02, weights, 0.0)
    raised = linear(gate.linear, hidden).exp()
    return raised / raised.sum(-1, keepdim=True)


@pytest.mark.parametrize("zoo", ALL)
def test_stored_is_what_the_rule_gives(zoo: ModuleType, tmp_path: Path) -> None:
    """Weights of every expert by the paper's formula, and the layer's output is their sum."""
    model, inputs = given(zoo)
    block = model.layers[0].ffn
    (hidden,) = entered(model, inputs, block)
    weights = executed(zoo, block, hidden)
    with traced(model, inputs, tmp_path / "a.duckdb") as store:
        same(stored(store, "layers.0.ffn.gate", inputs["attention_mask"]), rows(weights, inputs["attention_mask"]))
        kind = {shazeer: "token_choice", moe1991: "dense", evomoe: "dense"}.get(zoo, "tree")
        assert store.rows("select distinct kind, contract from routers") == [(kind, "dense")]
    with torch.no_grad():
        due = sum(weights[:, e, None] * expert(hidden) for e, expert in enumerate(block.experts))
        torch.manual_seed(0)
        assert torch.allclose(block(hidden), due, atol=1e-5)


@pytest.mark.parametrize("zoo", ALL)
def test_an_expert_that_is_taken_away(zoo: ModuleType) -> None:
    """Weights of 0 for an expert take its share out of the layer's output, and no other."""
    model, inputs = given(zoo, padded=0)
    block = model.layers[0].ffn
    (hidden,) = entered(model, inputs, block)
    weights = executed(zoo, block, hidden)
    without = output_without(model, inputs, "layers.0.ffn.gate", 1).flatten(0, 1)
    with torch.no_grad():
        due = sum(weights[:, e, None] * expert(hidden) for e, expert in enumerate(block.experts) if e != 1)
    assert bool((weights[:, 1] != 0).any())
    assert torch.allclose(without, due, atol=1e-5)


def test_a_tree_knows_its_parents(tmp_path: Path) -> None:
    """A leaf's weight is the product of the weights on its path, and the output follows from these products."""
    model = hierarchical.build(depth=3, layers=1)
    inputs = hierarchical.example(model)
    sites = {site.name: site for site in find(model)}
    root = "layers.0.ffn"
    assert {n: (s.parent_site, s.parent_expert, s.block_type) for n, s in sites.items() if n.count("experts") < 2} == {
        root: (None, None, "ffn"),
        f"{root}.experts.0": (root, 0, "ffn.0"),
        f"{root}.experts.1": (root, 1, "ffn.1"),
    }
    assert {(s.parent_site, s.parent_expert) for n, s in sites.items() if n.count("experts") == 2} == {
        (f"{root}.experts.{i}", j) for i in (0, 1) for j in (0, 1)
    }
    (hidden,) = entered(model, inputs, model.layers[0].ffn)
    with traced(model, inputs, tmp_path / "a.duckdb") as store:
        said = {name: stored(store, f"{name}.gate") for name in sites}
        leaf_weights = leaves(store, f"{root}.gate")
    due = torch.zeros_like(hidden)
    for path in [(i, j, k) for i in (0, 1) for j in (0, 1) for k in (0, 1)]:
        names = [root + "".join(f".experts.{n}" for n in path[:depth]) for depth in range(3)]
        leaf: Any = model.get_submodule(names[-1]).experts[path[-1]]  # type: ignore[union-attr,index]
        weight = torch.tensor(
            [np.prod([said[name][t][n] for name, n in zip(names, path)]) for t in range(len(hidden))], dtype=torch.float32
        )
        due += weight[:, None] * leaf(hidden).detach()
        assert [leaf_weights[t][path] for t in range(len(hidden))] == pytest.approx(weight.tolist(), abs=1e-6)
    assert torch.allclose(model.layers[0].ffn(hidden), due, atol=1e-5)


def test_selectors_are_routers_of_their_own(tmp_path: Path) -> None:
    """Each selector's weights by its bits, with exact zeros; both selectors are children of the gate that weighs them."""
    model, inputs = given(dselect_k)
    block: Any = model.layers[0].ffn
    (hidden,) = entered(model, inputs, block)
    with traced(model, inputs, tmp_path / "a.duckdb") as store:
        for token, paths in leaves(store, "layers.0.ffn.gate", inputs["attention_mask"]).items():
            share = linear(block.gate.linear, hidden[token]).softmax(-1)
            each = [selected(block.experts[i].gate, hidden[token : token + 1])[0] for i in range(2)]
            due = {(i, e): float(share[i] * each[i][e]) for i in range(2) for e in range(8) if each[i][e] != 0}
            assert paths == pytest.approx(due, abs=1e-5)
        for number in range(2):
            weights = selected(block.experts[number].gate, hidden)
            assert 0 < int((weights == 0).sum()) < weights.numel()
            path = f"layers.0.ffn.experts.{number}.gate"
            same(stored(store, path, inputs["attention_mask"]), rows(weights, inputs["attention_mask"]))
    parents = {(s.name, s.parent_site, s.parent_expert) for s in find(model) if s.parent_site == "layers.0.ffn"}
    assert parents == {(f"layers.0.ffn.experts.{n}", "layers.0.ffn", n) for n in range(2)}


def test_the_noise_is_recorded(tmp_path: Path) -> None:
    """Two forwards of one input differ in the store as they did in the model, and both from the gate without noise."""
    model, inputs = given(shazeer, padded=0)
    block: Any = model.layers[0].ffn
    (hidden,) = entered(model, inputs, block)
    with moescope.Tracer(model, tmp_path / "a.duckdb", inputs=inputs), caught(block.gate) as calls, torch.no_grad():
        model(**inputs)
        model(**inputs)
    drawn = [rows(output[0], inputs["attention_mask"]) for _, output in calls[0]]
    with moescope.open(tmp_path / "a.duckdb") as store:
        found: list[Rows] = [{t: {} for t in range(36)} for _ in range(2)]
        for token, expert, weight in store.rows("select token, expert, weight from routing where layer = 0"):
            found[token // 36][token % 36][expert] = weight
    for one, other in zip(found, drawn):
        same(one, other)
    clean = linear(block.gate.clean, hidden).topk(2, -1).indices
    choices = [{t: sorted(e) for t, e in rows_.items()} for rows_ in found]
    assert choices[0] != choices[1]
    assert choices[0] != {t: sorted(e) for t, e in enumerate(clean.tolist())}


def test_annealed_to_one_expert(tmp_path: Path) -> None:
    """At the end of its schedule EvoMoE's gate gives the largest probability alone; before, more at a higher temperature."""
    model, inputs = given(evomoe)
    counts = []
    for step in (0, 99):
        evomoe.anneal(model, step, 100)
        torch.manual_seed(0)
        hidden = torch.randn(500, 32)
        counts.append(float((model.layers[0].ffn.gate(hidden)[0] > 0).sum(-1).float().mean()))
    assert counts[0] > 4 > 2 > counts[1] >= 1
    assert evomoe.anneal(model, 100, 100) == 0
    block: Any = model.layers[0].ffn
    (hidden,) = entered(model, inputs, block)
    chances = linear(block.gate.linear, hidden).softmax(-1)
    weights = torch.where(chances == chances.amax(-1, keepdim=True), chances, 0.0)
    with traced(model, inputs, tmp_path / "a.duckdb") as store:
        same(stored(store, "layers.0.ffn.gate", inputs["attention_mask"]), rows(weights, inputs["attention_mask"]))
        assert store.rows("select distinct kind, top_k from routers") == [("token_choice", 1)]


def test_emotions(tmp_path: Path) -> None:
    """MoEE: weights for every place and for the whole picture, both of which multiply an emotion's expert."""
    model = moee.build()
    inputs = moee.example(model)
    block: Any = model.blocks[0].emotion  # type: ignore[union-attr,index]
    with caught(block) as calls, torch.no_grad():
        model(**inputs)
    ((hidden, context, time), output) = calls[0][0]
    local = linear(block.local_gate, hidden).softmax(-1)
    whole = linear(block.global_gate, hidden.mean(1) + time).softmax(-1)
    sites = {s.name: s for s in find(model)}
    assert [(s.unit, s.n_experts, s.expert_names[3]) for n, s in sites.items() if n.startswith("blocks.0")] == [
        ("sequence", 6, "disgust"),
        ("token", 6, "disgust"),
    ]
    with traced(model, inputs, tmp_path / "a.duckdb") as store:
        for name, weights in (("local", local.flatten(0, 1)), ("global", whole)):
            query = (
                f"select weight from routing join routers using (router) where name = 'blocks.0.emotion.{name}_gate' "
                "order by token, expert"
            )
            assert [w for (w,) in store.rows(query)] == pytest.approx(weights.flatten().tolist(), abs=1e-6)
        assert store.rows("select decides_on, count(*) from routers group by 1 order by 1") == [("sequence", 2), ("token", 2)]
        assert store.rows("select expert_name from experts where router = 0 order by expert") == [
            (name,) for name in moee.EMOTIONS
        ]
        assert store.rows("select value from conditions where kind = 'timestep' order by value") == [
            (10.0,),
            (455.0,),
            (900.0,),
        ]
    with torch.no_grad():
        made = [local[..., e, None] * whole[:, e, None, None] * x(hidden, context) for e, x in enumerate(block.experts)]
        assert torch.allclose(output, sum(made), atol=1e-5)
        for name in ("local", "global"):
            without = output_without(model, inputs, f"blocks.0.emotion.{name}_gate", 3)
            assert torch.allclose(without, output - made[3], atol=1e-5)


@pytest.fixture(scope="module")
def fitted() -> tuple[Any, Tensor]:
    """An estimator of neural-trees after a few steps, and rows for it."""
    random = np.random.default_rng(0)
    features = random.normal(size=(60, 5)).astype(np.float32)
    classes = (features[:, 0] > 0).astype(int) + (features[:, 1] > 0)
    found = HierarchicalMixtureOfExperts(depth=2, branching_factor=2, max_epochs=3, random_state=0).fit(features, classes)
    return found.model_.eval(), torch.from_numpy(features[:12])


def test_a_fitted_estimator(fitted: tuple[Any, Tensor], tmp_path: Path) -> None:
    """neural-trees: every node's softmax, parents as the tree has them, and the output as the sum over leaves."""
    model, features = fitted
    with torch.no_grad():
        gates = model.gates(features).softmax(-1)
        leaves = model.experts(features).softmax(-1)
        output = model(features)
    with traced(model, {"x": features}, tmp_path / "a.duckdb") as store:
        said = [stored(store, f"gates.node{node}") for node in range(3)]
        assert store.rows("select name, parent_router, parent_expert from routers order by name") == [
            ("gates.node0", None, None),
            ("gates.node1", "gates.node0", 0),
            ("gates.node2", "gates.node0", 1),
        ]
    for node in range(3):
        same(said[node], {t: {e: float(w) for e, w in enumerate(gates[t, node])} for t in range(12)})
    assert {(s.name, s.parent_site, s.parent_expert) for s in find(model)} == {
        ("gates.node0", None, None),
        ("gates.node1", "gates.node0", 0),
        ("gates.node2", "gates.node0", 1),
    }
    weights = [[said[0][t][i] * said[1 + i][t][j] for i in (0, 1) for j in (0, 1)] for t in range(12)]
    assert torch.allclose((torch.tensor(weights)[..., None] * leaves).sum(1), output, atol=1e-5)
    without = output_without(model, {"x": features}, "gates.node1", 0)
    assert torch.allclose(without, output - gates[:, 0, 0, None] * gates[:, 1, 0, None] * leaves[:, 0], atol=1e-5)


def test_what_only_looks_so_is_refused(tmp_path: Path) -> None:
    """A block that divides its weights by their sum once more; a gate that names more experts than it says."""

    class Again(Mixture):
        def forward(self, hidden: Tensor) -> Tensor:
            return super().forward(hidden) / 0.9

    dense: Any = moe1991.build()
    dense.layers[1].ffn.__class__ = Again
    sparse: Any = shazeer.build(top_k=3, noisy=False)
    sparse.layers[0].ffn.gate.forward = lambda hidden: (hidden[:, :8].softmax(-1), hidden[:, :8])
    for model in (dense, sparse):
        with pytest.raises(ProofFailed, match="does not follow"), moescope.Tracer(model, tmp_path / "a.duckdb"):
            pass
        assert not (tmp_path / "a.duckdb").exists()
