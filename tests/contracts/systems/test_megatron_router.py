"""Megatron's router: rows that are sequence-first stand at the tokens that they are, under every rule it has.

On our twin of it; and on Megatron-Core itself where that is installed (`make megatron`).
"""

from pathlib import Path
from typing import Any

import pytest
import real_megatron
import torch
from mixtures import close, expected, rows, sites, traced, written
from torch import Tensor

from moescope.contracts import find
from moescope.errors import ProofFailed
from moescope.interventions import Replay, intervene, route_of
from moescope.models.zoo.language import megatron
from moescope.proof import observed

FORMS: dict[str, dict[str, Any]] = {
    "softmax after": {},
    "softmax before": {"moe_router_pre_softmax": True, "moe_shared_expert_intermediate_size": 16},
    "sigmoid": {"moe_router_score_function": "sigmoid", "moe_router_topk": 1},
    "groups and bias": {
        "moe_router_score_function": "sigmoid", "moe_router_enable_expert_bias": True, "moe_router_num_groups": 4,
        "moe_router_group_topk": 2, "moe_router_topk": 4, "moe_router_topk_scaling_factor": 2.5,
    },
    "drops by probability": {"moe_expert_capacity_factor": 0.7},
    "drops by position": {
        "moe_expert_capacity_factor": 0.5, "moe_token_drop_policy": "position", "moe_router_pre_softmax": True,
    },
    "room for all": {"moe_expert_capacity_factor": 9.0},
    "on the input": {"moe_router_topk": 1, "moe_apply_probs_on_input": True, "moe_router_pre_softmax": True},
}  # fmt: skip


def recount(router: Any, hidden: Tensor, room: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(B, S, k) experts in ascending order, weights, dropped, places, from (S, B, H), token by token.

    `room` (S · B, E): for whom there was room, where that is nobody's rule but a draw among equals.
    """
    config = router.config
    logits = hidden @ router.weight.T
    batch, k, count = hidden.shape[1], config.moe_router_topk, config.num_moe_experts
    found = []
    for row in logits.flatten(0, 1):
        sigmoid = config.moe_router_score_function == "sigmoid"
        scores = row.sigmoid() if sigmoid else row.softmax(-1) if config.moe_router_pre_softmax else row
        rank = scores + router.expert_bias if router.expert_bias is not None else scores
        if config.moe_router_num_groups:
            groups = rank.view(config.moe_router_num_groups, -1)
            sums = groups.sort(descending=True).values[:, : k // config.moe_router_group_topk].sum(-1)
            kept = sums.argsort(descending=True)[: config.moe_router_group_topk]
            rank = torch.stack([g if n in kept else g - 1e9 for n, g in enumerate(groups)]).flatten()
        experts = rank.argsort(descending=True)[:k].sort().values
        w = scores[experts]
        if sigmoid:
            w = w / w.sum() if k > 1 else w
        elif not config.moe_router_pre_softmax:
            w = w.softmax(-1)
        found.append((experts, w * (config.moe_router_topk_scaling_factor or 1)))
    experts, weights = torch.stack([e for e, _ in found]), torch.stack([w for _, w in found])
    dropped, places = torch.zeros_like(experts, dtype=torch.bool), torch.zeros_like(experts)
    if config.moe_expert_capacity_factor:
        capacity = -(-len(experts) * k * config.moe_expert_capacity_factor // count)
        for n in range(count):
            who = (experts == n).nonzero().tolist()
            order = (
                who if config.moe_token_drop_policy == "position" else sorted(who, key=lambda at: -float(weights[tuple(at)]))
            )
            kept = sorted(order[: int(capacity)]) if room is None else [at for at in who if room[at[0], n]]
            assert len(kept) == min(len(who), int(capacity))
            for at in who:
                dropped[tuple(at)] = at not in kept
                places[tuple(at)] = kept.index(at) if at in kept else 0
    weights = weights.masked_fill(dropped, 0)
    return tuple(t.view(-1, batch, k).transpose(0, 1) for t in (experts, weights, dropped, places))  # type: ignore[return-value]


@pytest.fixture(params=["twin", "megatron-core"])
def source(request: pytest.FixtureRequest) -> Any:
    """What builds a model, and its inputs."""
    return {"twin": megatron, "megatron-core": real_megatron}[request.param]


@pytest.mark.parametrize("form", FORMS)
def test_stored(form: str, source: Any, tmp_path: Path) -> None:
    """Proved although the residual is added in place, and stored where its token is."""
    model = source.build(**FORMS[form])
    inputs, given = source.example(model), {}
    for name, module in model.named_modules():
        if type(module).__name__ == "TopKRouter":
            module.register_forward_hook(
                lambda _, args, out, name=name: given.update({name: (args[0].clone(), out[1].clone())})
            )
    proof = traced(model, inputs, tmp_path / "a.duckdb")
    assert [p.router for p in proof] == list(given)
    assert all(p.identical and p.error < 1e-6 for p in proof)
    lost = 0
    for name, (hidden, chosen) in given.items():
        # Megatron-Core takes the top of a map of zeros and ones there, in which a CPU's topk finds any of the ones
        drawn = source is real_megatron and form == "drops by position"
        with torch.no_grad():
            experts, weights, dropped, places = recount(model.get_submodule(name), hidden, chosen if drawn else None)
        buffer = places if FORMS[form].get("moe_expert_capacity_factor") else None
        stored = rows(tmp_path / "a.duckdb", name)
        assert close(stored, expected(experts, weights, real_megatron.kept(inputs), dropped, buffer))
        lost += int(dropped.sum())
    assert (lost > 0) == form.startswith("drops")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("change", ["next expert", "half", "none at all"])
def test_written(form: str, change: str, source: Any) -> None:
    """Another decision is executed, heard, and what follows from it is what the layer gives."""
    model = source.build(**FORMS[form])
    for site in sites(model).values():
        edit = {
            "next expert": lambda e, w, n=site.n_experts: (torch.where(e < 0, e, (e + 1) % n), w),
            "half": lambda e, w: (e, w / 2),
            "none at all": lambda e, w: (torch.full_like(e, -1), w * 0),
        }[change]
        wanted: list[Any] = []
        before, after, record, follows = written(model, source.example(model), site, lambda e, w, edit=edit, wanted=wanted: (
            wanted.append(edit(e, w)) or wanted[-1]
        ))  # fmt: skip
        assert torch.allclose(after, follows, atol=1e-5 * float(before.abs().max()))
        assert (after - before).abs().max() > 1e-2 * before.abs().max()
        assert torch.equal(record.experts, wanted[-1][0])
        assert torch.equal(record.weights, wanted[-1][1])


@pytest.mark.parametrize("form", FORMS)
def test_replayed(form: str, source: Any) -> None:
    """The routes of one batch are executed on another one, dropped tokens and all."""
    model = source.build(**FORMS[form])
    one, other = source.example(model), source.example(model, seed=1)
    with observed(find(model)) as calls, torch.no_grad():
        model(**one)
    routes = {site.path: route_of(calls[site.name][0].record) for site in find(model)}
    heard: list[Any] = []
    with intervene(model, Replay(routes=routes)), torch.no_grad():
        handles = [h for site in find(model) for h in site.contract.listen(site, heard.append)]
        model(**other)
    for handle in handles:
        handle.remove()
    for record in heard:
        route = routes[record.site.path]
        alive = route.weights != 0
        assert torch.equal(record.experts[alive], route.experts[alive])
        assert torch.equal(record.weights, route.weights)


def test_numbers_and_weights() -> None:
    """A router that returns (T, k) probabilities and experts, as it does at inference, is read as that."""
    model = megatron.build()
    layer: Any = model.get_submodule("layers.0.mlp")
    (site,) = sites(layer).values()
    hidden = torch.randn(5, 2, 32)
    probs, _ = layer.router(hidden)
    weights, experts = probs.topk(2, dim=-1)
    record = site.contract.read(site, (hidden,), (weights, experts))  # type: ignore[attr-defined]
    assert torch.equal(record.experts, experts)
    assert torch.equal(record.weights, weights)
    assert record.rows.tolist() == [0, 5, 1, 6, 2, 7, 3, 8, 4, 9]


def test_padded_to_capacity() -> None:
    """Rows that only fill a buffer (weight 0, not chosen) are no assignments."""
    model = megatron.build(moe_expert_capacity_factor=9.0)
    layer: Any = model.get_submodule("layers.0.mlp")
    (site,) = sites(layer).values()
    hidden = torch.randn(5, 2, 32)
    probs, chosen = layer.router(hidden)
    filled = chosen.clone()
    filled[:3] = True
    record = site.contract.read(site, (hidden,), (probs, filled))  # type: ignore[attr-defined]
    assert [sorted(row) for row in record.experts.tolist()] == [row.nonzero()[:, 0].tolist() for row in chosen]


def test_other_processes(tmp_path: Path) -> None:
    """Experts of which this process holds a part cannot be proved."""
    model = megatron.build()
    layer: Any = model.get_submodule("layers.1.mlp")
    layer.num_local_experts = 4
    with pytest.raises(ProofFailed, match=r"has 4 of its 8 experts in this process.*expert_model_parallel_size=1"):
        traced(model, megatron.example(model), tmp_path / "a.duckdb")
    assert not (tmp_path / "a.duckdb").exists()
