"""Mixture-of-Depths, Mixture-of-Recursions and CoLT5: proved, stored as an independent count has it, edited, and refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import MixtralConfig, MixtralForCausalLM
from zoo_text import Rows, caught, output_without, same, stored, traced

import moescope
from moescope.contracts import find
from moescope.errors import ProofFailed, UnknownContract
from moescope.models.zoo.language import mod, mor

ConditionalRoutedFeedForward = pytest.importorskip("colt5_attention").ConditionalRoutedFeedForward


class Colt5(nn.Module):
    """Embeddings and the package's conditional feed-forward."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.layer = nn.Embedding(512, 32), ConditionalRoutedFeedForward(32, num_heavy_tokens=4)

    def forward(self, input_ids: Tensor) -> Tensor:
        """(B, S) → (B, S, H)"""
        return self.layer(self.embed(input_ids))


def inputs(batch: int = 3, places: int = 12, padded: int = 0) -> dict[str, Tensor]:
    """Random ids; the last `padded` places of the second row are none."""
    given = mod.text_example(512, batch, places, 1)
    given["attention_mask"][1, places - padded :] = 0
    return given


def run(model: nn.Module, given: dict[str, Any], *modules: nn.Module) -> list[list[Any]]:
    """Calls of modules in one forward."""
    with caught(*modules) as calls, torch.no_grad():
        model(**given)
    return calls


def top(scores: Tensor, real: Tensor, count: int) -> list[int]:
    """The places of one sequence with the largest scores, of those that are real."""
    order = [p for p in scores.argsort(descending=True).tolist() if bool(real[p])]
    return sorted(order[:count])


@pytest.mark.parametrize("padded", [0, 4, 11])
@pytest.mark.parametrize("select", ["topk", "router", "predictor"])
def test_mixture_of_depths(select: str, padded: int, tmp_path: Path) -> None:
    """Stored is who took part; the layer gave x + r f(x) for these alone, each sequence on its own."""
    model, given = mod.build(select=select), inputs(padded=padded)
    layer: Any = model.layers[1]  # type: ignore[union-attr,index]
    (((hidden, alive), output),) = run(model, given, layer)[0]
    scores = (hidden @ layer.router.weight[0]).detach()
    expected: Rows = {}
    for b in range(3):
        said = layer.predictor(hidden[b])[:, 0] if select == "predictor" else scores[b]
        some = top(scores[b], alive[b], 3) if select == "topk" else [p for p in range(12) if said[p] > 0 and alive[b, p]]
        expected |= {b * 12 + p: {0: float(scores[b, p])} if p in some else {} for p in range(12) if alive[b, p]}
        due = hidden[b].clone()
        if some:
            made = layer.block(hidden[b : b + 1, some])[0] - hidden[b, some]
            due[some] += scores[b, some, None] * made
        assert torch.allclose(output[b, alive[b]], due[alive[b]], atol=1e-5)
    with traced(model, given, tmp_path / "a.duckdb") as store:
        same(stored(store, "layers.1.router", given["attention_mask"]), expected)
        assert store.rows("select kind, weight_on, block_type, layer from routers order by router") == [
            ("depth", "residual", "block", 1),
            ("depth", "residual", "block", 3),
        ]
        pools = store.rows("select pool, capacity from pools where router = 0 order by pool")
        assert pools == ([(0, 3), (1, 3), (2, 3)] if select == "topk" else [])


@pytest.mark.parametrize("padded", [0, 4])
def test_recursions_by_expert_choice(padded: int, tmp_path: Path) -> None:
    """Each recursion keeps the best of those that came through the one before; no other token is considered."""
    model, given = mor.build(), inputs(padded=padded)
    recursions = list(model.layers[1].recursions)  # type: ignore[union-attr,index]
    calls = run(model, given, *recursions)
    path = tmp_path / "a.duckdb"
    left = {b: [p for p in range(12) if given["attention_mask"][b, p]] for b in range(3)}
    with traced(model, given, path) as store:
        for number, (recursion, (((hidden, _), _output),), count) in enumerate(zip(recursions, calls, (12, 8, 4))):
            weights = (hidden @ recursion.router.weight[0]).sigmoid().detach() * 0.5
            expected: Rows = {}
            for b, there in left.items():
                real = torch.tensor([p in there for p in range(12)])
                some = top(weights[b], real, count)
                expected |= {b * 12 + p: {0: float(weights[b, p])} if p in some else {} for p in there}
                left[b] = some
            same(stored(store, f"layers.1.recursions.{number}.router", given["attention_mask"]), expected)
        depths = store.rows("select depth, considered, count(*) from token_depth group by all order by all")
        assert depths == ([(1, 2, 12), (2, 3, 12), (3, 3, 12)] if not padded else [(1, 2, 8), (2, 3, 12), (3, 3, 12)])
    due = calls[2][0][0][0][0].clone()  # the first sequence before the last recursion
    some = left[0]
    weights = (due @ recursions[2].router.weight[0]).sigmoid()[some, None] * 0.5
    due[some] += weights * recursions[2].block(due[None, some])[0]
    assert torch.allclose(calls[2][0][1][0][0], due, atol=1e-5)


@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_recursions_by_token_choice(score: str, tmp_path: Path) -> None:
    """A token has all recursions up to its depth, and the last of them with the weight of that depth; the bias only chooses."""
    model, given = mor.build(choice="token", score=score), inputs(padded=4)
    layer: Any = model.layers[1]  # type: ignore[union-attr,index]
    layer.router_bias[:] = torch.tensor([-0.02, 0.0, 0.03])
    (((hidden, alive), output),) = run(model, given, layer)[0]
    logits = (hidden @ layer.router.weight.T).detach()
    scores = logits.softmax(-1) if score == "softmax" else logits.sigmoid() * 0.5
    depth = (scores + layer.router_bias).argmax(-1)
    assert len(set(depth[alive].tolist())) > 1
    weight = [[[1.0] * d + [float(scores[b, p, d])] for p, d in enumerate(depth[b].tolist())] for b in range(3)]
    expected = {b * 12 + p: dict(enumerate(weight[b][p])) for b in range(3) for p in range(12) if alive[b, p]}
    with traced(model, given, tmp_path / "a.duckdb") as store:
        same(stored(store, "layers.1.router", given["attention_mask"]), expected)
        assert store.rows("select experts, kind from routers") == [(3, "depth")]
        real = [int(d) + 1 for d in depth[alive]]
        assert [d for (d,) in store.rows("select depth from token_depth order by token")] == real
    state, due = hidden[0].clone(), hidden[0].clone()
    for number in range(3):
        some = [p for p in range(12) if depth[0, p] >= number]
        if some:
            state[some] = layer.block(state[None, some])[0]
            ends = [p for p in some if depth[0, p] == number]
            due[ends] += scores[0, ends, number, None] * state[ends]
    assert torch.allclose(output[0], due, atol=1e-5)


def test_colt5(tmp_path: Path) -> None:
    """The heavy branch ran on the tokens that the package's router named, and on no other."""
    model, given = Colt5().eval(), {"input_ids": inputs()["input_ids"]}
    ((_, named),), ((_, output),) = run(model, given, model.layer.router, model.layer)
    expected: Rows = {place: {} for place in range(36)}
    for b in range(3):
        expected |= {b * 12 + p: {0: float(w)} for p, w in zip(named[0][b].tolist(), named[1][b])}
    with traced(model, given, tmp_path / "a.duckdb") as store:
        same(stored(store, "layer.router"), expected)
        assert store.rows("select distinct capacity, tokens from pools") == [(4, 12)]
    hidden = model.embed(given["input_ids"])
    without = output_without(model, given, "layer.router", 0)
    assert torch.allclose(without, model.layer.light_ff(hidden), atol=1e-6)
    assert not torch.allclose(without, output, atol=1e-3)


@pytest.mark.parametrize("choice", ["expert", "token"])
def test_a_run_that_is_taken_away(choice: str) -> None:
    """Weights of 0 leave every token that ended with this run as it was."""
    model, given = mor.build(choice=choice), inputs()
    layer: Any = model.layers[1]  # type: ignore[union-attr,index]
    layer = layer.recursions[1] if choice == "expert" else layer
    path = "layers.1.recursions.1.router" if choice == "expert" else "layers.1.router"
    (((hidden, *rest), output),) = run(model, given, layer)[0]
    output = output[0] if choice == "expert" else output
    chosen = layer.route(hidden, *rest).chosen
    number = 0 if choice == "expert" else 2
    without = output_without(model, given, path, number)
    ends = chosen[..., number]
    assert bool(ends.any())
    assert torch.equal(without[ends], hidden[ends])
    assert torch.equal(without[~ends], output[~ends])


@pytest.mark.parametrize("select", ["topk", "router"])
@pytest.mark.parametrize("padded", [0, 7])
def test_a_mixture_inside_layers_that_may_be_left_out(padded: int, select: str, tmp_path: Path) -> None:
    """Mixtral behind Mixture-of-Depths: routers of both kinds, and the inner ones' tokens are those that took part."""
    torch.manual_seed(0)
    sizes = {"num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 4}
    config = MixtralConfig(vocab_size=512, hidden_size=32, intermediate_size=32, **sizes)
    model, given = mod.wrap(MixtralForCausalLM(config).eval(), capacity=0.5), inputs(padded=padded)
    for layer in (1, 3):
        model.model.layers[layer].select = select  # by the router's sign: as many tokens as it likes, in each sequence others
    with traced(model, given, tmp_path / "a.duckdb") as store:
        assert [r for (r,) in store.rows("select contract from routers order by layer, name")] == [
            "triple", "triple", "depth", "triple", "triple", "depth"
        ]  # fmt: skip
        for layer in (1, 3):
            outer = stored(store, f"model.layers.{layer}.router", given["attention_mask"])
            inner = stored(store, f"model.layers.{layer}.block.mlp.gate", given["attention_mask"])
            took = {place for place, runs in outer.items() if runs}
            assert set(inner) == took
            assert len(took) < len(outer)
            assert all(len(experts) == 2 for experts in inner.values())
        assert store.rows("select distinct unit from tokens") == [("text",)]


def test_wrapped_layers_attend_as_before() -> None:
    """With room for every token and weight 1, a wrapped Mixtral is the Mixtral."""
    torch.manual_seed(0)
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 4}
    model = MixtralForCausalLM(MixtralConfig(vocab_size=512, hidden_size=32, intermediate_size=32, **sizes)).eval()
    given = inputs(padded=3)
    with torch.no_grad():
        before = model(**given).logits
        wrapped: Any = mod.wrap(model, capacity=1.0)
        layer = wrapped.model.layers[1]
        route = layer.route
        layer.route = lambda *args: route(*args)._replace(weights=torch.ones(3, 12, 1))
        after = wrapped(**given).logits
    real = given["attention_mask"].bool()
    assert torch.allclose(before[real], after[real], atol=1e-5)


def test_an_unknown_mixture_inside_is_not_passed_over() -> None:
    """A block that a contract runs or leaves out as a whole does not hide a mixture in it that no contract knows."""

    class Unknown(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.experts = nn.Linear(32, 2), nn.ModuleList(nn.Linear(32, 32) for _ in range(2))

        def forward(self, hidden: Tensor) -> Tensor:
            return self.experts[int(self.gate(hidden).mean() > 0)](hidden)

    model: Any = mod.build()
    model.layers[1].block.ffn = Unknown()
    with pytest.raises(UnknownContract, match=r"layers\.1\.block\.ffn"):
        find(model)


def test_what_only_looks_so_is_refused(tmp_path: Path) -> None:
    """A block whose weights are not what `route` says."""

    class Twice(mod.Depth):
        def forward(self, hidden: Tensor, alive: Tensor | None = None) -> Tensor:
            return hidden + 2 * (super().forward(hidden, alive) - hidden)

    model = mod.build()
    model.layers[1].__class__ = Twice  # type: ignore[union-attr,index]
    with pytest.raises(ProofFailed, match=r"layers\.1 does not follow"), moescope.Tracer(model, tmp_path / "a.duckdb"):
        model(**inputs())
    assert not (tmp_path / "a.duckdb").exists()
