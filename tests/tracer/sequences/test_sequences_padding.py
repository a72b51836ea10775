"""Padding is known from every form of a mask: no padded place is a token, and positions count the others."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from padding import PLACES, padded
from stored_sequences import made, texts, traced, warnings
from torch import Tensor, nn
from transformers import DynamicCache, StaticCache

import moescope
from moescope.models.tiny import build
from moescope.tracer.sequences.padding import mask_facts, real_places

FAMILIES = ["mixtral", "qwen3_moe", "olmoe", "deepseek_v3"]


def pairs(mask: Tensor, causal: bool = True) -> Tensor:
    """(B, 1, Q, K) boolean."""
    past = torch.ones(PLACES, PLACES, dtype=torch.bool)
    return (past.tril() if causal else past)[None, None] & mask.bool()[:, None, None]


def form(name: str, mask: Tensor) -> Any:
    """A mask of pairs as somebody might hand it over."""
    allowed = pairs(mask)
    own = torch.eye(PLACES, dtype=torch.bool)
    nothing = ~allowed.any(-1, keepdim=True)
    low = torch.finfo(torch.float32).min
    return {
        "bool": lambda: allowed,
        "additive": lambda: torch.where(allowed, 0.0, low),
        "infinite": lambda: torch.where(allowed | own, 0.0, -torch.inf),
        "minus ten thousand": lambda: (1 - allowed.float()) * -10000.0,
        "empty rows mended": lambda: allowed | nothing,
        "own places mended": lambda: allowed | own,
        "heads": lambda: allowed.expand(-1, 4, -1, -1),
    }[name]()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("side", ["left", "right", "middle"])
@pytest.mark.sampled(6)
def test_two_dimensional(tmp_path: Path, family: str, side: str) -> None:
    ids, mask, expected = padded(side)
    model: Any = build(family).model
    store = traced(tmp_path / "a.duckdb", model, lambda _: model(ids, attention_mask=mask))
    assert texts(store) == expected


@pytest.mark.parametrize("side", ["left", "right", "middle"])
@pytest.mark.parametrize(
    "name", ["bool", "additive", "infinite", "minus ten thousand", "empty rows mended", "own places mended", "heads"]
)
@pytest.mark.sampled(8)
def test_masks_of_pairs(tmp_path: Path, name: str, side: str) -> None:
    ids, mask, expected = padded(side)
    model: Any = build("mixtral").model
    model.config.pad_token_id = 0
    store = traced(tmp_path / "a.duckdb", model, lambda _: model(ids, attention_mask=form(name, mask)))
    assert texts(store) == expected
    assert "cannot be known" not in warnings(store)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", ["gpt_oss", "step3p5"])
def test_masks_by_kind_of_layer(tmp_path: Path, family: str, side: str) -> None:
    ids, mask, expected = padded(side)
    model: Any = build(family).model
    near = pairs(mask) & ~torch.ones(PLACES, PLACES, dtype=torch.bool).tril(-3)
    kinds = {"full_attention": pairs(mask), "sliding_attention": near}
    given = {kind: torch.where(m, 0.0, torch.finfo(torch.float32).min) for kind, m in kinds.items()}
    store = traced(tmp_path / "a.duckdb", model, lambda _: model(ids, attention_mask=given))
    assert texts(store) == expected


@pytest.mark.parametrize("side", ["left", "right"])
def test_block_masks(tmp_path: Path, side: str) -> None:
    from torch.nn.attention.flex_attention import create_block_mask

    from moescope.tracer.sequences.padding import mask_facts, real_places

    ids, mask, expected = padded(side)
    real = mask.bool()

    def allowed(b: Any, h: Any, q: Any, k: Any) -> Any:
        return (q >= k) & real[b, k]

    block = create_block_mask(allowed, 3, None, PLACES, PLACES, device="cpu")
    facts, note = mask_facts([block], (3, PLACES), 0)
    found = real_places((3, PLACES), ids.numpy(), {n: t.numpy() for n, t in facts.items()}, None, np.array([0]))
    assert note is None
    assert found.tolist() == real.tolist()
    model: Any = build("mixtral").model
    model.set_attn_implementation("flex_attention")
    with torch.compiler.set_stance("force_eager"):  # compiling takes most of a minute and changes no mask
        store = traced(tmp_path / "a.duckdb", model, lambda _: model(ids, attention_mask=block))
    assert texts(store) == expected


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_a_mask_longer_than_what_was_fed(tmp_path: Path, cache: str, side: str) -> None:
    """By hand, in chunks of 3, with the mask of the whole text, and of a whole static cache, from the first."""
    ids, mask, expected = padded(side)
    model: Any = build("mixtral").model
    long = torch.cat([mask, torch.ones(3, 5, dtype=torch.long)], 1) if cache == "static" else mask

    def run(_: Any) -> None:
        kept = StaticCache(model.config, max_cache_len=12) if cache == "static" else DynamicCache(config=model.config)
        for first in range(0, PLACES, 3):
            model(ids[:, first : first + 3], attention_mask=long, past_key_values=kept)

    assert texts(traced(tmp_path / "a.duckdb", model, run)) == expected


@pytest.mark.parametrize("family", [*FAMILIES, "gpt_oss"])
@pytest.mark.parametrize("cache", ["static", "dynamic", None])
@pytest.mark.parametrize("told", [True, False])
@pytest.mark.sampled(10)
def test_generate(tmp_path: Path, family: str, cache: str | None, told: bool) -> None:
    """The mask given to generate, or what it makes of the pad id, is what is true in every step."""
    ids, mask, rows = padded("left")
    model: Any = build(family).model
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = 0, None
    more: dict[str, Any] = {"attention_mask": mask} if told else {}
    if cache is not None:
        more["cache_implementation"] = cache
    results: list[Tensor] = []

    def run(_: Any) -> None:
        results.append(model.generate(ids, max_new_tokens=4, do_sample=False, disable_compile=True, **more))

    store = traced(tmp_path / "a.duckdb", model, run)
    assert texts(store) == [text + out[PLACES:-1].tolist() for text, out in zip(rows, results[0])]
    assert made(store) == ["p" * len(text) + "ggg" for text in rows]


@pytest.mark.parametrize("side", ["left", "right"])
def test_encoder_and_decoder(tmp_path: Path, side: str) -> None:
    ids, mask, expected = padded(side)
    model: Any = build("switch_transformers").model
    other = torch.cat([torch.zeros(3, 1, dtype=torch.long), ids[:, :-1]], 1) if side == "right" else ids
    seen = torch.cat([torch.ones(3, 1, dtype=torch.long), mask[:, :-1]], 1) if side == "right" else mask

    def run(_: Any) -> None:
        model(ids, attention_mask=mask, decoder_input_ids=other, decoder_attention_mask=seen)

    store = traced(tmp_path / "a.duckdb", model, run)
    assert texts(store, "encoder") == expected
    assert texts(store) == [row[keep.bool()].tolist() for row, keep in zip(other, seen)]


class Odd:
    """A mask that nobody can read."""

    def __init__(self, mask: Tensor) -> None:
        self.inner = mask


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    ids, mask, _ = padded("left")
    model: Any = build("mixtral").model
    inner = model.model

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.config = inner, model.config

        def forward(self, input_ids: Tensor, attention_mask: Any = None) -> Any:
            hidden = self.model.embed_tokens(input_ids)
            for layer in self.model.layers:
                hidden = hidden + layer.mlp(hidden)
            return hidden

    reader = Reader().eval()
    with (
        torch.no_grad(),
        moescope.Tracer(reader, tmp_path / "a.duckdb", inputs={"input_ids": ids, "attention_mask": Odd(mask)}),
    ):
        reader(ids, attention_mask=Odd(mask))
    said = warnings(moescope.open(tmp_path / "a.duckdb"))
    assert "padding cannot be known from an attention mask of the form Odd" in said


@pytest.mark.parametrize("name", ["bool", "additive"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_what_is_summed_up_leaves_out_the_same_places(tmp_path: Path, name: str, side: str) -> None:
    """Activations and the store count the same assignments."""
    ids, mask, _ = padded(side)
    model: Any = build("mixtral").model
    model.config.pad_token_id = 0
    store = traced(
        tmp_path / "a.duckdb", model, lambda _: model(ids, attention_mask=form(name, mask)), activations=["importance"]
    )
    summed = store.rows("select router, expert, n from measures where name = 'ean' and n > 0 order by all")
    assert summed == store.rows("select router, expert, count(*) from assignments group by all order by all")


def test_pads_behind_a_decoders_text_are_not_summed_up(tmp_path: Path) -> None:
    """A decoder without a mask: the pad ids at the end are no tokens for activations either."""
    ids, mask, expected = padded("right")
    model: Any = build("switch_transformers").model
    store = traced(
        tmp_path / "a.duckdb",
        model,
        lambda _: model(ids, attention_mask=mask, decoder_input_ids=ids),
        activations=["importance"],
    )
    assert texts(store) == expected
    summed = store.rows("select router, expert, n from measures where name = 'ean' and n > 0 order by all")
    ran = "select router, expert, count(*) from assignments where not dropped group by all order by all"
    assert summed == store.rows(ran)


@pytest.mark.parametrize("side", ["left", "right", "middle"])
@pytest.mark.parametrize("name", ["bool", "empty rows mended", "own places mended", "heads"])
def test_masks_that_say_true_for_what_is_masked(name: str, side: str) -> None:
    """As Megatron's: the same places are padding as by the mask that says True for what is attended."""
    ids, mask, expected = padded(side)
    for masked in (~form(name, mask), (~form(name, mask)).long()):
        facts, note = mask_facts([masked], (3, PLACES), 0)
        arrays = {key: value.numpy() for key, value in facts.items()}
        real = real_places((3, PLACES), ids.numpy(), arrays, None, np.array([0]))
        assert [row[there].tolist() for row, there in zip(ids, torch.from_numpy(real))] == expected
        assert note is None


def test_such_masks_without_padding() -> None:
    """Nothing is masked at all; and a step of decoding, of which one text began with padding."""
    facts, _ = mask_facts([torch.zeros(2, 1, 6, 6, dtype=torch.bool)], (2, 6), 0)
    assert facts["attended"].all()
    one = torch.zeros(2, 1, 1, 6, dtype=torch.bool)
    one[1, ..., :3] = True
    facts, _ = mask_facts([one], (2, 1), 5)
    assert facts["attended"].tolist() == [[True], [True]]
