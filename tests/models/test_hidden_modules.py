"""Weights and modules that torch does not count as a model's: extra states that are None, experts in dictionaries and lists."""

from collections.abc import Callable
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
import torch
from mixtures import traced
from torch import Tensor, nn

import moescope
from moescope.models.describe import describe_model, weights_sha256
from moescope.models.zoo import megatron

EXTRA = [None, "text", 3, {"a": None, "b": [None, 1.5]}, (), torch.ones(2), {"deep": {"er": torch.zeros(3)}}, b"bytes"]


class Stateful(nn.Linear):
    """Says something of its own in its state dict."""

    extra: Any = None

    def get_extra_state(self) -> Any:
        return self.extra

    def set_extra_state(self, state: Any) -> None:
        self.extra = state


@pytest.mark.parametrize("extra", EXTRA, ids=repr)
def test_extra_state(extra: Any) -> None:
    """Whatever a state dict holds, a model is described, and its hash tells extra states apart."""
    torch.manual_seed(0)
    model = Stateful(3, 4)
    without = weights_sha256(nn.Linear(3, 4).requires_grad_(False))
    model.extra = extra
    row, notes = describe_model(model)
    assert (row["parameters"], notes) == (16, [])
    assert row["weights_sha256"] != without
    model.extra = "another"
    assert describe_model(model)[0]["weights_sha256"] != row["weights_sha256"]


def test_megatron_extra_state(tmp_path: Path) -> None:
    """Megatron's layers have an extra state that is None: traced all the same."""
    model = megatron.build()
    assert None in model.state_dict().values()
    traced(model, megatron.example(model), tmp_path / "a.duckdb")


class Held(nn.Module):
    """A feed-forward of top-1 experts that are kept where torch does not look."""

    def __init__(self, keep: Callable[["Held", list[nn.Module]], Any]) -> None:
        super().__init__()
        self.router = nn.Linear(32, 3, bias=False)
        self.mixture = {"experts": 3, "kind": "token_choice"}
        made = [nn.Sequential(nn.Linear(32, 32), nn.Dropout(0.5), nn.Linear(32, 32)) for _ in range(3)]
        keep(self, list(made))
        self.taken = lambda number: made[number]

    def route(self, hidden: Tensor) -> Any:
        """The largest softmax."""
        from moescope.models.zoo._parts_mixtures import Decision

        logits = self.router(hidden).flatten(0, 1)
        weights, experts = logits.softmax(-1).topk(1, dim=-1)
        return Decision(experts, weights, logits)

    def part(self, number: int, hidden: Tensor) -> Tensor:
        """One expert."""
        return self.taken(number)(hidden)  # type: ignore[no-any-return]

    def rest(self, hidden: Tensor) -> float:
        """Nothing."""
        return 0.0

    def forward(self, hidden: Tensor) -> Tensor:
        """Σ w E(x)"""
        decision = self.route(hidden)
        made = torch.stack([self.part(n, hidden).flatten(0, 1) for n in range(3)], 1)
        chosen = made.gather(1, decision.experts[..., None].expand(-1, -1, made.shape[-1]))
        return (chosen * decision.weights[..., None]).sum(1).view_as(hidden)


class Owner(nn.Module):
    """Owns experts, and lends a method."""

    def __init__(self, experts: list[nn.Module]) -> None:
        super().__init__()
        self.experts = nn.ModuleList(experts)

    def lend(self) -> None:
        """Nothing."""


KEPT: dict[str, Callable[[Any, list[nn.Module]], Any]] = {
    "dictionary": lambda m, e: setattr(m, "held", {f"expert {n}": one for n, one in enumerate(e)}),
    "list": lambda m, e: setattr(m, "held", e),
    "tuple": lambda m, e: setattr(m, "held", tuple(e)),
    "dictionary of lists": lambda m, e: setattr(m, "held", {"default": [e]}),
    "attribute behind torch's back": lambda m, e: vars(m).update(zip("abc", e)),
    "owner of a method": lambda m, e: setattr(m, "held", MethodType(Owner.lend, Owner(e))),
    "hidden in a hidden one": lambda m, e: setattr(m, "held", [Outer(e)]),
}


class Outer(nn.Module):
    """Hides experts as well."""

    def __init__(self, experts: list[nn.Module]) -> None:
        super().__init__()
        self.inner = {"here": experts}


def build(keep: Callable[[Any, list[nn.Module]], Any], seed: int = 0) -> Any:
    """A language model with such a layer."""
    from moescope.models.zoo._parts_adapters import CausalLM

    torch.manual_seed(seed)
    return CausalLM("held", 2, 32, 64, lambda _: Held(keep)).eval()


@pytest.mark.parametrize("kind", KEPT)
def test_hash_and_count(kind: str) -> None:
    """Experts that torch does not count are in the hash and in the number of parameters."""
    one, other = build(KEPT[kind]), build(KEPT[kind])
    assert len(one.state_dict()) < 30  # none of the 24 tensors of experts
    assert not [name for name in one.state_dict() if "expert" in name]
    plain = sum(p.numel() for p in one.parameters())
    assert describe_model(one)[0]["parameters"] == plain + 2 * 3 * 2 * (32 * 32 + 32)
    assert weights_sha256(one) == weights_sha256(other)
    with torch.no_grad():
        other.layers[1].mlp.taken(2)[0].weight[0, 0] += 1
    assert weights_sha256(one) != weights_sha256(other)


@pytest.mark.parametrize("kind", KEPT)
def test_proof_and_word(kind: str, tmp_path: Path) -> None:
    """Dropout that eval() does not reach is off in the proof, on in the run, and the run says so."""
    from moescope.models.zoo._parts_adapters import example_text

    model = build(KEPT[kind])
    experts = [model.layers[n].mlp.taken(e) for n in range(2) for e in range(3)]
    assert all(e.training for e in experts)
    proof = traced(model, example_text(model), tmp_path / "a.duckdb")
    assert all(p.identical for p in proof)
    assert all(e.training and e[1].training for e in experts)
    (said,) = warnings(tmp_path / "a.duckdb")
    assert "and 5 more stayed in training, since eval() does not reach what is in plain dictionaries and lists" in said
    for expert in experts:
        expert.eval()
    traced(model, example_text(model), tmp_path / "b.duckdb")
    assert warnings(tmp_path / "b.duckdb") == []


def warnings(store: Path) -> list[str]:
    """Of its run."""
    import json

    with moescope.open(store) as opened:
        return json.loads(opened.rows("select warnings from runs")[0][0])  # type: ignore[no-any-return]
