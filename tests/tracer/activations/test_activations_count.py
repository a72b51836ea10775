"""What a trace sums up on its way is of the rows that it stores, assignment by assignment: what is left out is out of both."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from activation_counts import agree
from multimodal import IMAGE, ask, glm, made_of, qwen, seen
from packed import FORMS, told
from padding import padded
from stored_sequences import made, phases, texts
from tinies import one_of_a_kind
from transformers import DynamicCache, StaticCache

import moescope
from moescope.interventions import Zero, intervene
from moescope.models.tiny import build

LEFT, RIGHT = padded("left"), padded("right")
GREEDY: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False, "attention_mask": LEFT[1]}
ENDS: dict[str, Any] = {"max_new_tokens": 6, "eos_token_id": list(range(3, 50)), "pad_token_id": 0}


@pytest.fixture(scope="module")
def model() -> Any:
    found = build("mixtral").model
    found.generation_config.pad_token_id, found.generation_config.eos_token_id = 0, None  # type: ignore[union-attr]
    return found


def chunks(model: Any, static: bool) -> None:
    """A text padded on the left, three places at a time; a static cache comes with the mask of all its places."""
    cache = StaticCache(model.config, max_cache_len=12) if static else DynamicCache(config=model.config)
    mask = torch.cat([LEFT[1], torch.ones(3, 5, dtype=torch.long)], 1) if static else LEFT[1]
    for first in range(0, 7, 3):
        model(LEFT[0][:, first : first + 3], attention_mask=mask, past_key_values=cache)


RUNS: dict[str, Callable[[Any], object]] = {
    "left": lambda m: m(LEFT[0], attention_mask=LEFT[1]),
    "right": lambda m: m(RIGHT[0], attention_mask=RIGHT[1]),
    "chunks": lambda m: chunks(m, False),
    "chunks, static": lambda m: chunks(m, True),
    "generate": lambda m: m.generate(LEFT[0], **GREEDY),
    "generate, static": lambda m: m.generate(LEFT[0], **GREEDY, cache_implementation="static", disable_compile=True),
    "chunked prefill": lambda m: m.generate(LEFT[0], **GREEDY, prefill_chunk_size=3),
    "ended": lambda m: m.generate(LEFT[0], **GREEDY | ENDS),
    "beams": lambda m: m.generate(LEFT[0], **GREEDY, num_beams=3),
    "no cache": lambda m: m.generate(LEFT[0], **GREEDY, use_cache=False),
    "no cache, ended": lambda m: m.generate(LEFT[0], **GREEDY | ENDS, use_cache=False),
    "no cache, beams": lambda m: m.generate(LEFT[0], **GREEDY, num_beams=3, use_cache=False),
    "drafts": lambda m: m.generate(LEFT[0][:1].repeat(1, 3), max_new_tokens=8, do_sample=False, prompt_lookup_num_tokens=2),
}


@pytest.mark.sampled(5)
@pytest.mark.parametrize("name", RUNS)
def test_ways_to_run(tmp_path: Path, model: Any, name: str) -> None:
    agree(tmp_path / "a.duckdb", model, lambda _: RUNS[name](model))


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("tail", [0, 3])
def test_packed_rows(tmp_path: Path, model: Any, name: str, tail: int) -> None:
    given = told(name)
    if tail and name != "cu_seq_lens":
        pytest.skip("only these ends leave places behind them")
    given["input_ids"] = torch.nn.functional.pad(given["input_ids"], (0, tail))
    store = agree(tmp_path / "a.duckdb", model, lambda _: model(**given))
    assert store.rows("select distinct n, units from measures where subset = 'residual' and estimator = 'naive'") == [(10, 4)]


@pytest.mark.parametrize("way", ["forward", "generate", "no cache", "beams"])
def test_an_encoder_and_a_decoder_that_drops(tmp_path: Path, way: str) -> None:
    """The decoder has no mask: the pad ids behind its texts are padding all the same."""
    switch: Any = build("switch_transformers").model
    switch.generation_config.update(decoder_start_token_id=0, pad_token_id=0, eos_token_id=None)
    more = {"generate": {}, "no cache": {"use_cache": False}, "beams": {"num_beams": 2}}.get(way, {})
    ids, mask, expected = RIGHT

    def run(_: Any) -> None:
        if way == "forward":
            switch(ids, attention_mask=mask, decoder_input_ids=ids)
        else:
            switch.generate(ids, attention_mask=mask, max_new_tokens=4, do_sample=False, **more)

    store = agree(tmp_path / "a.duckdb", switch, run)
    assert texts(store, "encoder") == expected


@pytest.mark.parametrize("make", [qwen, glm])
def test_pieces_of_images(tmp_path: Path, make: Any) -> None:
    """A text that holds an image, beside a short one that is padded on the left."""
    ids, _ = ask([(4, 8)])
    short = torch.zeros(1, len(ids), dtype=torch.long)
    short[0, -3:] = torch.tensor([7, 8, 9])
    batch = torch.cat([short, torch.tensor([ids])])
    mask = torch.cat([(short != 0).long(), torch.ones(1, len(ids), dtype=torch.long)])
    given = {"attention_mask": mask, "mm_token_type_ids": (batch == IMAGE).int(), **seen([(4, 8)])}
    agree(tmp_path / "a.duckdb", made_of(make), lambda _: made_of(make)(input_ids=batch, **given))


@pytest.mark.sampled(5)
@pytest.mark.slow
@pytest.mark.parametrize("family", one_of_a_kind())
def test_every_kind_of_family(tmp_path: Path, family: str) -> None:
    """Routers that see a part of the tokens, experts that skip, identities, buffers: the first text padded on the left."""
    built = build(family)
    given = dict(built.inputs)
    if "input_ids" in given and "attention_mask" not in given:
        given["attention_mask"] = torch.ones_like(given["input_ids"])
        given["attention_mask"][0, :2] = 0
    agree(tmp_path / "a.duckdb", built.model, lambda _: built.model(**given), inputs=built.inputs)


def test_experts_with_a_weight_of_zero(tmp_path: Path, model: Any) -> None:
    """They were chosen and are stored, and what they returned has a norm; it adds nothing to what is weighted."""

    def run(_: Any) -> None:
        with intervene(model, Zero(experts=[2])):
            model(LEFT[0], attention_mask=LEFT[1])

    zeroed = agree(tmp_path / "a.duckdb", model, run, inputs={"input_ids": LEFT[0]})
    plain = agree(tmp_path / "b.duckdb", model, lambda _: model(LEFT[0], attention_mask=LEFT[1]))
    query = "select name, value from measures where router = 0 and expert = 2 and name in ('ean', 'reap') order by name"
    ean, reap = dict(plain.rows(query))["ean"], 0.0
    assert zeroed.rows(query) == [("ean", pytest.approx(ean, rel=1e-4)), ("reap", reap)]


@pytest.mark.parametrize("way", ["chat", "generate", "beams", "no cache"])
def test_summing_up_changes_nothing_of_what_is_stored(tmp_path: Path, model: Any, way: str) -> None:
    """Tokens, prompts and steps are named once for the store, and the same with and without activations."""
    more = {"beams": {"num_beams": 2}, "no cache": {"use_cache": False}}.get(way, {})

    def run(_: Any) -> None:
        out = model.generate(LEFT[0], **GREEDY, **more) if way != "chat" else LEFT[0][:1, :4] + 5
        for turn in range(2 if way == "chat" else 0):
            cache = DynamicCache(config=model.config) if not turn else cache  # noqa: F821
            out = model.generate(out, past_key_values=cache, max_new_tokens=4, do_sample=False)
            out = torch.cat([out, torch.tensor([[11, 12 + turn]])], 1)

    stores = [agree(tmp_path / "a.duckdb", model, run)]
    with torch.no_grad(), moescope.Tracer(model, tmp_path / "b.duckdb"):
        run(None)
    stores.append(moescope.open(tmp_path / "b.duckdb"))
    first, second = ((texts(store), made(store), phases(store)) for store in stores)
    assert first == second
