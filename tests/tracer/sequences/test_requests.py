"""Continuous batching: each request of generate_batch is stored as generate stores it alone."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import tracing
from stored_sequences import traced, warnings
from transformers import ContinuousBatchingConfig, GenerationConfig, Qwen3MoeConfig, Qwen3MoeForCausalLM

import moescope
from moescope.errors import ModelError

Row = tuple[Any, ...]
PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12, 13, 14], [3], [8, 9, 10, 11, 12, 20]]
WAYS: dict[str, dict[str, Any]] = {
    "all at once": {},
    "prompts in chunks": {"max_batch_tokens": 4},
    "prompts that begin alike": {"page_size": 4, "allow_block_sharing": True, "max_requests_per_batch": 1},
    "thrown out and run again": {"page_size": 4, "num_blocks": 6, "max_batch_tokens": 8, "allow_block_sharing": False},
}


def model(name: str) -> Any:
    if name == "mixtral":
        return tracing.tiny()
    torch.manual_seed(0)
    sizes = {
        "vocab_size": tracing.VOCABULARY,
        "hidden_size": 16,
        "intermediate_size": 24,
        "moe_intermediate_size": 8,
        "head_dim": 8,
    }
    more = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "num_experts": 4, "pad_token_id": 0}
    return Qwen3MoeForCausalLM(
        Qwen3MoeConfig(**sizes, **more, num_experts_per_tok=2, eos_token_id=None, bos_token_id=None)
    ).eval()


def batched(made: Any, prompts: list[list[int]], tokens: int, **settings: Any) -> dict[str, Any]:
    generating = {
        name: settings.pop(name) for name in ("eos_token_id", "num_return_sequences", "do_sample") if name in settings
    }
    memory = {} if "num_blocks" in settings else {"num_blocks": 64}
    out = made.generate_batch(
        prompts,
        generation_config=GenerationConfig(**({"do_sample": False} | generating), max_new_tokens=tokens, pad_token_id=0),
        continuous_batching_config=ContinuousBatchingConfig(**({"page_size": 16, "max_batch_tokens": 64} | memory | settings)),
        warmup=False,
    )  # fmt: skip
    assert [one.error for one in out.values()] == [None] * len(prompts) * generating.get("num_return_sequences", 1)
    return out  # type: ignore[no-any-return]


def decided(store: Any, sequence: int) -> list[Row]:
    """Decisions on the tokens of a sequence: position, id, whether made, layer, expert, weight; each once."""
    query = """select distinct position, vocab_id, generated, layer, expert, round(weight, 3) from assignments
        join tokens using (token) join routers using (router) where tokens.sequence = ? order by 1, layer, 6 desc, expert"""
    return [(*row[:5], pytest.approx(row[5], abs=2e-3)) for row in store.rows(query, [sequence])]


def whole(store: Any, request: str) -> list[int]:
    """The ids of a request, whose places run from 0."""
    query = "select position, vocab_id from tokens join sequences using (sequence) where source = ? order by position"
    rows = store.rows(query, [request])
    assert [place for place, _ in rows] == list(range(len(rows)))
    return [i for _, i in rows]


def alone(folder: Path, made: Any, out: dict[str, Any]) -> dict[str, list[Row]]:
    """The same of every request, all of whose tokens but the last are run by a forward of its own."""
    said = [one.prompt_ids + one.generated_tokens[:-1] for one in out.values()]
    store = traced(folder / "alone.duckdb", made, lambda _: [made(torch.tensor([ids])) for ids in said])
    return {
        request: [(position, i, position >= len(one.prompt_ids), *more) for position, i, _, *more in decided(store, number)]
        for number, (request, one) in enumerate(out.items())
    }


@pytest.mark.parametrize(
    ("way", "name", "attention"),
    [
        *((way, "mixtral", "sdpa") for way in WAYS),
        ("prompts in chunks", "qwen3_moe", "eager"),
    ],
)
@pytest.mark.sampled(1)
def test_each_request_is_what_it_is_alone(tmp_path: Path, way: str, name: str, attention: str) -> None:
    """Ids, places, what was made, experts and weights; whatever else is in the row."""
    made = model(name)
    made.set_attn_implementation(attention)
    out: dict[str, Any] = {}
    store = traced(tmp_path / "a.duckdb", made, lambda _: out.update(batched(made, PROMPTS, 5, **WAYS[way])))
    made.set_attn_implementation(attention)
    found = dict(store.rows("select source, sequence from sequences"))
    assert sorted(found) == sorted(out)
    assert store.rows("select tokens from sequences order by source") == [(len(p),) for p in PROMPTS]
    every, behind = alone(tmp_path, made, out), list[str]()
    for (request, one), prompt in zip(out.items(), PROMPTS, strict=True):
        assert one.prompt_ids == prompt
        assert whole(store, request) == prompt + one.generated_tokens[:-1]
        rows = decided(store, found[request])
        first = rows[0][0]
        assert rows == [row for row in every[request] if row[0] >= first]
        behind += [request] * (first > 0)
    assert behind in ([["req_1"], ["req_3"]] if way == "prompts that begin alike" else [[]])
    said = warnings(store)
    assert ("were run once for several requests" in said) == (way == "prompts that begin alike")
    assert ("were run again" in said) == (way == "thrown out and run again")


def test_several_answers_to_one_prompt(tmp_path: Path) -> None:
    """Their prompt is run once; the others have its tokens without decisions."""
    made, out = model("mixtral"), dict[str, Any]()
    many = {"num_return_sequences": 3, "do_sample": True}
    store = traced(tmp_path / "a.duckdb", made, lambda _: out.update(batched(made, PROMPTS[:2], 4, **many)))
    every = alone(tmp_path, made, out)
    for request, one in out.items():
        assert whole(store, request) == one.prompt_ids + one.generated_tokens[:-1]
        rows = decided(store, dict(store.rows("select source, sequence from sequences"))[request])
        assert rows == [row for row in every[request] if row[0] >= rows[0][0]]
        assert (rows[0][0] > 0) == ("child" in request)


def test_ends_and_managers_apart(tmp_path: Path) -> None:
    """A request that ends early ends; a second call begins other requests of the same names."""
    made, outs = model("mixtral"), list[Any]()
    first = made.generate(torch.tensor([PROMPTS[0]]), max_new_tokens=3, do_sample=False)[0, -1].item()
    store = traced(
        tmp_path / "a.duckdb", made, lambda _: outs.extend(batched(made, PROMPTS, 6, eos_token_id=e) for e in (first, 58))
    )
    said = store.rows("select list(vocab_id order by position), list(position order by position) from tokens group by sequence")
    wanted = [one.prompt_ids + one.generated_tokens[:-1] for out in outs for one in out.values()]
    assert sorted(row for row, _ in said) == sorted(wanted)
    assert all(places == list(range(len(places))) for _, places in said)
    assert len(outs[0]["req_0"].generated_tokens) < 6


def test_phases_and_predictions(tmp_path: Path) -> None:
    """A forward of prompts alone, of made tokens alone; the id that the head ranks first is of the tokens that it looked at."""
    made, out = model("mixtral"), dict[str, Any]()
    store = traced(tmp_path / "a.duckdb", made, lambda _: out.update(batched(made, PROMPTS, 3)), predictions=True)
    assert store.rows("select phase, tokens from forwards order by forward") == [("prefill", 17), ("decode", 4), ("decode", 4)]
    query = """select source, list(cast(label as int) order by position) from tokens join sequences using (sequence)
        join token_labels using (token) where kind = 'predicted_id' group by source"""
    assert dict(store.rows(query)) == {request: one.generated_tokens for request, one in out.items()}


def test_a_batch_of_which_nobody_says_what_is_in_it(tmp_path: Path) -> None:
    """A manager of another version: refused, not stored as what it is not."""
    made = model("mixtral")
    with pytest.raises(
        ModelError, match=r"continuous batching \(generate_batch\), and this version of Transformers does not say"
    ):
        traced(tmp_path / "a.duckdb", made, lambda _: made(torch.tensor(PROMPTS[:1]), write_index=[]))
    with moescope.open(tmp_path / "a.duckdb") as store:
        assert store.rows("from runs") == []


def test_a_manager_that_keeps_the_refusal_to_itself(tmp_path: Path) -> None:
    """The thread that generates ends without a word: the tracer says why nothing is there."""
    made = model("mixtral")
    tracer = moescope.Tracer(made, tmp_path / "a.duckdb")
    with pytest.raises(ModelError, match="does not say which requests"), tracer, suppress(ModelError):
        made(torch.tensor(PROMPTS[:1]), write_index=[])


def test_every_other_forward(tmp_path: Path) -> None:
    """Tokens of forwards that are not recorded are there without decisions."""
    made, out = model("mixtral"), dict[str, Any]()
    store = traced(tmp_path / "a.duckdb", made, lambda _: out.update(batched(made, PROMPTS[:2], 5)), every=2)
    ran = """select list(distinct position order by position) from decisions join tokens using (token)
        join sequences using (sequence)"""
    for request, one in out.items():
        said, prompt = whole(store, request), len(one.prompt_ids)
        assert said == (one.prompt_ids + one.generated_tokens)[: len(said)]
        assert store.rows(f"{ran} where source = ?", [request]) == [([*range(prompt), prompt + 1, prompt + 3],)]
