"""Pieces of images and videos in a text are no text: their unit and place come from the model's own ids and grids."""

from pathlib import Path
from typing import Any

import pytest
import torch
from multimodal import BEGIN, END, IMAGE, VIDEO, ask, glm, llama, made_of, qwen, seen
from stored_sequences import made, traced
from torch import Tensor

from moescope.models.tiny import build


def rows(store: Any, sequence: int) -> list[tuple[Any, ...]]:
    query = "select unit, vocab_id, y, x from tokens where sequence = ? order by position"
    return list(store.rows(query, [sequence]))


@pytest.mark.parametrize("model", [qwen, glm])
@pytest.mark.parametrize("grids", [[(4, 8)], [(8, 4), (4, 4)], [(2, 10)]])
@pytest.mark.parametrize("side", [None, "left", "right"])
@pytest.mark.sampled(8)
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


def test_a_count_that_is_a_square_says_nothing_of_a_square(tmp_path: Path) -> None:
    """Sixteen pieces may be 4 × 4 as well as 2 × 8: without pixels or a grid they have no place."""
    ids = [5, BEGIN, *[IMAGE] * 16, END, 6]
    store = traced(tmp_path / "a.duckdb", made_of(llama), lambda _: made_of(llama)(input_ids=torch.tensor([ids])))
    assert rows(store, 0) == [("image", None, None, None) if i == IMAGE else ("text", i, None, None) for i in ids]
