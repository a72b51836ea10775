"""Every small system: what the store holds is executed again, bit for bit, and an expert whose weights are 0 gives nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import MixtralConfig, MixtralForCausalLM
from zoo_text import Layered, places

import moescope
from moescope.interventions import Replay, Zero, intervene, read_routes
from moescope.models.zoo.language import dselect_k, evomoe, glam, hierarchical, mod, moe1991, mor, shazeer
from moescope.models.zoo.modalities import limoe
from moescope.proof import tensors

HeirarchicalMoE = pytest.importorskip("mixture_of_experts").HeirarchicalMoE
StMoE = pytest.importorskip("st_moe_pytorch").MoE


def mixtral_behind_routers() -> nn.Module:
    """Mixtral, every other layer of which may be left out."""
    torch.manual_seed(0)
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 4}
    return mod.wrap(MixtralForCausalLM(MixtralConfig(vocab_size=512, hidden_size=32, intermediate_size=32, **sizes)).eval())


SYSTEMS: dict[str, Callable[[], nn.Module]] = {
    "mod": mod.build,
    "mod by predictor": lambda: mod.build(select="predictor"),
    "mor": mor.build,
    "mor by tokens": lambda: mor.build(choice="token"),
    "moe1991": moe1991.build,
    "hierarchical": lambda: hierarchical.build(depth=3),
    "shazeer": shazeer.build,
    "dselect_k": dselect_k.build,
    "evomoe": evomoe.build,
    "glam": lambda: glam.build(capacity=0.5),
    "limoe": lambda: limoe.build(capacity=0.5),
    "mixtral behind mod": mixtral_behind_routers,
    "st-moe-pytorch": lambda: Layered(lambda: StMoE(16, num_experts=4, threshold_eval=0.9)).eval(),
    "two levels": lambda: Layered(lambda: HeirarchicalMoE(16, num_experts=(3, 4))).eval(),
}


CHANCE = "shazeer", "evomoe", "st-moe-pytorch", "two levels"  # what draws in evaluation too


def inputs(name: str, model: nn.Module) -> dict[str, Any]:
    """The model's own example, with padding behind the second row."""
    given = limoe.example(model) if name == "limoe" else mod.text_example(512, 3, 12, 0)
    given["attention_mask"][1, -4:] = 0
    if name in CHANCE[2:]:  # these pass no mask on: padding is routed as the router pleases
        given["attention_mask"][:] = 1
    return given


def run(model: nn.Module, given: dict[str, Any], seed: int) -> list[torch.Tensor]:
    """All outputs at real places, chance by the seed."""
    torch.manual_seed(seed)
    with torch.no_grad():
        output = model(**given)
    real = given["attention_mask"].bool()
    return [t[real] if t.shape[:2] == real.shape else t for t in tensors(output)]


@pytest.mark.sampled(6)
@pytest.mark.parametrize("name", SYSTEMS)
def test_what_was_stored_is_executed_again(name: str, tmp_path: Path) -> None:
    """Replayed from the store, the model gives the same output bit for bit, also where it draws other noise by itself."""
    model = SYSTEMS[name]()
    given = inputs(name, model)
    with moescope.Tracer(model, tmp_path / "a.duckdb", inputs=given):
        before = run(model, given, seed=1)
    with moescope.open(tmp_path / "a.duckdb") as store:
        keys = np.full(given["input_ids"].numel(), -1)
        for token, place in places(store, given["attention_mask"]).items():
            keys[place] = token
        routes = read_routes(store, 0, 0, {"decoder": keys})
    with intervene(model, Replay(routes=routes)):
        again = run(model, given, seed=2)
    assert len(before) == len(again) > 0
    if name in CHANCE[2:]:  # other draws leave other gaps in their buffers, which round otherwise
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(before, again))
    else:
        assert all(torch.equal(a, b) for a, b in zip(before, again))
    other = run(model, given, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(before, other)) == (name not in CHANCE)


@pytest.mark.parametrize("name", SYSTEMS)
def test_weights_of_zero_are_executed(name: str) -> None:
    """Without expert 0 of any router the model's output is another one, and the model is as it was behind it."""
    model = SYSTEMS[name]()
    given = inputs(name, model)
    before = run(model, given, seed=1)
    with intervene(model, Zero(experts=[0])):
        without = run(model, given, seed=1)
    assert not torch.allclose(before[0], without[0], atol=1e-4)
    assert all(torch.equal(a, b) for a, b in zip(before, run(model, given, seed=1)))
