"""Edits on one model whose numbers can be worked out by hand; refusals; replay from a store."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from planted import mixtral, texts

import moescope
from moescope.contracts import find
from moescope.errors import InputError, ModelError
from moescope.interventions import (
    Capacity,
    Force,
    Mean,
    RandomRouter,
    Replay,
    Route,
    RouteAround,
    Swap,
    TopK,
    Zero,
    contribution,
    intervene,
    norms,
    overrides,
    parse,
    read_routes,
    route_of,
)
from moescope.models.vmoe import VMoE, VMoEConfig
from moescope.proof import observed

IDS = torch.tensor([[4, 9, 17, 30, 5, 11], [40, 12, 6, 7, 33, 21]])


@pytest.fixture
def model() -> Any:
    return mixtral(1, k=2, layers=2)


def logits(model: Any, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=ids, use_cache=False).logits


def executed(model: Any, *edits: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(experts, weights) of both layers under edits."""
    sites = find(model)
    with intervene(model, *edits, sites=sites), observed(sites) as calls:
        logits(model)
    return [(calls[s.name][0].record.experts, calls[s.name][0].record.weights) for s in sites]


def test_zero_masks_the_weight_and_keeps_the_decision(model: Any) -> None:
    (was, weights), (other, _) = executed(model)
    (now, masked), (later, _) = executed(model, Zero(layers=0, experts=[1]))
    assert torch.equal(now, was)
    assert torch.equal(masked, weights.masked_fill(was == 1, 0))
    assert other.shape == later.shape


def test_route_around_takes_the_next_best_and_renormalizes(model: Any) -> None:
    gate = model.model.layers[0].mlp.gate
    sites = find(model)
    with observed(sites) as calls, intervene(model, RouteAround(layers=[0], experts=[2]), sites=sites):
        logits(model)
    record = calls[sites[0].name][0].record
    p = torch.softmax(record.logits.float(), -1)
    p[:, 2] = -1
    best = p.topk(2, -1)
    assert torch.equal(record.experts, best.indices)
    assert torch.allclose(record.weights, best.values / best.values.sum(-1, keepdim=True))
    assert "forward" not in vars(gate)


def test_only_the_tokens_meant_are_edited(model: Any) -> None:
    (was, weights), _ = executed(model)
    tokens = torch.zeros(2, 6, dtype=torch.bool)
    tokens[0, 3] = True
    for edit in (
        Zero(layers=0, experts=[0, 1, 2, 3], tokens=tokens),
        RouteAround(layers=0, experts=was[3].tolist(), tokens=tokens),
        Swap(layers=0, a=int(was[3, 0]), b=int((set(range(4)) - set(was[3].tolist())).pop()), tokens=tokens),
    ):
        (now, masked), _ = executed(model, edit)
        changed = ((now != was) | (masked != weights)).any(-1)
        assert changed.tolist() == [n == 3 for n in range(12)], edit.mode
    with pytest.raises(InputError, match="5 token places"):
        executed(model, Zero(layers=0, experts=[0], tokens=torch.ones(5, dtype=torch.bool)))


def test_swap_force_random_and_top_k(model: Any) -> None:
    (was, weights), _ = executed(model)
    (swapped, same), _ = executed(model, Swap(layers=0, a=0, b=3))
    assert torch.equal(swapped, torch.tensor([3, 1, 2, 0])[was])
    assert torch.equal(same, weights)
    (forced, _), _ = executed(model, Force(layers=0, experts=[2]))
    assert bool((forced == 2).any(-1).all())
    assert torch.equal(forced[(was == 2).any(-1)], was[(was == 2).any(-1)])
    (given, shares), _ = executed(model, Force(layers=0, experts=[3, 1], weights=[0.25, 0.75]))
    assert given.unique(dim=0).tolist() == [[3, 1]]
    assert shares.unique(dim=0).tolist() == [[0.25, 0.75]]
    once, again = executed(model, RandomRouter(seed=7)), executed(model, RandomRouter(seed=7))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(once, again))
    (one, sure), _ = executed(model, TopK(layers=0, k=1))
    assert torch.equal(one[:, 0], was[:, 0])
    assert torch.equal(sure, torch.ones_like(sure))


def test_edits_compose_left_to_right_and_say_themselves(model: Any) -> None:
    edits = Swap(layers=0, a=0, b=1), Zero(layers=0, experts=[1])
    (was, weights), _ = executed(model)
    (now, masked), _ = executed(model, *edits)
    assert torch.equal(masked, weights.masked_fill(was == 0, 0))
    assert torch.equal(now, torch.tensor([1, 0, 2, 3])[was])
    assert overrides(*edits) == {
        "interventions": [{"mode": "swap", "layers": 0, "a": 0, "b": 1}, {"mode": "zero", "layers": 0, "experts": [1]}]
    }


def test_the_mean_takes_the_place_of_the_contribution(model: Any) -> None:
    sites = find(model)
    inputs = {"input_ids": IDS, "use_cache": False}
    sums = norms(model, sites, [inputs])
    means = {path: n.mean for path, n in sums.items()}
    with torch.no_grad(), observed(sites) as calls:
        model(**inputs)
    call = calls[sites[0].name][0]
    part = contribution(call, 1)
    ran = (call.record.experts == 1).any(-1)
    assert torch.allclose(means[sites[0].path][1], part[ran].mean(0), atol=1e-6)
    seen: list[torch.Tensor] = []
    with intervene(model, Mean(layers=0, experts=[1], means=means), sites=sites):
        handle = sites[0].experts.register_forward_hook(lambda _, __, out: seen.append(out))  # type: ignore[union-attr]
        logits(model)
        handle.remove()
    wanted = call.output - part + ran[:, None] * part[ran].mean(0)
    assert torch.allclose(seen[0], wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (Zero(layers=7, experts=[0]), "no router in layer 7: the layers with a router are 0, 1"),
        (Zero(layers=0, experts=[4]), "has no expert 4: its experts are 0 to 3"),
        (Zero(layers=0, experts=[]), "no expert is named"),
        (Zero(stack="encoder", experts=[0]), "no router in a stack 'encoder'"),
        (RouteAround(layers=0, experts=[0, 1, 2]), "masking 3 leaves 1: leave at least 2"),
        (RouteAround(layers=0, mask=torch.zeros(12, 3, dtype=torch.bool)), "the mask has 3 columns"),
        (Force(layers=0, experts=[0, 1, 2]), "force at most 2"),
        (TopK(layers=0, k=5), "choose from 1 to that"),
        (Capacity(layers=0), "give at least one of capacity"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_changes(model: Any, edit: Any, said: str) -> None:
    reference = logits(model)
    with pytest.raises(InputError, match=said), intervene(model, Zero(layers=0, experts=[0]), edit):
        pass
    assert torch.equal(logits(model), reference)


def test_capacity_belongs_to_families_that_have_one(model: Any) -> None:
    with pytest.raises(ModelError, match="has no capacity to change"), intervene(model, Capacity(capacity=3)):
        pass


def test_places_are_read_from_text() -> None:
    assert parse("3:5,7 decoder.4:0-2;5 3:1") == {(None, 3): [1, 5, 7], ("decoder", 4): [0, 1, 2], (None, 5): None}
    with pytest.raises(InputError, match="names no experts"):
        parse("3:x")


def test_replay_of_a_runs_own_record_is_bit_identical(model: Any, tmp_path: Path) -> None:
    store = tmp_path / "a.duckdb"
    model.config.pad_token_id = 0
    moescope.trace(model, texts(2, 10), store, batch_size=8)
    sites = find(model)
    with moescope.open(store) as opened:
        keys = np.arange(80).reshape(8, 10)
        ids = np.array([v for (v,) in opened.rows("select vocab_id from tokens order by token")]).reshape(8, 10)
        routes = read_routes(opened, 0, 0, {"decoder": keys.reshape(-1)})
        with pytest.raises(InputError, match="no forward 5"):
            read_routes(opened, 0, 5, {"decoder": keys.reshape(-1)})
    inputs = torch.from_numpy(ids.astype(np.int64))
    reference = logits(model, inputs)
    with intervene(model, RandomRouter(seed=1), sites=sites):
        assert not torch.equal(logits(model, inputs), reference)
    with intervene(model, RandomRouter(seed=1), Replay(routes=routes), sites=sites):
        assert torch.equal(logits(model, inputs), reference)
    with (
        pytest.raises(InputError, match=r"does not fit: router .* decides"),
        intervene(model, Replay(routes=routes), sites=sites),
    ):
        logits(model)
    with pytest.raises(InputError, match="does not fit"), intervene(mixtral(0, k=2, layers=1), Replay(routes=routes)):
        pass


def test_an_edited_route_is_executed(model: Any) -> None:
    sites = find(model)
    with observed(sites) as calls:
        logits(model)
    routes = {s.path: route_of(calls[s.name][0].record) for s in sites}
    first = routes[sites[0].path]
    routes[sites[0].path] = Route(torch.full_like(first.experts, 3), first.weights)
    (now, _), _ = executed(model, Replay(routes=routes))
    assert now.unique().tolist() == [3]


def test_v_moe_capacity_and_replay() -> None:
    torch.manual_seed(0)
    config = VMoEConfig.from_dict(_vmoe())
    model = VMoE(config).eval()
    images = torch.randn(8, 1, 8, 8)
    sites = find(model)

    def run() -> torch.Tensor:
        with torch.no_grad():
            return model(pixel_values=images).logits

    with observed(sites) as calls:
        reference = run()
    routes = {s.path: route_of(calls[s.name][0].record) for s in sites}
    with intervene(model, Capacity(capacity_factor=0.25, batch_priority=True), sites=sites), observed(sites) as fewer:
        run()
    assert int(fewer[sites[0].name][0].record.dropped.sum()) > int(calls[sites[0].name][0].record.dropped.sum())
    with intervene(model, Capacity(capacity_factor=0.25), Replay(routes=routes), sites=sites):
        assert torch.equal(run(), reference)
    with intervene(model, TopK(k=1), sites=sites), observed(sites) as one:
        run()
    assert one[sites[0].name][0].record.experts.shape[-1] == 1
    assert torch.equal(run(), reference)


def _vmoe() -> dict[str, Any]:
    router = {"name": "NoisyTopExpertsPerItemRouter", "num_selected_experts": 2, "noise_std": 0.0,
              "dispatcher": {"name": "einsum", "capacity_factor": 1.0}}  # fmt: skip
    moe = {"num_experts": 4, "layers": [0], "router": router}
    encoder = {"num_layers": 1, "mlp_dim": 16, "num_heads": 2, "moe": moe}
    return {"num_classes": 3, "patch_size": [2, 2], "hidden_size": 16, "encoder": encoder, "channels": 1, "image_size": [8, 8],
            "classifier": "token", "head_kernel_zero_init": False}  # fmt: skip
