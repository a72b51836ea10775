"""Reading configs, saving and loading, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from common_goldens import golden as load_golden

from moescope.errors import InputError
from moescope.models.vmoe import VMoE, VMoEConfig, from_flax

GOLDENS = Path(__file__).parents[2] / "goldens" / "vmoe"
CASES = sorted(GOLDENS.glob("small_*.npz"))


@pytest.fixture(params=CASES, ids=lambda path: path.stem)
def golden(request: pytest.FixtureRequest) -> dict[str, np.ndarray]:
    return load_golden(request.param)


def tree() -> dict[str, Any]:
    moe = {"num_experts": 4, "layers": [1], "router": {"num_selected_experts": 2, "dispatcher": {"capacity_factor": 1.0}}}
    encoder = {"num_layers": 2, "mlp_dim": 8, "num_heads": 2, "moe": moe}
    return {"num_classes": 3, "patch_size": [4, 4], "hidden_size": 16, "image_size": [8, 8], "encoder": encoder}


def changed(path: str, value: Any) -> dict[str, Any]:
    found = tree()
    level = found
    *above, last = path.split(".")
    for name in above:
        level = level[name]
    level[last] = value
    return found


def test_every_way_to_give_a_config(golden: dict[str, np.ndarray]) -> None:
    text = str(golden["config_json"])
    configs = [VMoEConfig.from_dict(way) for way in (golden["config_json"], text, json.loads(text))]
    assert configs[0] == configs[1] == configs[2]


def test_a_config_survives_json(golden: dict[str, np.ndarray]) -> None:
    config = VMoEConfig.from_dict(golden["config_json"])
    assert VMoEConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_every_way_to_give_parameters(golden: dict[str, np.ndarray]) -> None:
    bare = {k.removeprefix("params/"): v for k, v in golden.items() if k.startswith("params/")}
    nested: dict[str, Any] = {}
    for path, value in bare.items():
        level = nested
        *above, last = path.split("/")
        for name in above:
            level = level.setdefault(name, {})
        level[last] = value
    states = [from_flax(way, golden["config_json"]).state_dict() for way in (golden, bare, nested, {"params": nested})]
    for other in states[1:]:
        assert all(torch.equal(other[name], value) for name, value in states[0].items())


def test_saved_and_loaded_models_are_equal(golden: dict[str, np.ndarray], tmp_path: Path) -> None:
    model = from_flax(golden, golden["config_json"])
    model.save_pretrained(tmp_path / "model")
    again = VMoE.from_pretrained(tmp_path / "model")
    assert again.config == model.config
    assert json.loads((tmp_path / "model" / "config.json").read_text())["model_type"] == "vmoe"
    images = torch.tensor(golden["images"])
    with torch.no_grad():
        assert torch.equal(model(images).logits, again(images).logits)


def test_switched_routing_is_saved(tmp_path: Path) -> None:
    VMoE(VMoEConfig.from_dict(tree())).set_routing(capacity_factor=0.5, batch_priority=True).save_pretrained(tmp_path)
    dispatcher = VMoE.from_pretrained(tmp_path).config.encoder.moe.router.dispatcher
    assert (dispatcher.capacity_factor, dispatcher.batch_priority) == (0.5, True)


BAD = [
    ("encoder.moe.router.name", "TopKRouter", "router 'TopKRouter' is not among"),
    ("encoder.moe.router.name", "SoftRouter(3)", "options must be named"),
    ("encoder.moe.router.name", "Soft Router", "cannot be read"),
    ("encoder.moe.router.colour", 1, "router has unknown options colour"),
    ("encoder.moe.router.dispatcher", {"name": "magic"}, "dispatcher 'magic' is unknown"),
    ("encoder.moe.router.dispatcher", {"capacity": 4, "capacity_factor": 1.0}, "both given"),
    ("encoder.moe.router.dispatcher", {"capacity_ceil_or_round": "floor"}, "must be 'ceil' or 'round'"),
    ("encoder.num_heads", 3, "not a multiple of 3 heads"),
    ("encoder.moe.experts", 3, "moe has unknown options experts"),
    ("encoder", {"num_layers": 2}, "encoder lacks mlp_dim, num_heads"),
    ("classifier", "last", "classifier 'last' is unknown"),
    ("name", "VisionTransformerMoeEnsemble", "ensemble"),
]


@pytest.mark.parametrize(("path", "value", "message"), BAD)
def test_configs_that_cannot_be_built(path: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        VMoEConfig.from_dict(changed(path, value))


def test_routers_that_cannot_decide() -> None:
    images = torch.zeros(8, 3, 8, 8)
    for path, value, message in (
        ("encoder.moe.router.num_selected_experts", 5, "must be from 1 to 4"),
        ("encoder.moe.router.dispatcher", {}, "neither capacity nor capacity_factor"),
    ):
        with pytest.raises(InputError, match=message):
            VMoE(VMoEConfig.from_dict(changed(path, value)))(images)


@pytest.mark.parametrize("text", ["{", "[1]", "3"])
def test_text_that_is_no_config(text: str) -> None:
    with pytest.raises(InputError, match="the config is"):
        VMoEConfig.from_dict(text)


def test_images_of_another_shape_are_refused() -> None:
    model = VMoE(VMoEConfig.from_dict(tree()))
    with pytest.raises(InputError, match="must be"):
        model(torch.zeros(8, 8, 8))
    with pytest.raises(InputError, match="4 x 4 patches make 17 tokens, not 5"):
        model(torch.zeros(8, 3, 16, 16))


def test_parameters_that_do_not_fit(golden: dict[str, np.ndarray]) -> None:
    config, bare = golden["config_json"], {k: v for k, v in golden.items() if k.startswith("params/")}
    with pytest.raises(InputError, match="Missing key"):
        from_flax({k: v for k, v in bare.items() if "encoder_norm" not in k}, config)
    with pytest.raises(InputError, match="'Encoder/extra' is not one of a V-MoE"):
        from_flax({**bare, "params/Encoder/extra": np.zeros(1)}, config)
    with pytest.raises(InputError, match="size mismatch"):
        from_flax({**bare, "params/Encoder/encoder_norm/bias": np.zeros(3, np.float32)}, config)
    with pytest.raises(InputError, match="no embedding/kernel"):
        from_flax({"x": np.zeros(1)}, config)


def test_folders_that_hold_no_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no config.json and no model.safetensors"):
        VMoE.from_pretrained(tmp_path)
    VMoE(VMoEConfig.from_dict(tree())).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(InputError, match="cannot be read as a saved V-MoE"):
        VMoE.from_pretrained(tmp_path)
    VMoE(VMoEConfig.from_dict(tree())).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "mixtral"}')
    with pytest.raises(InputError, match="another kind of model"):
        VMoE.from_pretrained(tmp_path)
