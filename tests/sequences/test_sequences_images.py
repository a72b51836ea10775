"""Pieces of images and videos in a text are no text: their unit and place come from the model's own ids and grids."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from stored_sequences import made, traced
from torch import Tensor

from moescope.models.tiny import build

IMAGE, VIDEO, BEGIN, END = 90, 91, 92, 93
TEXT = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "moe_intermediate_size": 16, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "num_experts": 8, "num_experts_per_tok": 2,
    "max_position_embeddings": 256, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": None,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
}  # fmt: skip
EYES = {
    "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "patch_size": 4, "temporal_patch_size": 2,
    "spatial_merge_size": 2, "out_hidden_size": 32,
}  # fmt: skip
IDS = {"image_token_id": IMAGE, "video_token_id": VIDEO}


def qwen() -> Any:
    text = TEXT | {"rope_parameters": TEXT["rope_parameters"] | {"mrope_section": [4, 2, 2]}}  # type: ignore[operator]
    eyes = EYES | {"num_position_embeddings": 64, "deepstack_visual_indexes": [0]}
    config = hf.Qwen3VLMoeConfig(
        text_config=text, vision_config=eyes, vision_start_token_id=BEGIN, vision_end_token_id=END, **IDS
    )
    return hf.Qwen3VLMoeForConditionalGeneration(config).eval()


def glm() -> Any:
    text = TEXT | {"n_routed_experts": 8, "n_shared_experts": 1, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 0}
    config = hf.Glm4vMoeConfig(
        text_config=text, vision_config=EYES | {"image_size": 32}, image_start_token_id=BEGIN, image_end_token_id=END,
        video_start_token_id=94, video_end_token_id=95, **IDS,
    )  # fmt: skip
    return hf.Glm4vMoeForConditionalGeneration(config).eval()


def llama() -> Any:
    text = TEXT | {"intermediate_size": 16, "intermediate_size_mlp": 48, "num_local_experts": 4, "num_experts_per_tok": 1}
    text |= {"interleave_moe_layer_step": 1, "rope_parameters": None}
    eyes = {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64, "vision_output_dim": 16,
        "projector_input_dim": 16, "projector_output_dim": 16, "image_size": 32, "patch_size": 4, "pixel_shuffle_ratio": 0.5,
    }  # fmt: skip
    config = hf.Llama4Config(
        text_config=text, vision_config=eyes, image_token_index=IMAGE, boi_token_index=BEGIN, eoi_token_index=END
    )
    return hf.Llama4ForConditionalGeneration(config).eval()


def ask(grids: list[tuple[int, int]], merge: int = 2) -> tuple[list[int], list[tuple[Any, ...]]]:
    """Ids of a text around images of so many patches, and the truth of every token: unit, id, y, x."""
    ids, truth = [5], [("text", 5, None, None)]
    for number, (down, across) in enumerate(grids):
        ids += [BEGIN]
        truth += [("text", BEGIN, None, None)]
        cells = [(y, x) for y in range(down // merge) for x in range(across // merge)]
        ids += [IMAGE] * len(cells) + [END, 10 + number]
        truth += [("image", None, y, x) for y, x in cells] + [("text", END, None, None), ("text", 10 + number, None, None)]
    return ids, truth


def rows(store: Any, sequence: int) -> list[tuple[Any, ...]]:
    query = "select unit, vocab_id, y, x from tokens where sequence = ? order by position"
    return list(store.rows(query, [sequence]))


def seen(grids: list[tuple[int, int]]) -> dict[str, Tensor]:
    count = sum(h * w for h, w in grids)
    return {
        "pixel_values": torch.randn(count, 3 * 2 * 16, generator=torch.Generator().manual_seed(0)),
        "image_grid_thw": torch.tensor([[1, h, w] for h, w in grids]),
    }


@pytest.mark.parametrize("model", [qwen, glm])
@pytest.mark.parametrize("grids", [[(4, 8)], [(8, 4), (4, 4)], [(2, 10)]])
@pytest.mark.parametrize("side", [None, "left", "right"])
def test_images_with_grids(tmp_path: Path, model: Any, grids: list[tuple[int, int]], side: str | None) -> None:
    """Beside a text without images, padded on either side."""
    ids, truth = ask(grids)
    batch, mask = torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.long)
    if side is not None:
        short = torch.zeros(1, len(ids), dtype=torch.long)
        here = slice(len(ids) - 3, len(ids)) if side == "left" else slice(0, 3)
        short[0, here] = torch.tensor([7, 8, 9])
        batch, mask = torch.cat([short, batch]), torch.cat([(short != 0).long(), mask])
    kinds = {"mm_token_type_ids": (batch == IMAGE).int()}
    store = traced(tmp_path / "a.duckdb", made_of(model), lambda _: _run(model, batch, mask, kinds, grids))
    expected = [[("text", n, None, None) for n in (7, 8, 9)]] if side is not None else []
    assert [rows(store, n) for n in range(len(batch))] == [*expected, truth]
    assert store.rows("select bool_or(special) from tokens where unit = 'image'") == [(False,)]


_built: dict[Any, Any] = {}


def made_of(model: Any) -> Any:
    """One model of each kind for all tests."""
    if model not in _built:
        torch.manual_seed(0)
        _built[model] = model()
    return _built[model]


def _run(model: Any, ids: Tensor, mask: Tensor, kinds: dict[str, Tensor], grids: list[tuple[int, int]]) -> Any:
    return made_of(model)(input_ids=ids, attention_mask=mask, **kinds, **seen(grids))


@pytest.mark.parametrize("model", [qwen, glm])
@pytest.mark.parametrize("beams", [1, 2])
def test_generate_after_an_image(tmp_path: Path, model: Any, beams: int) -> None:
    """It encodes images first and hands no grid to the model."""
    ids, truth = ask([(4, 8)])
    batch = torch.tensor([ids])
    out: list[Tensor] = []

    def run(_: Any) -> None:
        kinds = {"mm_token_type_ids": (batch == IMAGE).int()}
        more = {"max_new_tokens": 3, "do_sample": False, "num_beams": beams, "suppress_tokens": [IMAGE, VIDEO]}
        out.append(made_of(model).generate(batch, **more, **kinds, **seen([(4, 8)])))

    store = traced(tmp_path / "a.duckdb", made_of(model), run)
    for beam in range(beams):
        assert rows(store, beam)[: len(ids)] == truth
        assert [(unit, y, x) for unit, _, y, x in rows(store, beam)[len(ids) :]] == [("text", None, None)] * 2
    assert made(store) == ["p" * len(ids) + "gg"] * beams


def test_a_square_of_pixels(tmp_path: Path) -> None:
    """Without grids: the pixels' shape, the patch size and the merging give the place."""
    ids, truth = ask([(8, 8)])
    store = traced(
        tmp_path / "a.duckdb",
        made_of(llama),
        lambda _: made_of(llama)(input_ids=torch.tensor([ids]), pixel_values=torch.randn(1, 3, 32, 32)),
    )
    assert rows(store, 0) == truth


def test_videos_have_frames(tmp_path: Path) -> None:
    ids = [5, *[BEGIN, *[VIDEO] * 8, END] * 2, 6]
    batch = torch.tensor([ids])
    given = {"pixel_values_videos": torch.randn(64, 3 * 2 * 16), "video_grid_thw": torch.tensor([[2, 4, 8]])}
    kinds = {"mm_token_type_ids": (batch == VIDEO).int() * 2}
    store = traced(tmp_path / "a.duckdb", made_of(qwen), lambda _: made_of(qwen)(input_ids=batch, **kinds, **given))
    found = store.rows(
        "select position, y, x, l.label from tokens left join token_labels l using (token) where unit = 'video' order by 1"
    )
    cells = [(y, x) for y in range(2) for x in range(4)]
    assert found == [(2 + 10 * t + n, y, x, str(t)) for t in range(2) for n, (y, x) in enumerate(cells)]


def test_types_without_ids(tmp_path: Path) -> None:
    """ERNIE's text model is told the kinds of places."""
    built = build("ernie4_5_vl_moe_text")
    store = traced(tmp_path / "a.duckdb", built.model, lambda _: built.model(**built.inputs), inputs=built.inputs)
    kinds, mask = built.inputs["moe_mm_token_type_ids"], built.inputs["attention_mask"].bool()
    expected = [["image" if k else "text" for k in row[keep].tolist()] for row, keep in zip(kinds, mask)]
    found = store.rows("select list(unit order by position) from tokens group by sequence order by sequence")
    assert [units for (units,) in found] == expected


def test_a_tower_that_is_not_square(tmp_path: Path) -> None:
    """ViTPose: 32 by 24 pixels in patches of 8."""
    built = build("vitpose_backbone")
    store = traced(tmp_path / "a.duckdb", built.model, lambda _: built.model(**built.inputs), inputs=built.inputs)
    found = store.rows("select sequence, y, x from tokens where unit = 'patch' order by sequence, position")
    assert found == [(s, y, x) for s in range(2) for y in range(4) for x in range(3)]
    assert store.rows("select distinct height, width from sequences") == [(4, 3)]


def test_a_tower_that_is_told_grids(tmp_path: Path) -> None:
    """Images of several sizes in one row of patches, which come in blocks of 2 × 2."""
    built = build("dots3_note_vision_encoder")
    store = traced(tmp_path / "a.duckdb", built.model, lambda _: built.model(**built.inputs), inputs=built.inputs)
    expected = [
        (image, 2 * y + v, 2 * x + u)
        for image, (down, across) in enumerate([(4, 4), (2, 4)])
        for y in range(down // 2) for x in range(across // 2) for v in range(2) for u in range(2)
    ]  # fmt: skip
    assert store.rows("select sequence, y, x from tokens where unit = 'patch' order by sequence, position") == expected
    assert store.rows("select height, width, tokens from sequences order by sequence") == [(4, 4, 16), (2, 4, 8)]
