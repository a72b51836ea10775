"""Every form of every engine, written by our own encoder over random shapes, comes back as it was routed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import captures
import numpy as np
import pytest
from common_imports import alike, expected, rows, said

import moescope
from moescope import errors

SHAPES = [
    {"experts": 16, "top_k": 4, "layers": 4},
    {"experts": 400, "top_k": 8, "layers": 3, "dense": (0,)},
    {"experts": 64, "top_k": 1, "layers": 5, "dense": (0, 3)},
    {"experts": 300, "top_k": 18, "layers": 2},
]
FORMS: dict[str, Callable[[captures.Served], list[dict[str, Any]]]] = {
    "vllm": captures.vllm, "vllm chat": lambda made: captures.vllm(made, chat=True), "vllm 0.21": captures.vllm_021,
    "sglang": captures.sglang, "sglang chat": captures.sglang_chat, "dynamo": captures.dynamo,
}  # fmt: skip


@pytest.mark.sampled(2)
@pytest.mark.parametrize("number", range(len(SHAPES)))
def test_responses_come_back(number: int, tmp_path: Path) -> None:
    """All forms of one shape, each a run of one store."""
    made = captures.served(**SHAPES[number], seed=number)
    store, model = tmp_path / "a.duckdb", made.saved(tmp_path)
    for run, (form, written) in enumerate(FORMS.items()):
        done = moescope.import_captures([captures.lines(tmp_path / "a.jsonl", written(made))], store, model=model)
        assert (done.kind, done.sequences, done.runs) == (form.split()[0], 3, [run])
    for run in range(len(FORMS)):
        alike(rows(store, run, whole=run == 0), expected(made.sequences, made.routed))


def test_archives_and_outputs_come_back(tmp_path: Path) -> None:
    made = captures.served(**SHAPES[1])
    store, model = tmp_path / "a.duckdb", made.saved(tmp_path)
    lines, archive = captures.lines(tmp_path / "a.jsonl", captures.trtllm(made)), captures.archive(tmp_path / "a.npz", made)
    for run, (kind, file) in enumerate({"vllm": archive, "trtllm": lines, "table": archive}.items()):
        assert moescope.import_captures([file], store, kind, model=model).sequences == 3
        alike(rows(store, run, whole=False), expected(made.sequences, made.routed))


def test_policylang_scores_are_divided_by_their_sum_where_the_model_does(tmp_path: Path) -> None:
    made = captures.served(**SHAPES[1])
    file = captures.policylang(tmp_path / "a.jsonl", made)
    moescope.import_captures([file], tmp_path / "a.duckdb", model=made.saved(tmp_path))
    alike(rows(tmp_path / "a.duckdb"), expected(made.sequences, made.routed, weights=True), 1e-6)


@pytest.mark.parametrize("mapped", [False, True])
def test_recorder_files_come_back(mapped: bool, tmp_path: Path) -> None:
    made = captures.served(16, 4, 4, dense=(0,), n=4, seed=3)
    for one, prompt in zip(made.sequences, (11, 4, 7, 21)):  # positions that tell requests apart
        one.prompt = np.resize(one.prompt, prompt)
        one.experts = np.resize(one.experts, (prompt + len(one.answer) - 1, *one.experts.shape[1:]))
    rng = np.random.default_rng(0)
    copies = np.stack([rng.permutation(np.concatenate([np.arange(16), rng.integers(0, 16, 4)])) for _ in range(4)])
    file = captures.recorder(tmp_path / "a.pt", made, copies if mapped else None)
    moescope.import_sglang(file, tmp_path / "a.duckdb", model=made.saved(tmp_path))
    alike(rows(tmp_path / "a.duckdb"), expected(made.sequences, made.routed))
    assert ("last map" in said(tmp_path / "a.duckdb")) == mapped


def _one_after_another(made: captures.Served) -> captures.Sequence:
    """All rows as one sequence, as they lie in a trace that names no token."""
    whole = np.concatenate([one.experts for one in made.sequences])
    weights = np.concatenate([one.weights for one in made.sequences])
    return captures.Sequence(np.zeros(0), np.zeros(0), whole, weights)


def _in_order(found: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Rows of forwards, numbered from 0 throughout."""
    places = {place: number for number, place in enumerate(sorted({row[:2] for row in found}))}
    return [(0, places[row[:2]], *row[2:]) for row in found]


@pytest.mark.parametrize(("first", "dense"), [(0, (0,)), (1, (0,)), (1, ())])
def test_megatron_numbers_layers_from_0_in_hooks_and_from_1_in_sinks(first: int, dense: Any, tmp_path: Path) -> None:
    made = captures.served(32, 4, 5, dense=dense)
    captures.megatron(tmp_path / "trace", made, first)
    moescope.import_megatron(tmp_path / "trace", tmp_path / "a.duckdb", model=made.saved(tmp_path))
    alike(_in_order(rows(tmp_path / "a.duckdb")), expected([_one_after_another(made)], made.routed))


def test_megatron_maps_have_no_rank(tmp_path: Path) -> None:
    made = captures.served(32, 4, 5, dense=(0,))
    captures.megatron(tmp_path / "trace", made, ascending=True)
    moescope.import_megatron(tmp_path / "trace", tmp_path / "a.duckdb", model=made.saved(tmp_path))
    whole = _one_after_another(made)
    whole.experts = np.sort(whole.experts, -1)
    alike(_in_order(rows(tmp_path / "a.duckdb")), expected([whole], made.routed, ranked=False))
    with moescope.open(tmp_path / "a.duckdb") as store:
        assert store.rows("select sum(first), sum(assignments) > 0 from load_rollup") == [(0, True)]
        assert store.rows("select count(*) from transitions") == [(0,)]


def test_megatron_stages_of_a_pipeline_and_slices_of_a_sequence(tmp_path: Path) -> None:
    made = captures.served(32, 4, 6)
    model = made.saved(tmp_path)
    for rank, own in enumerate(([0, 1, 2, 3], [4, 5])):
        captures.megatron(tmp_path / "stages", made, rank=rank, of=own)
    with pytest.raises(errors.InputError, match="traces of 2 ranks"):
        moescope.import_megatron(tmp_path / "stages", tmp_path / "no.duckdb", model=model)
    moescope.import_megatron(tmp_path / "stages", tmp_path / "a.duckdb", model=model, layer_offsets=[0, 4])
    alike(_in_order(rows(tmp_path / "a.duckdb")), expected([_one_after_another(made)], made.routed))
    both = sorted((tmp_path / "stages").iterdir())
    with pytest.raises(errors.InputError, match="name the folder that holds them"):
        moescope.import_megatron(both, tmp_path / "no.duckdb", model=model)
    with pytest.raises(errors.InputError, match="another rank has too"):
        moescope.import_megatron(
            tmp_path / "stages", tmp_path / "no.duckdb", model=model, layer_offsets=[0, 0], numbering="hook"
        )

    halves = [captures.Served(32, 4, 6, sequences=[]) for _ in range(2)]
    for one in made.sequences:
        for half, own in zip(halves, np.array_split(one.experts, 2)):
            half.sequences.append(captures.Sequence(np.zeros(len(own)), np.zeros(1), own, one.weights[: len(own)]))
    for rank, half in enumerate(halves):
        captures.megatron(tmp_path / "slices", half, rank=rank)
    moescope.import_megatron(tmp_path / "slices", tmp_path / "b.duckdb", model=model, slices=True)
    alike(_in_order(rows(tmp_path / "b.duckdb")), expected([_one_after_another(made)], made.routed))
    moescope.import_megatron(tmp_path / "slices", tmp_path / "c.duckdb", model=model, rank=1)
    alike(_in_order(rows(tmp_path / "c.duckdb")), expected([_one_after_another(halves[1])], made.routed))


def test_a_request_beside_its_response_says_where_rows_start_and_labels_come_by_request(tmp_path: Path) -> None:
    made = captures.served()
    pairs = [{"request": {"routed_experts_prompt_start": 2, "seed": 1}, "response": r} for r in captures.vllm(made, start=2)]
    file = captures.lines(tmp_path / "a.jsonl", pairs)
    (tmp_path / "labels.csv").write_text("id,domain,lang\ncmpl-0,code,en\ncmpl-2,news,de\n")
    wanted = {"model": made.saved(tmp_path), "labels": tmp_path / "labels.csv"}
    moescope.import_vllm(file, tmp_path / "a.duckdb", **wanted)
    alike(rows(tmp_path / "a.duckdb"), expected(made.sequences, made.routed, start=2))
    with moescope.open(tmp_path / "a.duckdb") as store:
        assert store.rows("select source_row, domain from sequences order by 1") == [(0, "code"), (1, None), (2, "news")]
        assert store.rows("select kind, label from sequence_labels order by all") == [
            ("domain", "code"), ("domain", "news"), ("lang", "de"), ("lang", "en"),
        ]  # fmt: skip
    assert "2 of the 3 imported sequences are among them" in said(tmp_path / "a.duckdb")


def test_tokens_answers_and_the_last_token(tmp_path: Path) -> None:
    """Every token of prompt and answer is there, its id and whether it was generated; the last has no decision."""
    made = captures.served(n=1)
    file = captures.lines(tmp_path / "a.jsonl", captures.vllm(made))
    moescope.import_captures([file], tmp_path / "a.duckdb", model=made.saved(tmp_path))
    one = made.sequences[0]
    with moescope.open(tmp_path / "a.duckdb") as store:
        known = [(i, int(t), i >= len(one.prompt)) for i, t in enumerate(one.tokens)]
        assert store.rows("select position, vocab_id, generated from tokens order by 1") == known
        looked = store.rows("select distinct position from decisions join tokens using (token) order by 1")
        assert looked == [(i,) for i in range(len(one.tokens) - 1)]
        phases = store.rows("select phase, tokens from forwards order by forward")
        assert phases == [("prefill", len(one.prompt)), ("decode", len(one.answer) - 1)]


def test_several_answers_of_one_request(tmp_path: Path) -> None:
    made = captures.served(n=2)
    made.sequences[1].prompt = made.sequences[0].prompt
    rng = np.random.default_rng(0)
    size = len(made.sequences[1].prompt) + len(made.sequences[1].answer) - 1
    made.sequences[1].experts = rng.random((size, 4, 16)).argsort(-1)[..., :4].astype(np.int32)
    one, two = captures.vllm(made)
    response = {
        **one,
        "choices": [one["choices"][0], {**two["choices"][0], "index": 1}],
        "prompt_token_ids": one["choices"][0]["prompt_token_ids"],
    }
    del response["usage"]
    file = captures.lines(tmp_path / "a.jsonl", [response])
    moescope.import_captures([file], tmp_path / "a.duckdb", model=made.saved(tmp_path))
    alike(rows(tmp_path / "a.duckdb"), expected(made.sequences, made.routed))


def test_text_by_a_tokenizer(tmp_path: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    Tokenizer(WordLevel({f"w{i}": i for i in range(300)}, unk_token="w0")).save(str(tmp_path / "tokenizer.json"))
    made = captures.served(n=1)
    file = captures.lines(tmp_path / "a.jsonl", captures.vllm(made))
    moescope.import_captures([file], tmp_path / "a.duckdb", model=made.saved(tmp_path), tokenizer=tmp_path)
    words = [f"w{t}" for t in made.sequences[0].tokens]
    with moescope.open(tmp_path / "a.duckdb") as store:
        assert store.rows("select text from sequences") == [(" ".join(words),)]
        assert store.rows("select text from token_text order by position") == [(w,) for w in words]
