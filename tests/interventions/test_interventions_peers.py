"""nnsight and TransformerLens give the logits that our own edits give."""

import os
from typing import Any

import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from planted import mixtral

from moescope.interventions import RouteAround, Zero, intervene
from moescope.interventions.peers import lens_route_around, lens_zero, nnsight_route_around, nnsight_zero

IDS = torch.tensor([[4, 9, 17, 30, 5, 11], [40, 12, 6, 7, 33, 21]])
GONE = [1, 2]


def ours(model: Any, edit: Any) -> torch.Tensor:
    with torch.no_grad(), intervene(model, edit):
        return model(input_ids=IDS).logits


@pytest.fixture(scope="module")
def wanted() -> dict[str, torch.Tensor]:
    model = mixtral(1, k=2, layers=2)
    found = {
        "zero": ours(model, Zero(layers=1, experts=GONE)),
        "route-around": ours(model, RouteAround(layers=1, experts=GONE)),
        "none": ours(model, Zero(layers=1, experts=[0], tokens=torch.zeros(12, dtype=torch.bool))),
    }
    assert float((found["zero"] - found["none"]).abs().max()) > 1e-5
    assert float((found["route-around"] - found["none"]).abs().max()) > 1e-5
    return found


def test_nnsight(wanted: Any) -> None:
    nnsight = pytest.importorskip("nnsight")
    model = nnsight.NNsight(mixtral(1, k=2, layers=2))
    with torch.no_grad(), model.trace(input_ids=IDS):
        nnsight_zero(model.model.layers[1], GONE)
        zero = model.output.logits.save()
    with torch.no_grad(), model.trace(input_ids=IDS):
        nnsight_route_around(model.model.layers[1], GONE, k=2)
        around = model.output.logits.save()
    assert float((zero - wanted["zero"]).abs().max()) <= 1e-6
    assert float((around - wanted["route-around"]).abs().max()) <= 1e-6


@pytest.mark.slow
def test_transformer_lens(wanted: Any) -> None:
    builder = pytest.importorskip("transformer_lens.model_bridge.sources._bridge_builder")
    model = mixtral(1, k=2, layers=2)
    model.config.architectures = ["MixtralForCausalLM"]
    bridge = builder.build_bridge_from_module(model, "MixtralForCausalLM", hf_config=model.config)
    bridge.eval()
    with torch.no_grad():
        zero = bridge.run_with_hooks(IDS, fwd_hooks=lens_zero(1, GONE))
        around = bridge.run_with_hooks(IDS, fwd_hooks=lens_route_around(1, GONE, k=2))
    assert float((zero - wanted["zero"]).abs().max()) <= 1e-6
    assert float((around - wanted["route-around"]).abs().max()) <= 1e-6
