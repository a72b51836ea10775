"""What cannot be traced is refused in one sentence that names the module; no store is left behind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from handwritten import ByHand, Layer, Model
from torch import nn

import moescope
from moescope.contracts import find
from moescope.errors import InputError, ModelError, NotMoEError, ProofFailed, UnknownContract
from moescope.models import tiny
from moescope.proof import example_inputs, prove
from moescope.routers.versions import check_version


class Plain(nn.Module):
    """No router."""

    def forward(self, input_ids: Any) -> Any:
        return input_ids


def bypassed() -> tuple[nn.Module, Any]:
    """Mixtral with a block that uses its router's and experts' weights and calls neither, as fused kernels do."""
    built = tiny.build("mixtral")
    block: Any = built.model.model.layers[2].mlp

    def fused(hidden: torch.Tensor) -> torch.Tensor:
        logits = torch.nn.functional.linear(hidden, block.gate.weight)
        return hidden * logits.softmax(-1).amax(-1, keepdim=True)

    block.forward = fused
    return built.model, built.inputs


def text_only() -> tuple[nn.Module, Any]:
    """Inputs without an image, so that routers of vision tokens stay silent."""
    built = tiny.build("ernie4_5_vl_moe_text")
    return built.model, {k: v for k, v in built.inputs.items() if k != "moe_mm_token_type_ids"}


IDS = {"input_ids": torch.arange(10).view(2, 5)}
REFUSED: dict[str, tuple[Callable[[], tuple[nn.Module, Any]], type[Exception], list[str]]] = {
    "no router": (lambda: (Plain(), IDS), NotMoEError, ["Plain has no router", "moescope families"]),
    "a kernel bypasses it": (bypassed, ProofFailed, ["model.layers.2.mlp.gate", "bypasses", "experts_implementation='eager'"]),
    "never fires": (text_only, ProofFailed, ["layers.0.mlp.vision_moe.gate", "never handed", "give inputs that reach it"]),
    "no contract": (lambda: (Model(ByHand), IDS), UnknownContract, ["layers.0 (ByHand)", "docs/plugin.md"]),
    "strange shapes": (
        lambda: (Model(Layer, form="floats"), IDS),
        UnknownContract,
        ["layers.0 hands its experts float32 (10, 2)", "docs/plugin.md"],
    ),
    "inputs that it cannot run": (
        lambda: (tiny.build("dots3_note_vision_encoder").model, None),
        InputError,
        ["Dots3NoteVisionModel cannot run on the inputs of its proof", "'grid_thw'", "inputs={...}"],
    ),
    "fails the proof": (
        lambda: (Model(Layer, wrong=True), IDS),
        ProofFailed,
        ["layers.0 does not follow from what would be stored", "contract 'triple'", "nothing is traced"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_name(case: str, tmp_path: Path) -> None:
    """The sentence names the module, says what is wrong and what to do; nothing is written."""
    make, kind, words = REFUSED[case]
    model, inputs = make()
    with pytest.raises(kind) as caught, moescope.Tracer(model, tmp_path / "run.duckdb", inputs=inputs):
        pass
    message = str(caught.value)
    assert [word for word in words if word not in message] == [], message
    assert "\n" not in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["ernie4_5_vl_moe_text", "vitpose_backbone", "switch_transformers"])
def test_made_up_inputs_reach_every_router(name: str) -> None:
    """Without inputs of the caller's: text and image places, a data set's number, a decoder's ids."""
    model = tiny.build(name).model
    sites = find(model)
    assert len(prove(model, sites, example_inputs(model))) == len(sites)


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("4.57.1", "too old"),
        ("5.0.0", "probabilities as logits"),
        ("5.17.9", "too old"),
        ("6.0.0", "newer"),
        ("5.18.0", None),
        ("5.23.0", None),
    ],
)
def test_versions(version: str, said: str | None) -> None:
    """Releases whose routers say something else are refused by their number."""
    if said is None:
        check_version(version)
        return
    with pytest.raises(ModelError, match=said):
        check_version(version)
