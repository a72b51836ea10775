"""Streams, modalities, places and stages that say which expert runs: VLMo, ConFiner, CogVideoX, multiway networks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusion_systems import MultiwayLayer, System, cogvideox, inputs_of, own, seeded, stacked
from systems_checks import Rows, executes, halved, moved, same_rows, stored_rows, without
from torch import Tensor

import moescope
from moescope.contracts import find
from moescope.errors import NotMoEError, ProofFailed
from moescope.models.zoo.denoisers._parts_diffusion import denoise
from moescope.proof import observed

Rule = Callable[[Any, tuple[Any, ...]], Rows]


def repeated(numbers: list[int], times: int) -> Rows:
    """One expert for each row, weight 1, for so many sequences."""
    return [{n: 1.0} for n in numbers] * times


def vlmo(**parts: Any) -> System:
    """VLMo on a part of its example's inputs, or all."""
    system = own("vlmo")
    system.inputs = {name: value for name, value in system.inputs.items() if parts.get(name, True)}
    return system


def pairs(block: Any, _: Any) -> Rows:
    """Text places, then image places; all through the third expert where there is one."""
    return repeated([2] * 12 if len(block.experts) == 3 else [0] * 8 + [1] * 4, 3)


def by_stage(_: Any, args: tuple[Any, ...]) -> Rows:
    """ConFiner: control from timestep 650 on; below it spatial and temporal by turns of 125."""
    numbers = []
    for time in args[1].tolist():
        numbers.append(0 if time >= 650 else 1 if (650 - time) % 250 < 125 else 2)
    return repeated(numbers, 1)


def gate_lengths(block: Any, args: tuple[Any, ...]) -> Rows:
    """CogVideoX: the length of the third (video) or sixth (text) part of what the timestep's embedding gives."""
    video, text, condition = args
    rows: list[dict[int, float]] = []
    for one in condition:
        six = (block.linear.weight @ (one * torch.sigmoid(one)) + block.linear.bias).view(6, -1)
        lengths = {0: float(six[5].square().sum().sqrt()), 1: float(six[2].square().sum().sqrt())}
        rows += [{0: lengths[0]}] * text.shape[1] + [{1: lengths[1]}] * video.shape[1]
    return rows


SYSTEMS: dict[str, tuple[Callable[[], System], Rule, list[str]]] = {
    "vlmo, pairs": (vlmo, pairs, ["ffn"] * 3),
    "vlmo, text": (lambda: vlmo(image=False), lambda *_: repeated([0] * 8, 3), ["ffn"] * 3),
    "vlmo, images": (lambda: vlmo(input_ids=False), lambda *_: repeated([1] * 4, 3), ["ffn"] * 3),
    "confiner": (lambda: own("confiner"), by_stage, ["ffn"]),
    "cogvideox": (cogvideox, gate_lengths, ["attention", "ffn"] * 2),
    "multiway, split": (
        lambda: stacked(seeded(lambda: MultiwayLayer(2))), lambda *_: repeated([0, 0, 1, 1, 1], 3), ["attention.q_proj", "ffn"],
    ),
    "multiway, all A": (
        lambda: stacked(seeded(lambda: MultiwayLayer(-1))), lambda *_: repeated([0] * 5, 3), ["attention.q_proj", "ffn"],
    ),
    "multiway, all B": (
        lambda: stacked(seeded(lambda: MultiwayLayer(0))), lambda *_: repeated([1] * 5, 3), ["attention.q_proj", "ffn"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SYSTEMS)
def test_sites(name: str) -> None:
    """Every place where streams part."""
    make, _, places = SYSTEMS[name]
    sites = find(make().model)
    assert [(s.contract.name, s.kind, s.block_type) for s in sites] == [("static_streams", "static", p) for p in places]


@pytest.mark.parametrize("name", SYSTEMS)
def test_stored_is_the_rule(name: str, tmp_path: Path) -> None:
    """What is stored of every row is its stream."""
    make, rule, _ = SYSTEMS[name]
    system = make()
    blocks = {s.path: s.name for s in find(system.model)}
    stored = stored_rows(system, tmp_path / "run.duckdb")
    heard = inputs_of(system, *blocks.values())
    assert set(stored) == set(blocks)
    for router, rows in stored.items():
        same_rows(rows, rule(system.model.get_submodule(blocks[router]), heard[blocks[router]][0]))


@pytest.mark.parametrize("edit", [moved, halved, without(1), without(0)], ids=["moved", "halved", "without 1", "without 0"])
@pytest.mark.parametrize("name", [n for n in SYSTEMS if n in ("vlmo, pairs", "confiner", "cogvideox", "multiway, split")])
def test_other_decisions_are_executed(name: str, edit: Any) -> None:
    """The layer does what is written instead, and the listener says so."""
    executes(SYSTEMS[name][0](), edit)


def test_names_of_experts() -> None:
    """Streams and whole models have names."""
    assert find(own("vlmo").model)[2].expert_names == {0: "text", 1: "image", 2: "vision-language"}
    assert find(own("confiner").model)[0].expert_names == {0: "control", 1: "spatial", 2: "temporal"}
    assert find(cogvideox().model)[0].expert_names == {0: "text", 1: "video"}


def test_stages_follow_the_steps() -> None:
    """Eight steps of sampling: three of control, then spatial and temporal by turns; each image of a step has the same."""
    system = own("confiner")
    sites = find(system.model)
    with observed(sites) as calls:
        denoise(system.model, system.inputs["hidden_states"], steps=8)
    steps = [call.record.experts.flatten().tolist() for call in calls["stages"]]
    assert steps == [[n] * 3 for n in (0, 0, 0, 1, 2, 1, 2, 1)]


def test_gate_vector_of_another_model_is_refused(tmp_path: Path) -> None:
    """A norm of this form that adds something of its own does not follow from its record."""
    system = cogvideox()
    block: Any = system.model.get_submodule("transformer_blocks.1.norm2")

    def shifted(*args: Tensor, forward: Any = block.forward) -> tuple[Tensor, ...]:
        video, text, gate, text_gate = forward(*args)
        return video + 0.1, text, gate, text_gate

    block.forward = shifted
    with pytest.raises(ProofFailed, match=r"blocks\.1\.norm2 does not follow from what would be stored"), moescope.Tracer(
        system.model, tmp_path / "run.duckdb", inputs=system.inputs
    ):  # fmt: skip
        pass
    assert list(tmp_path.iterdir()) == []


def test_one_stream_is_nothing_static() -> None:
    """A module with children A and B and no split is no multiway network."""
    system = stacked(torch.nn.ModuleDict({"A": torch.nn.Linear(8, 8), "B": torch.nn.Linear(8, 8)}))
    with pytest.raises(NotMoEError, match="Stack has no router"):
        find(system.model)


def test_forward_of_the_instance_comes_back(tmp_path: Path) -> None:
    """A `forward` that somebody put on the instance (Accelerate does) is traced, and is there again afterwards."""
    system = cogvideox()
    block: Any = system.model.get_submodule("transformer_blocks.0.norm1")
    own_forward = block.forward = lambda *args, forward=block.forward: forward(*args)
    stored = stored_rows(system, tmp_path / "run.duckdb")
    assert len(stored["transformer_blocks.0.norm1"]) == 26
    assert block.forward is own_forward
