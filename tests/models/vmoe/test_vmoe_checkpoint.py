"""Reading the authors' checkpoint files: theirs, ours, and broken ones."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from vmoe_writer import write

from moescope.errors import InputError
from moescope.models.vmoe.checkpoints.checkpoint import from_checkpoint, read_checkpoint
from moescope.models.vmoe.checkpoints.published import infer_config

THEIRS = Path(__file__).parents[2] / "goldens" / "vmoe_checkpoints"
TREE = {
    "embedding": {"kernel": np.arange(24, dtype=np.float32).reshape(4, 6), "bias": np.ones(6, np.float32)},
    "head": {"kernel": np.arange(12, dtype=np.float32).reshape(6, 2)},
    "scale": np.array(2.5, np.float32),
}
FLAT = {"embedding/bias": TREE["embedding"]["bias"], "embedding/kernel": TREE["embedding"]["kernel"],
        "head/kernel": TREE["head"]["kernel"], "scale": TREE["scale"]}  # fmt: skip


def same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> bool:
    return found.keys() == expected.keys() and all(np.array_equal(found[k], expected[k]) for k in expected)


def state(params: dict[str, Any]) -> dict[str, Any]:
    """A train state around the parameters; the moments have their shapes and other values."""
    moments = {"embedding": {"kernel": np.zeros((4, 6), np.float32), "bias": np.zeros(6, np.float32)}}
    return {"opt_state": {"0": {"mu": moments}}, "params": params, "step": np.array(7, np.int32)}


@pytest.mark.parametrize("name", ["state", "old"])
def test_files_of_the_authors_code(name: str) -> None:
    assert same(read_checkpoint(THEIRS / name), dict(np.load(THEIRS / "params.npz")))


def test_model_from_a_checkpoint_alone() -> None:
    model = from_checkpoint(THEIRS / "state")
    config = model.config
    assert (config.num_classes, config.patch_size, config.hidden_size, config.image_size) == (3, (4, 4), 8, (8, 8))
    assert (config.representation_size, config.encoder.num_heads, config.encoder.moe.layers) == (8, 2, (1,))
    assert model(torch.zeros(8, 3, 8, 8)).logits.shape == (8, 3)


@pytest.mark.parametrize("shards", [1, 3, 7])
def test_shards_and_pieces(tmp_path: Path, shards: int) -> None:
    write(tmp_path / "c", {"params": TREE}, shards)
    assert same(read_checkpoint(tmp_path / "c"), FLAT)
    assert same(read_checkpoint(f"{tmp_path}/c.index"), FLAT)


def test_optimizer_state_is_left_out_and_root_parameters_are_read(tmp_path: Path) -> None:
    write(tmp_path / "state", state(TREE))
    write(tmp_path / "root", TREE)
    assert same(read_checkpoint(tmp_path / "state"), FLAT)
    assert same(read_checkpoint(tmp_path / "root"), FLAT)


def test_shards_without_parameters_are_not_opened(tmp_path: Path) -> None:
    write(tmp_path / "c", {"params": {"cls": np.ones((1, 2), np.float32)}, "step": np.array(1, np.int32)}, 2)
    (tmp_path / "c.data-00001-of-00002").write_bytes(b"\xc1 no msgpack")
    assert same(read_checkpoint(tmp_path / "c"), {"cls": np.ones((1, 2), np.float32)})


def test_files_without_version(tmp_path: Path) -> None:
    write(tmp_path / "root", TREE, version=None)
    assert same(read_checkpoint(tmp_path / "root"), FLAT)
    write(tmp_path / "alone", {"params": TREE}, version=None)
    assert same(read_checkpoint(tmp_path / "alone"), FLAT)


def test_bfloat16_becomes_float32(tmp_path: Path) -> None:
    values = np.array([1.0, -2.5, 0.15625], np.float32)
    write(tmp_path / "c", {"cls": (values.view(np.uint32) >> 16).astype(np.uint16)}, 1, dtype="bfloat16")
    assert same(read_checkpoint(tmp_path / "c"), {"cls": values})


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="index does not exist: give the prefix"):
        read_checkpoint(tmp_path / "none")
    write(tmp_path / "c", TREE, 3)
    (tmp_path / "c.data-00001-of-00003").unlink()
    with pytest.raises(InputError, match=r"1 of 3 data files of .* are missing, the first is c\.data-00001-of-00003"):
        read_checkpoint(tmp_path / "c")


@pytest.mark.parametrize("content", [b"", b"not msgpack", b"\x81\xa1a\x01", b"\x93\x01\x02\x03", b"\xc1"])
def test_index_that_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.index").write_bytes(content)
    with pytest.raises(InputError, match="not the index of a V-MoE checkpoint"):
        read_checkpoint(tmp_path / "c")


@pytest.mark.parametrize("keep", [0, 1, 60, 200])
def test_cut_off_data(tmp_path: Path, keep: int) -> None:
    write(tmp_path / "c", TREE, 1)
    data = tmp_path / "c.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:keep])
    with pytest.raises(InputError, match="damaged"):
        read_checkpoint(tmp_path / "c")


def test_pieces_that_do_not_fit_the_index(tmp_path: Path) -> None:
    write(tmp_path / "c", TREE, 1)
    write(tmp_path / "d", {**TREE, "scale": np.zeros((), np.float32), "head": {"kernel": np.zeros((6, 3), np.float32)}}, 1)
    (tmp_path / "d.data-00000-of-00001").replace(tmp_path / "c.data-00000-of-00001")
    with pytest.raises(InputError, match="does not know"):
        read_checkpoint(tmp_path / "c")
    write(tmp_path / "e", {"embedding": TREE["embedding"]}, 1)
    (tmp_path / "e.data-00000-of-00001").replace(tmp_path / "c.data-00000-of-00001")
    with pytest.raises(InputError, match="hold only parts of head/kernel"):
        read_checkpoint(tmp_path / "c")


def test_unknown_version(tmp_path: Path) -> None:
    write(tmp_path / "c", TREE, version="20300101")
    with pytest.raises(InputError, match="is of version 20300101"):
        read_checkpoint(tmp_path / "c")


def shapes(hidden: int, heads: int, layers: int, patch: int, side: int, sparse: set[int], head: int, pre: bool) -> Any:
    """Parameters of a published model, as arrays that take no memory."""

    def empty(*shape: int) -> np.ndarray:
        return np.broadcast_to(np.float32(0), shape)

    tokens, mlp = (side // patch) ** 2 + 1, 4 * hidden
    found = {"embedding/kernel": empty(patch, patch, 3, hidden), "cls": empty(1, 1, hidden)}
    found["Encoder/posembed_input/pos_embedding"] = empty(1, tokens, hidden)
    found["head/kernel"] = empty(hidden, head)
    found |= {"pre_logits/kernel": empty(hidden, hidden)} if pre else {}
    for i in range(layers):
        block = f"Encoder/encoderblock_{i}"
        found[f"{block}/SelfAttention/query/kernel"] = empty(hidden, heads, hidden // heads)
        found |= {f"{block}/Moe/Router/dense/kernel": empty(hidden, 8)} if i in sparse else {}
        found[f"{block}/Moe/Mlp/Dense_0/kernel" if i in sparse else f"{block}/Mlp/Dense_0/kernel"] = empty(hidden, mlp)
    return found


# hidden, heads, layers, patch, side, sparse layers, classes, pre_logits; group size and capacity factor (evaluation)
PUBLISHED = [
    (512, 8, 8, 32, 224, {5, 7}, 1000, True, 400, 4.0),
    (512, 8, 8, 32, 384, {5, 7}, 1000, False, 1160, 1.5),
    (768, 12, 12, 16, 224, {1, 3, 5, 7, 9, 11}, 21843, False, 1576, 1.05),
    (768, 12, 12, 16, 384, {1, 3, 5, 7, 9, 11}, 1000, False, 4616, 1.5),
]


@pytest.mark.parametrize("row", PUBLISHED, ids=["S/32", "S/32 fine-tuned", "B/16", "B/16 fine-tuned"])
def test_configs_of_the_published_models(row: tuple[Any, ...]) -> None:
    hidden, heads, layers, patch, side, sparse, classes, pre, group, factor = row
    config = infer_config(shapes(*row[:8]))
    moe, encoder = config.encoder.moe, config.encoder
    assert (encoder.num_layers, encoder.num_heads, encoder.mlp_dim) == (layers, heads, 4 * hidden)
    assert (config.num_classes, config.patch_size, config.image_size) == (classes, (patch, patch), (side, side))
    assert config.representation_size == (hidden if pre else None)
    assert (moe.num_experts, moe.layers, moe.group_size) == (8, tuple(sorted(sparse)), group)
    assert (moe.router.num_selected_experts, moe.router.dispatcher.capacity_factor) == (2, factor)
    assert moe.router.dispatcher.bfloat16
    assert not moe.router.dispatcher.batch_priority


def test_training_capacity_of_s32() -> None:
    config = infer_config(shapes(*PUBLISHED[0][:8]), evaluation=False)
    assert config.encoder.moe.router.dispatcher.capacity_factor == 1.05


def test_parameters_that_are_no_plain_vmoe() -> None:
    with pytest.raises(InputError, match="not those of a published V-MoE"):
        infer_config({"kernel": np.zeros((2, 2))})
    ensemble = shapes(*PUBLISHED[0][:8])
    ensemble["Encoder/encoderblock_5/Moe/Router/dense/kernel"] = np.zeros((2, 512, 4), np.float32)
    with pytest.raises(InputError, match="ensembles are not built"):
        infer_config(ensemble)
