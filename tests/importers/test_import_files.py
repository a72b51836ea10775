"""What torch saved is read without torch and without a pickle; configurations say which layers are routed."""

import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import captures
import numpy as np
import pytest
import torch
from click.testing import CliRunner

import moescope
from moescope import errors
from moescope.cli import main
from moescope.importers._core.model import of_config, read_model
from moescope.importers._forms.torch_save import read_saved

SAVED: list[Any] = [
    {"a": [1, -2, 2**40, 3.5, None, True, False, "ü", (1, 2), {}], ("decoder", None, 1): {"b": []}},
    {"x": torch.arange(24, dtype=torch.int32).reshape(2, 3, 4).permute(2, 0, 1)[1:], "y": torch.zeros(0, 3)},
    [torch.tensor([1.5, -2.25], dtype=kind) for kind in (torch.bfloat16, torch.float16, torch.float32, torch.float64)],
    [torch.tensor([0, 1, 127], dtype=kind) for kind in (torch.int8, torch.uint8, torch.int16, torch.int64)],
    {"shared": [torch.arange(6)[:3], torch.arange(6)[::2], torch.tensor([True, False])]},
]


def _same(found: Any, known: Any) -> bool:
    if isinstance(known, torch.Tensor):
        known = known.float().numpy() if known.dtype == torch.bfloat16 else known.numpy()
        return isinstance(found, np.ndarray) and found.shape == known.shape and bool((found == known).all())
    if isinstance(known, dict):
        return list(found) == list(known) and all(_same(found[key], known[key]) for key in known)
    if isinstance(known, list | tuple):
        return type(found) is type(known) and len(found) == len(known) and all(map(_same, found, known))
    return type(found) is type(known) and found == known


@pytest.mark.parametrize("number", range(len(SAVED)))
def test_plain_tensors_come_back_as_arrays(number: int, tmp_path: Path) -> None:
    torch.save(SAVED[number], tmp_path / "a.pt")
    assert _same(read_saved(tmp_path / "a.pt"), SAVED[number])


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("owned",)


def test_nothing_else_is_loaded_and_nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Evil()}, "evil.pt")
    torch.save({"a": torch.nn.Linear(2, 2)}, "module.pt")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps({"a": Evil()}))
    torch.save({"a": torch.zeros(100)}, "cut.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "cut.pt").read_bytes()[:-400])
    for name in ("evil", "module", "bare", "cut"):
        with pytest.raises(errors.InputError, match="cannot be read as plain tensors"):
            read_saved(tmp_path / f"{name}.pt")
    assert not (tmp_path / "owned").exists()


def test_a_storage_shorter_than_it_says_is_refused(tmp_path: Path) -> None:
    from zipfile import ZipFile

    torch.save({"a": torch.zeros(100)}, tmp_path / "a.pt")
    with ZipFile(tmp_path / "a.pt") as whole, ZipFile(tmp_path / "b.pt", "w") as lying:
        for name in whole.namelist():
            lying.writestr(name, whole.read(name)[: 8 if "/data/" in name else None])
    with pytest.raises(errors.InputError, match="says 400 bytes and has 8"):
        read_saved(tmp_path / "b.pt")


BASE = {"num_hidden_layers": 6, "num_experts": 8, "num_experts_per_tok": 2}
CONFIGS: list[tuple[dict[str, Any], list[int]]] = [
    (BASE, [0, 1, 2, 3, 4, 5]),
    (BASE | {"first_k_dense_replace": 2}, [2, 3, 4, 5]),
    (BASE | {"num_dense_layers": 1}, [1, 2, 3, 4, 5]),
    (BASE | {"mlp_only_layers": [0, 4]}, [1, 2, 3, 5]),
    (BASE | {"decoder_sparse_step": 2}, [1, 3, 5]),
    (BASE | {"expert_layer_period": 2, "expert_layer_offset": 1}, [1, 3, 5]),
    (BASE | {"expert_layer_period": 3, "expert_layer_offset": 0}, [0, 3]),
    (BASE | {"moe_layers": [1, 5], "interleave_moe_layer_step": 1}, [1, 5]),
    (BASE | {"mlp_layer_types": ["dense", "sparse", "dense", "moe", "hash_moe", "dense"]}, [1, 3, 4]),
    (BASE | {"moe_layer_start_index": 1, "moe_layer_end_index": 4, "moe_layer_interval": 1}, [1, 2, 3, 4]),
    (BASE | {"moe_layer_freq": [0, 1, 1, 0, 1, 1]}, [1, 2, 4, 5]),
    (BASE | {"first_k_dense_replace": 1, "moe_layer_freq": 2}, [2, 4]),
    ({"hybrid_override_pattern": "ME*EM-", "n_routed_experts": 8, "num_experts_per_tok": 2}, [1, 3]),
    ({"text_config": BASE | {"first_k_dense_replace": 5}, "vision_config": {"num_hidden_layers": 9}}, [5]),
]


@pytest.mark.parametrize(("config", "routed"), CONFIGS)
def test_a_configuration_says_which_layers_are_routed(config: dict[str, Any], routed: list[int]) -> None:
    model = of_config(config, "m")
    assert (list(model.routed), model.experts, model.top_k) == (routed, 8, 2)


FAMILIES = ["deepseek_v3", "ernie4_5_moe", "llama4_text", "nemotron_h"]


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_configurations_of_transformers_are_understood(family: str) -> None:
    """Against the routers that are found in the family's own tiny model."""
    from moescope.contracts import find
    from moescope.models import tiny

    model = tiny.build(family).model
    sites, said = find(model), of_config(model.config.to_dict(), family)
    assert list(said.routed) == sorted({site.layer for site in sites})
    assert {said.experts} == {site.n_experts for site in sites}
    ruled = any("bias" in key or "group" in key for site in sites for key, value in site.rule.items() if value)
    assert not (said.by_weight and ruled)


REFUSED: list[tuple[str, str]] = [
    ("[]", "holds no JSON object"), ("{", "reading"), ("{}", "number of experts"),
    (json.dumps({"num_experts": 8, "num_hidden_layers": 2}), "number of top-k"),
    (json.dumps(BASE | {"num_hidden_layers": 10**9}), "which no model has"),
    (json.dumps(BASE | {"first_k_dense_replace": 6}), "no layer with a router"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "words"), REFUSED)
def test_configurations_that_say_too_little(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(errors.InputError, match=words):
        read_model(tmp_path)


def test_the_command_says_what_came_in_and_refuses_in_a_sentence(tmp_path: Path) -> None:
    made = captures.served()
    file, store = captures.lines(tmp_path / "a.jsonl", captures.vllm(made)), tmp_path / "a.duckdb"
    asked = ["import", str(file), "--store", str(store)]
    done = CliRunner().invoke(main, [*asked, "--model", str(made.saved(tmp_path))], standalone_mode=False)
    assert done.exception is None
    assert done.stdout == f"run 0 of {store}: 3 sequences from vllm\n"
    assert "note: the capture has no routing weights, so" in done.stderr
    for more, words in (
        ([], "give --model"), (["--model", str(tmp_path / "no")], "there is no configuration"),
        (["-p", "x=1"], "no option 'x'"),
    ):  # fmt: skip
        refused = CliRunner().invoke(main, [*asked, *more], standalone_mode=False)
        assert words in str(refused.exception)
    refused = CliRunner().invoke(main, ["import", "sglang2", str(file), "--store", str(store)], standalone_mode=False)
    assert "there is no file sglang2" in str(refused.exception)
    assert "policylang" in CliRunner().invoke(main, ["import", "--list"]).stdout


def test_importing_loads_no_model_library(tmp_path: Path) -> None:
    made = captures.served()
    file = captures.lines(tmp_path / "a.jsonl", captures.vllm(made))
    script = (
        "import sys, moescope; moescope.import_captures([sys.argv[1]], sys.argv[2], model=sys.argv[3]); "
        "assert not {'torch', 'transformers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", script, file, tmp_path / "a.duckdb", made.saved(tmp_path)], check=True)


def test_an_unknown_importer_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="importers are: dynamo, esft"):
        _ = moescope.import_nothing


@pytest.mark.parametrize("seed", range(8))
def test_long_payloads_are_read_as_json_reads_them(seed: int) -> None:
    """Whatever lies around them, and whatever they hold."""
    from moescope.importers._core.cutting import read_line

    rng = np.random.default_rng(seed)
    ids = rng.integers(-1, 10 ** int(rng.integers(1, 9)), (int(rng.integers(1, 60)), 4, int(rng.integers(1, 9))))
    forms: list[Any] = [
        ids.tolist(), ids[:, 0].tolist(), [], [[[]]], [*ids.tolist(), [[1]]], captures.npy(ids), captures.npy(ids)[:-3], None,
        7,
        [[[1, 2], [3]]], [[[1.5]]], [[["a"]]], {"data": captures.raw(ids)}, "", [[[2**40]]],
    ]  # fmt: skip
    for form in forms:
        text = '"routed_experts": [[[1, 2]]], "x": "\\"'
        value = {
            "a": text,
            "choices": [{"routed_experts": form, "token_ids": [1, 2], "b": [text]}],
            "prompt_routed_experts": form,
        }
        for blanks in ((", ", ": "), (",", ":"), (" , ", " : ")):
            raw = json.dumps(value | {"pad": "x" * 5000}, separators=blanks).encode()
            assert _as_json(read_line(raw)) == json.loads(raw)


def _as_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_json(inner) for key, inner in value.items()}
    if isinstance(value, list | np.ndarray):
        return value.tolist() if isinstance(value, np.ndarray) else [_as_json(inner) for inner in value]
    return value.decode() if isinstance(value, bytes) else value


@pytest.mark.parametrize("tail", ["", "]", "1", "[", ",", "-"])
def test_lists_that_are_cut_are_no_json(tail: str) -> None:
    from moescope.importers._core.cutting import read_line

    raw = b'{"pad": "' + b"x" * 5000 + b'", "routed_experts": [[[1, 2], [3, 4]' + tail.encode()
    with pytest.raises(ValueError):
        read_line(raw)


def test_base64_is_read_as_strictly_as_by_the_standard_library() -> None:
    import base64
    import binascii

    from moescope.importers._core.cutting import base64 as read

    rng = np.random.default_rng(0)
    for n in range(300):
        text = bytearray(base64.b64encode(rng.bytes(n)))
        if n % 3 == 2 and text:
            text[int(rng.integers(len(text)))] = int(rng.integers(256))
        try:
            known: bytes | None = binascii.a2b_base64(bytes(text), strict_mode=True)
        except binascii.Error:
            known = None
        try:
            found = read(bytes(text))
        except binascii.Error:
            found = None
        assert found == known


def test_what_was_left_out_is_not_advised_to_be_left_out(tmp_path: Path) -> None:
    made = captures.served(n=3)
    records = captures.vllm(made)
    records[0]["choices"][0]["routed_experts"] = captures.npy(made.planes(made.sequences[0])[1:])
    records[1]["choices"][0]["routed_experts"] = captures.npy(np.zeros_like(made.planes(made.sequences[1])))
    file, model = captures.lines(tmp_path / "a.jsonl", records), made.saved(tmp_path)
    with pytest.raises(errors.InputError, match="leave it out by --keep-going"):
        moescope.import_vllm(file, tmp_path / "a.duckdb", model=model)
    done = moescope.import_vllm(file, tmp_path / "a.duckdb", model=model, keep_going=True)
    assert len(done.left_out) == 2
    assert not [text for text in done.left_out if "keep-going" in text or text.endswith(("(", ";", ","))]


def test_notes_are_whole_sentences(tmp_path: Path) -> None:
    """Each says what is so and, where something can be done, what: none is a bare list of things."""
    made = captures.served(n=2)
    for number, (kind, write) in enumerate({"vllm": captures.vllm, "sglang": captures.sglang}.items()):
        file = captures.lines(tmp_path / "a.jsonl", write(made))
        done = moescope.import_captures([file], tmp_path / f"{number}.duckdb", kind, model=made.saved(tmp_path))
        assert len(done.warnings) >= 4
        assert [
            text for text in done.warnings if not re.search(r"\b(is|are|has|have|lacks|does|was|were|came|says?)\b", text)
        ] == []
