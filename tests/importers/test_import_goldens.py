"""Captures made with the engines' own encoders decode to their truth."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common_imports import alike, expected, rows
from test_import_engines import _in_order

import moescope
from moescope import analyses, errors

GOLDENS = {
    "vllm/olmoe-0.21-completions.jsonl": "vllm", "vllm/olmoe-0.32-completions.jsonl": "vllm",
    "vllm/qwen3moe-0.32-completions.jsonl": "vllm", "vllm/olmoe-0.32-chat-prompt_start10.jsonl": "vllm",
    "sglang/olmoe-0.5.23-generate.jsonl": "sglang", "sglang/olmoe-0.5.23-chat.jsonl": "sglang",
    "sglang/qwen3moe-0.5.23-generate.jsonl": "sglang", "sglang/qwen3moe-0.5.23-recorder-per_token.pt": "sglang",
    "other/olmoe-dynamo.jsonl": "dynamo", "other/olmoe-table.npz": "vllm", "policylang/olmoe.jsonl": "policylang",
    "policylang/olmoe.parquet": "policylang", "megatron/qwen3moe-hook-map": "megatron", "megatron/qwen3moe-sink": "megatron",
}  # fmt: skip


@dataclass
class Known:
    experts: Any
    weights: Any


def truth(shared: Path, name: str) -> tuple[list[Known], list[int], str]:
    """Sequences, layers with a router, and the configuration."""
    arrays = np.load(shared / "goldens" / "serving" / "truth" / f"{name}.npz")
    sequences = [Known(arrays[f"ids_{i}"], arrays[f"weights_{i}"]) for i in range(int(arrays["n"]))]
    return sequences, arrays["layers"].tolist(), str(arrays["config"])


def model_of(shared: Path, name: str, folder: Path) -> Path:
    (folder / "config.json").write_text(truth(shared, name)[2])
    return folder / "config.json"


@pytest.fixture(scope="module")
def stored(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All goldens, a run each, in their order."""
    store = tmp_path_factory.mktemp("goldens") / "a.duckdb"
    for file, kind in GOLDENS.items():
        model = model_of(shared, _model(file), store.parent)
        assert moescope.import_captures([shared / "goldens" / "serving" / file], store, model=model).kind == kind
    rows(store)
    return store


def _model(file: str) -> str:
    return Path(file).name.split("-")[0].split(".")[0]


@pytest.mark.parametrize("file", GOLDENS)
def test_a_golden_decodes_to_its_truth(file: str, shared: Path, stored: Path) -> None:
    known, layers, _ = truth(shared, _model(file))
    kind = GOLDENS[file]
    found, start = rows(stored, list(GOLDENS).index(file), whole=False), 10 if "prompt_start10" in file else 0
    if kind == "megatron":
        known = [Known(*(np.concatenate([getattr(one, part) for one in known]) for part in ("experts", "weights")))]
        found = _in_order(found)
    if kind == "policylang":  # six new tokens
        known = [Known(one.experts[:n], one.weights[:n]) for one, n in zip(known, (51, 37, 39))]
    if "hook-map" in file:  # ascending: order and rank are lost, weights are of bfloat16 logits
        order = known[0].experts.argsort(-1)
        known = [Known(*(np.take_along_axis(a, order, -1) for a in (known[0].experts, known[0].weights)))]
        alike(found, expected(known, layers, ranked=False, weights=True), 0.02)  # logits of 13 are off by 0.03 there
    else:
        alike(found, expected(known, layers, start, weights=kind == "policylang"), 1e-6)


@pytest.mark.parametrize("mode", ["per_pass", "stat"])
def test_counts_become_load_and_no_decision(mode: str, shared: Path, tmp_path: Path) -> None:
    known, layers, _ = truth(shared, "qwen3moe")
    file = shared / "goldens" / "serving" / "sglang" / f"qwen3moe-0.5.23-recorder-{mode}.pt"
    done = moescope.import_sglang(file, tmp_path / "a.duckdb", model=model_of(shared, "qwen3moe", tmp_path))
    assert done.sequences == 0
    counts = {
        (layer, expert): int(n)
        for router, layer in enumerate(layers)
        for expert, n in enumerate(sum(np.bincount(one.experts[:, router].reshape(-1), minlength=32) for one in known))
    }
    with moescope.open(tmp_path / "a.duckdb") as store:
        assert {(a, b): n for a, b, n in store.rows("select layer, expert, assignments from expert_load")} == counts
        assert store.rows("select decisions, tokens, capture->>'counts_only' from runs") == [(0, 0, "true")]
        with pytest.raises(errors.AnalysisError, match="imported as counts"):
            analyses.run("load", store)


BAD = {
    "vllm-all-zero": "every id of every row is 0.*nothing was captured",
    "vllm-prompt-zero": "the prompt's rows 0 to 45 are all 0",
    "vllm-missing-last": "56 rows, where 57 are expected.*cannot be known",
    "vllm-layers-lost": "3 layers, the model .* has 4 routers.*layers were lost",
    "vllm-truncated-base64": "cmpl-olmoe-2 .*no valid base64.*cut off",
    "vllm-tp-local-zero-rows": "every second row is all 0.*tensor-parallel",
    "sglang-truncated-base64": "no multiple of|no valid base64",
    "vllm-duplicated-decode-rows": "rows 46 to 56 chose the same experts in every layer, though .* differ.*CUDA graph",
}
GOOD = {
    "vllm-minus-one-prefix": (3, "48 tokens were not captured"),
    "vllm-preempted-none": (2, "1 of 3 responses have no routed experts"),
    "sglang-request-not-opted-in": (2, "1 of 3 responses have no routed experts"),
}


def test_every_bad_golden_is_known(shared: Path) -> None:
    named = json.loads((shared / "goldens" / "serving" / "bad" / "EXPECT.json").read_text())
    assert {name.removesuffix(".jsonl") for name in named} == BAD.keys() | GOOD.keys()


@pytest.mark.parametrize("name", BAD)
def test_a_bad_golden_is_refused_in_a_sentence_and_leaves_nothing(name: str, shared: Path, tmp_path: Path) -> None:
    file, model = shared / "goldens" / "serving" / "bad" / f"{name}.jsonl", model_of(shared, "olmoe", tmp_path)
    with pytest.raises(errors.InputError, match=BAD[name]) as refusal:
        moescope.import_captures([file], tmp_path / "a.duckdb", model=model)
    assert "\n" not in str(refusal.value)
    if (tmp_path / "a.duckdb").exists():
        with moescope.open(tmp_path / "a.duckdb") as store:
            assert store.rows("from runs") == []


@pytest.mark.parametrize("name", GOOD)
def test_what_is_sound_of_a_bad_golden_comes_in(name: str, shared: Path, tmp_path: Path) -> None:
    file, model = shared / "goldens" / "serving" / "bad" / f"{name}.jsonl", model_of(shared, "olmoe", tmp_path)
    done = moescope.import_captures([file], tmp_path / "a.duckdb", model=model)
    assert done.sequences == GOOD[name][0]
    assert GOOD[name][1] in " ".join(done.warnings)
    assert {row[5] for row in rows(tmp_path / "a.duckdb")} <= set(range(16))


def test_keep_going_leaves_out_and_says_what(shared: Path, tmp_path: Path) -> None:
    file = shared / "goldens" / "serving" / "bad" / "vllm-truncated-base64.jsonl"
    done = moescope.import_captures([file], tmp_path / "a.duckdb", model=model_of(shared, "olmoe", tmp_path), keep_going=True)
    assert done.sequences == 2
    assert [text.split(":")[0] for text in done.left_out] == ["response cmpl-olmoe-2 (line 3 of vllm-truncated-base64.jsonl)"]
    known, layers, _ = truth(shared, "olmoe")
    alike(rows(tmp_path / "a.duckdb"), expected(known[:2], layers))
