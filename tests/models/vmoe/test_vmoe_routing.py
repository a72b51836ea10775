"""A live V-MoE: what a hook sees is what is executed, and routing can be switched."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from moescope.errors import InputError
from moescope.models.vmoe import ExpertChoice, SoftSlots, TokenChoice, VMoE, VMoEConfig
from moescope.models.vmoe.switching import SWITCHES

ROUTERS: dict[str, dict[str, Any]] = {
    "token_choice": {"num_selected_experts": 2, "dispatcher": {"capacity_factor": 0.5}},
    "expert_choice": {"name": "NoisyTopItemsPerExpertRouter", "dispatcher": {"capacity_factor": 1.0}},
    "soft": {"name": "SoftRouter", "num_slots": 2},
}
G, S, E, H = 2, 40, 4, 16  # eight images of 10 tokens in two groups


def make(kind: str = "token_choice", **moe: Any) -> VMoE:
    torch.manual_seed(3)
    moe = {"num_experts": E, "layers": [1], "group_size": S, "split_rngs": True, "router": ROUTERS[kind], **moe}
    encoder = {"num_layers": 2, "mlp_dim": 8, "num_heads": 2, "moe": moe}
    shape = {"num_classes": 3, "patch_size": [4, 4], "hidden_size": H, "image_size": [12, 12]}
    model = VMoE(VMoEConfig.from_dict({**shape, "head_kernel_zero_init": False, "encoder": encoder}))
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return model.eval()


@pytest.fixture(params=ROUTERS)
def model(request: pytest.FixtureRequest) -> VMoE:
    return make(request.param)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(8, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def watch(model: VMoE, images: torch.Tensor) -> dict[str, Any]:
    """Tokens, routing and output of the experts, and what the router returned."""
    seen: dict[str, Any] = {}
    mlp: Any = model.layers[1].mlp
    handles = [
        mlp.router.register_forward_hook(lambda module, args, out: seen.update(decided=out)),
        mlp.experts.register_forward_pre_hook(lambda module, args: seen.update(tokens=args[0], executed=args[1])),
        mlp.experts.register_forward_hook(lambda module, args, out: seen.update(output=out)),
    ]
    with torch.no_grad():
        seen["logits"] = model(images).logits
    for handle in handles:
        handle.remove()
    return seen


def by_hand(experts: Any, tokens: torch.Tensor, routing: Any) -> torch.Tensor:
    """The layer's output from the record, token by token."""
    flat = tokens.flatten(0, 1)
    out = torch.zeros_like(flat)
    for token, expert, weight in zip(*routing.assignments()):
        out[token] += weight * experts.expert(int(expert), flat[token : token + 1])[0]
    return out.view_as(tokens)


def test_shapes(images: torch.Tensor) -> None:
    routing = watch(make(), images)["decided"]
    assert isinstance(routing, TokenChoice)
    assert routing.capacity == 12  # 80 choices * 0.5 / 4 experts = 10, up to a multiple of 4
    assert routing.logits.shape == routing.gates.shape == (G, S, E)
    shapes = {getattr(routing, name).shape for name in ("indices", "weights", "slots", "dropped")}
    assert shapes == {(G, S, 2)}
    assert torch.equal(routing.dropped, routing.slots >= 12)
    assert routing.dropped.any()


def test_expert_choice_shapes(images: torch.Tensor) -> None:
    routing = watch(make("expert_choice"), images)["decided"]
    assert isinstance(routing, ExpertChoice)
    assert routing.tokens.shape == routing.weights.shape == (G, E, 12)
    assert torch.equal(routing.weights, routing.gates.transpose(1, 2).gather(2, routing.tokens))


def test_soft_shapes(images: torch.Tensor) -> None:
    routing = watch(make("soft"), images)["decided"]
    assert isinstance(routing, SoftSlots)
    assert routing.dispatch.shape == routing.combine.shape == (G, S, E, 2)
    torch.testing.assert_close(routing.dispatch.sum(1), torch.ones(G, E, 2))
    torch.testing.assert_close(routing.gates.sum(-1), torch.ones(G, S))


def test_what_is_decided_is_executed(model: VMoE, images: torch.Tensor) -> None:
    seen = watch(model, images)
    assert seen["decided"] is seen["executed"]
    assert seen["output"].shape == seen["tokens"].shape == (G, S, H)


@pytest.mark.parametrize("kind", ["token_choice", "expert_choice"])
def test_output_follows_from_the_record(kind: str, images: torch.Tensor) -> None:
    model = make(kind)
    seen = watch(model, images)
    mine = by_hand(model.layers[1].mlp.experts, seen["tokens"], seen["executed"])  # type: ignore[union-attr]
    torch.testing.assert_close(mine, seen["output"], atol=1e-6, rtol=1e-5)


def test_token_dropped_by_all_gets_exactly_nothing(images: torch.Tensor) -> None:
    model = make()
    model.set_routing(capacity_factor=0.1)
    seen = watch(model, images)
    lost = seen["executed"].dropped.all(-1)
    assert lost.any()
    assert not lost.all()
    assert (seen["output"][lost] == 0).all()
    assert (seen["output"][~lost] != 0).any(-1).all()


def test_weights_are_gates_and_not_renormalised(images: torch.Tensor) -> None:
    routing = watch(make(), images)["decided"]
    assert torch.equal(routing.weights, routing.gates.gather(2, routing.indices))
    assert (routing.weights.sum(-1) < 1).all()


def rewrite(model: VMoE, images: torch.Tensor, change: Any) -> torch.Tensor:
    experts: Any = model.layers[1].mlp.experts  # type: ignore[union-attr]
    handle = experts.register_forward_pre_hook(lambda module, args: (args[0], change(args[1])))
    with torch.no_grad():
        logits = model(images).logits
    handle.remove()
    return logits


def test_writing_back_what_was_read_changes_nothing(model: VMoE, images: torch.Tensor) -> None:
    seen = watch(model, images)
    assert torch.equal(rewrite(model, images, lambda routing: seen["executed"]), seen["logits"])


def test_other_experts_change_the_output(images: torch.Tensor) -> None:
    model = make()
    before = watch(model, images)["logits"]
    swapped = rewrite(model, images, lambda routing: replace(routing, indices=(routing.indices + 1) % E))
    silent = rewrite(model, images, lambda routing: replace(routing, weights=torch.zeros_like(routing.weights)))
    assert not torch.equal(before, swapped)
    assert not torch.equal(before, silent)


def test_switching_capacity_and_priority(images: torch.Tensor) -> None:
    model = make()
    few = watch(model.set_routing(capacity_factor=0.25), images)["decided"]
    sure = watch(model.set_routing(batch_priority=True), images)["decided"]
    many = watch(model.set_routing(capacity_factor=4.0), images)["decided"]
    exact = watch(model.set_routing(capacity=5), images)["decided"]
    assert (few.capacity, sure.capacity, many.capacity, exact.capacity) == (8, 8, 80, 5)
    assert not many.dropped.any()
    assert torch.equal(few.gates, sure.gates)
    assert not torch.equal(few.dropped, sure.dropped)
    assert sure.weights[~sure.dropped].mean() > few.weights[~few.dropped].mean()
    assert model.config.encoder.moe.router.dispatcher.capacity_factor is None


def test_batch_priority_changes_only_the_order_of_filling(images: torch.Tensor) -> None:
    vanilla = watch(make().set_routing(capacity_factor=4.0), images)
    priority = watch(make().set_routing(capacity_factor=4.0, batch_priority=True), images)
    torch.testing.assert_close(vanilla["logits"], priority["logits"], atol=1e-6, rtol=0)
    assert not torch.equal(vanilla["decided"].slots, priority["decided"].slots)


def test_groups_are_routed_independently(images: torch.Tensor) -> None:
    model = make()
    with torch.no_grad():
        both, first = model(images), model(images[:4])
    torch.testing.assert_close(both.logits[:4], first.logits, atol=1e-6, rtol=0)
    assert torch.equal(both.routings[1].slots[:1], first.routings[1].slots)


def test_incomplete_groups_are_refused_unless_the_batch_is_the_group(images: torch.Tensor) -> None:
    model = make()
    with pytest.raises(InputError, match=r"5 images of 10 tokens do not fill groups of 40 tokens \(4 images\)"):
        model(images[:5])
    model.set_routing(group_size="batch")
    assert model(images[:5]).routings[1].gates.shape == (1, 50, E)


def test_default_group_is_eight_images(images: torch.Tensor) -> None:
    assert make(group_size=None)(images).routings[1].gates.shape == (1, 80, E)


@pytest.mark.parametrize("kind", ROUTERS)
def test_switches_of_another_kind_are_refused(kind: str) -> None:
    missing = SWITCHES["token_choice"] - SWITCHES[kind] | {"colour"}  # type: ignore[index]
    for name in sorted(missing):
        with pytest.raises(InputError, match=f"has no switch {name}"):
            make(kind).set_routing(**{name: 1})


def test_noise_only_in_training_and_as_given(model: VMoE, images: torch.Tensor) -> None:
    model.set_routing(noise_std=1.0)
    logits = model(images).routings[1].logits
    assert model(images).routings[1].noise is None
    given = torch.full_like(logits, 0.5) * torch.arange(E).view(E, *[1] * (logits.ndim - 3))
    noisy = model(images, noise={1: given}).routings[1]
    assert torch.equal(noisy.noise, given)
    assert torch.equal(noisy.logits, logits)
    model.train()
    draws = [model(images, generator=torch.Generator().manual_seed(7)).routings[1].noise for _ in range(2)]
    assert torch.equal(draws[0], draws[1])
    expected = 1.0 if isinstance(noisy, SoftSlots) else 1.0 / E
    assert draws[0].std().item() == pytest.approx(expected, rel=0.2)


def test_noise_of_another_shape_is_refused(images: torch.Tensor) -> None:
    with pytest.raises(InputError, match="noise is"):
        make()(images, noise={1: torch.zeros(1, S, E)})


def test_bfloat16_rounds_experts_and_not_weights(images: torch.Tensor) -> None:
    plain, rounded = watch(make(), images), watch(make().set_routing(bfloat16=True), images)
    assert torch.equal(plain["decided"].weights, rounded["decided"].weights)
    difference = (plain["output"] - rounded["output"]).abs().max().item()
    assert 1e-5 < difference < 0.1


def test_experts_share_their_beginning_unless_split() -> None:
    shape = {"num_classes": 3, "patch_size": 4, "hidden_size": H, "image_size": 12}
    for split in (False, True):
        moe = {"num_experts": E, "layers": [0], "split_rngs": split, "router": ROUTERS["token_choice"]}
        encoder = {"num_layers": 1, "mlp_dim": 8, "num_heads": 2, "moe": moe}
        config = VMoEConfig.from_dict({**shape, "patch_size": [4, 4], "image_size": [12, 12], "encoder": encoder})
        kernel = VMoE(config).layers[0].mlp.experts.up_proj  # type: ignore[union-attr]
        assert torch.equal(kernel[0], kernel[1]) is not split


def test_training_step_reaches_router_and_experts(model: VMoE, images: torch.Tensor) -> None:
    out = model.train()(images)
    (torch.nn.functional.cross_entropy(out.logits, torch.arange(8) % 3) + out.auxiliary_loss).backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if "mlp" in name}
    assert all(g is not None and torch.isfinite(g).all() and g.abs().sum() > 0 for g in gradients.values())
