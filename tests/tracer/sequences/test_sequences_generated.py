"""A token is generated if the model made it: neither the shape of a call nor the number of its ids says so."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small import ids
from stored_sequences import made, phases, texts, traced, warnings
from torch import Tensor
from transformers import DynamicCache, LogitsProcessorList

from moescope.models.tiny import build

FAMILIES = ["mixtral", "qwen3_moe", "deepseek_v3", "lfm2_moe"]


def family(name: str) -> Any:
    """Tiny, generating without an end."""
    model: Any = build(name).model
    settings = model.generation_config
    settings.pad_token_id, settings.eos_token_id, settings.decoder_start_token_id = 0, None, 0
    return model


def greedy(model: Any, cache: Any, fed: Tensor, steps: int) -> list[int]:
    """A loop by hand; what it chose, the last of which was not fed."""
    found = []
    for _ in range(steps + 1):
        fed = model(fed, past_key_values=cache, use_cache=True).logits[:, -1:].argmax(-1)
        found.append(int(fed))
    return found


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("prompt", [1, 3])
@pytest.mark.parametrize("ways", ["hand hand", "generate hand", "generate generate"])
@pytest.mark.sampled(6)
def test_turns_of_a_chat_over_one_cache(tmp_path: Path, name: str, prompt: int, ways: str) -> None:
    """Two turns, each a prompt and two tokens of the model's: what the user said is a prompt, however short."""
    model, first, second = family(name), ids(1, 5), ids(1, prompt, 1)
    said: list[int] = []

    def run(_: Any) -> None:
        cache, fed = DynamicCache(config=model.config), first
        for way, text in zip(ways.split(), (first, second)):
            said.extend(text[0].tolist())
            if way == "hand":
                said.extend(greedy(model, cache, text, 2)[:-1])
                continue
            history = torch.tensor([said])
            out = model.generate(history, past_key_values=cache, max_new_tokens=3, do_sample=False)
            said[:] = out[0, :-1].tolist()
            fed = out
        assert fed is not None

    store = traced(tmp_path / "a.duckdb", model, run)
    assert texts(store) == [said]
    assert made(store) == ["ppppp" + "gg" + "p" * prompt + "gg"]
    assert phases(store) == [("prefill", 5), *[("decode", 1)] * 2, ("prefill", prompt), *[("decode", 1)] * 2]
    assert "generating()" not in warnings(store) or "hand" in ways


@pytest.mark.parametrize("way", ["generate", "hand"])
def test_the_last_token_of_a_turn_is_the_models(tmp_path: Path, way: str) -> None:
    """It is fed at the head of the next turn's prompt, but the model made it."""
    model, first, second = family("mixtral"), ids(1, 5), ids(1, 3, 1)
    history: list[int] = []

    def run(_: Any) -> None:
        cache = DynamicCache(config=model.config)
        out = model.generate(first, past_key_values=cache, max_new_tokens=3, do_sample=False)
        full = torch.cat([out, second], 1)
        history.extend(full[0].tolist())
        if way == "generate":
            model.generate(full, past_key_values=cache, max_new_tokens=1, do_sample=False)
        else:
            model(full[:, 7:], past_key_values=cache)

    store = traced(tmp_path / "a.duckdb", model, run)
    assert texts(store) == [history]
    assert made(store)[0][:7] == "pppppgg"
    assert made(store)[0][8:] == "ppp"
    assert phases(store)[-1] == ("prefill", 4)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 6, 7])
@pytest.mark.sampled(6)
def test_chunks_of_a_prompt(tmp_path: Path, name: str, chunk: int) -> None:
    """Seven places in chunks, one of them left over: all prompt, and prefill."""
    model, x = family(name), ids(2, 7)
    out: list[Tensor] = []

    def run(_: Any) -> None:
        out.append(model.generate(x, max_new_tokens=3, do_sample=False, prefill_chunk_size=chunk))

    store = traced(tmp_path / "a.duckdb", model, run)
    assert texts(store) == out[0][:, :-1].tolist()
    assert made(store) == ["pppppppgg"] * 2
    chunks = [min(chunk, 7 - first) for first in range(0, 7, chunk)]
    assert phases(store) == [*(("prefill", 2 * n) for n in chunks), ("decode", 2), ("decode", 2)]


@pytest.mark.parametrize("chunk", [1, 2, 3])
@pytest.mark.parametrize("kind", ["slices", "new tensors", "the model's own text"])
def test_known_text_piece_by_piece(tmp_path: Path, chunk: int, kind: str) -> None:
    """By hand; the model's own text as well, as long as it stood there before."""
    model = family("mixtral")
    x = ids(2, 7)
    if kind == "the model's own text":
        x = model.generate(x[:, :2], max_new_tokens=5, do_sample=False)

    def run(_: Any) -> None:
        cache = DynamicCache(config=model.config)
        for first in range(0, 7, chunk):
            piece = x[:, first : first + chunk]
            model(torch.tensor(piece.tolist()) if kind == "new tensors" else piece, past_key_values=cache)

    store = traced(tmp_path / "a.duckdb", model, run)
    assert texts(store) == x.tolist()
    assert made(store) == ["ppppppp"] * 2
    assert {phase for phase, _ in phases(store)} == {"prefill"}


@pytest.mark.parametrize("way", ["argmax", "grown", "buffer", "python", "right padding"])
def test_a_greedy_loop_by_hand(tmp_path: Path, way: str) -> None:
    """However the caller carries the token from step to step."""
    model, x = family("mixtral"), ids(2, 5)
    mask, lengths = torch.ones_like(x), torch.tensor([5, 5])
    if way == "right padding":
        mask[1, 3:], lengths = 0, torch.tensor([5, 3])
    said = [row[: int(n)].tolist() for row, n in zip(x, lengths)]

    def run(_: Any) -> None:
        nonlocal mask
        cache, text, buffer = DynamicCache(config=model.config), x, torch.zeros(2, 9, dtype=torch.long)
        fed = x
        buffer[:, :5] = x
        for step in range(4):
            logits = model(fed, past_key_values=cache, attention_mask=mask).logits
            last = logits[torch.arange(2), lengths - 1] if step == 0 else logits[:, -1]
            chosen = last.argmax(-1, keepdim=True)
            if step == 3:
                return
            for row in range(2):
                said[row].append(int(chosen[row]))
            text, mask = torch.cat([text, chosen], 1), torch.cat([mask, torch.ones(2, 1, dtype=torch.long)], 1)
            buffer[:, 5 + step] = chosen[:, 0]
            fed = {"grown": text[:, -1:], "buffer": buffer[:, 5 + step : 6 + step]}.get(way, chosen)
            fed = torch.tensor(chosen.tolist()) if way == "python" else fed

    store = traced(tmp_path / "a.duckdb", model, run)
    assert texts(store) == said
    assert made(store) == ["p" * int(n) + "ggg" for n in lengths]
    assert [phase for phase, _ in phases(store)] == ["prefill", "decode", "decode", "decode"]


@pytest.mark.parametrize("told", [True, False])
def test_a_sampling_loop_by_hand(tmp_path: Path, told: bool) -> None:
    """It cannot be known from the ids; the caller can say it, and the run's warnings say how."""
    model, x = family("mixtral"), ids(1, 4)

    def run(tracer: Any) -> None:
        from contextlib import nullcontext

        cache = model(x, use_cache=True).past_key_values
        with tracer.generating() if told else nullcontext():
            for step in range(3):
                logits = model(torch.tensor([[11 + step]]), past_key_values=cache).logits
                assert logits.shape[1] == 1

    store = traced(tmp_path / "a.duckdb", model, run)
    assert made(store) == ["ppppggg" if told else "ppppppp"]
    assert ("tracer.generating()" in warnings(store)) == (not told)


@pytest.mark.parametrize("name", [*FAMILIES, "switch_transformers"])
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.sampled(2)
def test_generate_without_a_cache(tmp_path: Path, name: str, beams: int) -> None:
    """Each step runs everything again: the same tokens, not new documents; their rows are kept, forward by forward."""
    model, x = family(name), ids(2, 4)
    mask = torch.ones_like(x)
    mask[1, :2] = 0
    settings: dict[str, Any] = {"attention_mask": mask, "max_new_tokens": 4, "do_sample": False, "num_beams": beams}
    again = traced(tmp_path / "a.duckdb", model, lambda _: model.generate(x * mask, use_cache=False, **settings))
    once = traced(tmp_path / "b.duckdb", model, lambda _: model.generate(x * mask, **settings))
    assert made(again) == made(once)
    assert [phase for phase, _ in phases(again)] == [phase for phase, _ in phases(once)]
    query = (
        "select t.sequence, position, vocab_id from tokens t join sequences using (sequence) "
        "where stack = 'decoder' order by all"
    )
    assert again.rows(query) == once.rows(query) or (name, beams) == ("switch_transformers", 3)  # its capacity is of a step
    ran = (
        "select count(*), count(distinct token) from decisions join routers using (router) where stack = 'decoder' "
        "and layer = (select min(layer) from routers where stack = 'decoder')"
    )
    rows, tokens = again.rows(ran)[0]
    prompt, width = (6, beams) if name != "switch_transformers" else (2, beams)
    every = sum(prompt * width + 2 * width * step for step in range(4))
    assert rows == every if beams == 1 else tokens <= rows <= every
    assert tokens == prompt * width + 3 * 2 * width
    assert "again" in warnings(again)
    assert "again" not in warnings(once)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("beams", [1, 2, 4])
@pytest.mark.parametrize("name", ["mixtral", "switch_transformers"])
def test_beams(tmp_path: Path, name: str, beams: int) -> None:
    model, x = family(name), ids(2, 4)
    store = traced(
        tmp_path / "a.duckdb", model, lambda _: model.generate(x, max_new_tokens=4, num_beams=beams, do_sample=False)
    )
    prompt = 1 if name == "switch_transformers" else 4
    assert made(store) == ["p" * prompt + "ggg"] * (2 * beams)


@pytest.mark.parametrize("sample", [True, False])
def test_sampling_and_returned_sequences(tmp_path: Path, sample: bool) -> None:
    model, x = family("mixtral"), ids(2, 4)
    torch.manual_seed(0)
    more = {"do_sample": True, "num_return_sequences": 3} if sample else {"do_sample": False}
    store = traced(tmp_path / "a.duckdb", model, lambda _: model.generate(x, max_new_tokens=4, **more))
    assert made(store) == ["ppppggg"] * (6 if sample else 2)


@pytest.mark.parametrize("prompt", [1, 4])
def test_drafts(tmp_path: Path, prompt: int) -> None:
    """Assisted decoding runs several tokens at once; the prompt ends where it ends, and rejected drafts are apart."""
    model = family("mixtral")
    x = ids(1, prompt).repeat(1, 3)
    out: list[Tensor] = []

    def run(_: Any) -> None:
        out.append(model.generate(x, max_new_tokens=8, do_sample=False, prompt_lookup_num_tokens=3))

    store = traced(tmp_path / "a.duckdb", model, run)
    count = x.shape[1]
    found = texts(store)[0]
    assert found == out[0][0, : len(found)].tolist()
    assert made(store)[0] == "p" * count + "g" * (len(found) - count)
    drafts = "select bool_and(generated) from tokens where token in (select token from token_labels where kind = 'draft')"
    assert store.rows(drafts) in ([(True,)], [(None,)])


def test_embeddings_as_a_prompt(tmp_path: Path) -> None:
    model, x = family("mixtral"), ids(2, 4)
    embedded = model.get_input_embeddings()(x)
    store = traced(
        tmp_path / "a.duckdb", model, lambda _: model.generate(inputs_embeds=embedded, max_new_tokens=4, do_sample=False)
    )
    assert made(store) == ["ppppggg"] * 2


def test_a_static_cache_that_is_used_again(tmp_path: Path) -> None:
    """Reset, it holds nothing: another text, other sequences."""
    from transformers import StaticCache

    model = family("mixtral")

    def run(_: Any) -> None:
        cache = StaticCache(model.config, max_cache_len=12)
        for seed in range(2):
            cache.reset()
            model.generate(ids(1, 4, seed), past_key_values=cache, max_new_tokens=3, do_sample=False, disable_compile=True)

    store = traced(tmp_path / "a.duckdb", model, run)
    assert made(store) == ["ppppgg"] * 2
    assert [text[:4] for text in texts(store)] == [ids(1, 4, seed)[0].tolist() for seed in range(2)]


@pytest.mark.parametrize("name", ["mixtral", "switch_transformers", "nllb-moe"])
@pytest.mark.parametrize("chosen", [[0, 9, 9], [9, 0, 9], [9, 9, 0], [0, 0, 9]])
@pytest.mark.sampled(4)
def test_a_pad_id_that_the_model_chose_is_a_token(tmp_path: Path, name: str, chosen: list[int]) -> None:
    """Padding is what stands behind an end; the same id, made on the way, is a token, whether there is a cache or not."""
    model, x = family(name), ids(2, 4)

    def forced(fed: Tensor, scores: Tensor) -> Tensor:
        step = fed.shape[1] - (1 if model.config.is_encoder_decoder else 4)
        return torch.full_like(scores, -1e9).index_fill(1, torch.tensor([[*chosen, 5][step]]), 0.0)

    settings: dict[str, Any] = {"attention_mask": torch.ones_like(x), "max_new_tokens": 4, "do_sample": False}
    settings["logits_processor"] = LogitsProcessorList([forced])  # type: ignore[list-item]
    query = "select position, vocab_id from tokens where generated order by token"
    for cached in (True, False):
        path = tmp_path / f"{cached}.duckdb"
        store = traced(path, model, lambda _, c=cached: model.generate(x, use_cache=c, **settings))
        rows = store.rows(query)
        first = min(position for position, _ in rows)
        assert sorted(rows) == sorted((first + n, i) for n, i in enumerate(chosen) for _ in range(2)), cached
