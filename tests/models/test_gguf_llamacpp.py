"""GGUF files run by llama.cpp, against the same weights run by Transformers: small random models of five architectures.

Where MOESCOPE_GGUF=1 (`make test-gguf` builds llama-cpp-python into a folder of its own, some minutes).
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import written_gguf

import moescope
from moescope import analyses
from moescope.cli import main
from moescope.errors import InputError, ModelError, ProofFailed
from moescope.inputs import Dataset, Example
from moescope.models.gguf import learning
from moescope.models.loading import load
from moescope.routers.rule import Rule
from moescope.tracer import Tracer, trace

pytestmark = [
    pytest.mark.skipif(
        os.environ.get("MOESCOPE_GGUF") != "1", reason="takes llama-cpp-python: make test-gguf (MOESCOPE_GGUF=1)"
    ),
    pytest.mark.slow,
]
FAMILIES = ["olmoe", "mixtral", "qwen3_moe", "qwen2_moe", "glm4_moe"]
ROWS = (
    "select s.source_row, t.position, r.layer, a.rank, a.expert, t.vocab_id, t.generated, l.label, a.weight from assignments a "
    "join routers r using (router, run) join tokens t using (token, run) join sequences s on s.sequence = t.sequence "
    "join sequence_labels l on l.sequence = s.sequence where a.run = {} order by all"
)

_OF_TOKENS = "join tokens using (token) join sequences s using (sequence)"
NUMBERS = (
    f"select entropy, margin, log_sum_exp from decisions {_OF_TOKENS} join routers r using (router) where r.run = {{}} "
    "order by source_row, position, layer"
)
LOGITS = (
    f"select unnest(logits) from logits l {_OF_TOKENS} join routers r using (router) where l.run = {{}} "
    "order by source_row, position, layer, generate_subscripts(logits, 1)"
)
PREDICTED = (
    f"select source_row, position, label from token_labels {_OF_TOKENS} where kind = 'predicted_id' and tokens.run = {{}} "
    "order by all"
)


def data(count: int = 12, longest: int = 40) -> Dataset:
    rng = np.random.default_rng(0)
    rows = [rng.integers(3, 300, 5 + 7 * n % longest) for n in range(count)]
    examples = [Example("ids", n, f"d{n}", input_ids=row, labels={"domain": "ab"[n % 2]}) for n, row in enumerate(rows)]
    return Dataset("ids", "0" * 64, "text", examples)


def both(
    family: str, folder: Path, dtype: str = "float32", inputs: Any = None, kind: str = "F32", **asked: Any
) -> tuple[Any, Any]:
    """Rows of a trace by Transformers and by llama.cpp."""
    model, store = written_gguf.model_of(family), folder / "both.duckdb"
    path = written_gguf.write(model, folder / f"{family}.gguf", kind)
    given = data() if inputs is None else inputs
    runs = [trace(model, given, store, **asked), trace(load(path, dtype=dtype, device="cpu"), given, store, **asked)]
    with moescope.open(store) as opened:
        return tuple(opened.rows(ROWS.format(run)) for run in runs)  # type: ignore[return-value]


def same(a: list[Any], b: list[Any], near: float = 2e-6) -> None:
    assert len(a) > 100
    assert [row[:-1] for row in a] == [row[:-1] for row in b]
    assert max(abs(x[-1] - y[-1]) for x, y in zip(a, b)) < near


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("generate", [0, 4])
def test_every_expert_and_weight(family: str, generate: int, tmp_path: Path) -> None:
    same(*both(family, tmp_path, generate=generate))


def test_rows_one_after_the_other_and_in_parts(tmp_path: Path) -> None:
    """Together more tokens than one evaluation takes; one text longer than that; and then generation with such rows."""
    rng = np.random.default_rng(1)
    lengths = [700, 300, 20, 1, 300]
    examples = [
        Example("ids", n, f"d{n}", input_ids=rng.integers(3, 300, size), labels={"domain": "a"})
        for n, size in enumerate(lengths)
    ]
    model, store = written_gguf.model_of("olmoe", max_position_embeddings=1024), tmp_path / "x.duckdb"
    path = written_gguf.write(model, tmp_path / "a.gguf")
    for generate in (0, 3):
        runs = [trace(m, Dataset("ids", "0" * 64, "text", examples), store, generate=generate, batch_size=5) for m in (
            model, load(path, dtype="float32", device="cpu"))]  # fmt: skip
        with moescope.open(store) as opened:
            found = [opened.rows(ROWS.format(run)) for run in runs]
        assert len(found[0]) == 2 * 2 * (sum(lengths) + max(0, generate - 1) * 5)
        same(*found, near=1e-5)


def test_half_precision_is_near(tmp_path: Path) -> None:
    a, b = both("qwen3_moe", tmp_path, dtype="auto")
    assert np.mean([x[:-1] == y[:-1] for x, y in zip(a, b)]) > 0.97


def test_entropies_logits_and_predictions(tmp_path: Path) -> None:
    model, store = written_gguf.model_of("glm4_moe"), tmp_path / "x.duckdb"
    path = written_gguf.write(model, tmp_path / "a.gguf")
    for m in (model, load(path, dtype="float32", device="cpu")):
        trace(m, data(), store, logits=1.0, predictions=True)
    with moescope.open(store) as opened:
        numbers = [np.array(opened.rows(NUMBERS.format(run))) for run in (0, 1)]
        np.testing.assert_allclose(*numbers, atol=2e-6)
        logits = [np.array(opened.rows(LOGITS.format(run))) for run in (0, 1)]
        np.testing.assert_allclose(*logits, atol=1e-5)
        said = [opened.rows(PREDICTED.format(run)) for run in (0, 1)]
        assert len(said[0]) == sum(len(one.input_ids) for one in data().examples)
        assert said[0] == said[1]
        (proof,) = opened.rows("select proof[1] from runs where run = 1")[0]
        assert '"identical":true' in proof
        assert '"note":""' in proof
        routers = opened.rows(
            "select name, layer, contract, kind, experts, top_k, shared_experts, score from routers where run = 1"
        )
        assert routers == [
            (f"blk.{layer}.ffn_gate_inp", layer, "engine_block", "token_choice", 8, 2, 1, "sigmoid") for layer in (1, 2)
        ]  # fmt: skip
        assert opened.rows("select dtype, quantization, parameters from models where model = 1") == [
            ("F32", None, sum(p.numel() for p in model.parameters()) + 16)
        ]  # fmt: skip


def test_what_quantization_does_to_routing(tmp_path: Path) -> None:
    model, store = written_gguf.model_of("qwen3_moe"), tmp_path / "x.duckdb"
    trace(model, data(), store)
    for kind in ("F32", "Q8_0", "Q4_0"):
        trace(load(written_gguf.write(model, tmp_path / f"{kind}.gguf", kind), dtype="float32", device="cpu"), data(), store)
    changed = []
    with moescope.open(store) as opened:
        for run in (1, 2, 3):
            answer = analyses.run("diff", opened, run, other=0)
            figures = answer.frames["figures"]
            changed.append(float(figures[(figures["name"] == "set changed") & (figures["subset"] == "")]["value"].mean()))
        said = opened.rows("select quantization from models order by model")
    assert changed[0] == 0.0
    assert changed[0] < changed[1] < changed[2]
    assert said[1] == (None,)
    assert "Q8_0" in said[2][0]
    assert "Q4_0" in said[3][0]


def test_a_trace_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    path = written_gguf.write(written_gguf.model_of("olmoe"), tmp_path / "a.gguf")

    def stop(reached: Mapping[str, Any]) -> None:
        if reached["batches"] == 2:
            raise KeyboardInterrupt

    whole, cut = tmp_path / "whole.duckdb", tmp_path / "cut.duckdb"
    trace(load(path, device="cpu"), data(), whole, batch_size=3)
    with pytest.raises(KeyboardInterrupt):
        trace(load(path, device="cpu"), data(), cut, batch_size=3, report=stop)
    trace(load(path, device="cpu"), data(), cut, batch_size=3, resume=True)
    rows = []
    for store in (whole, cut):
        with moescope.open(store) as opened:
            rows.append(opened.rows(ROWS.format(opened.rows("select max(run) from runs where status = 'complete'")[0][0])))
    assert rows[0] == rows[1]


def test_text_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written_gguf.write(written_gguf.model_of("olmoe"), tmp_path / "a.gguf", words=True)
    rows = '{"text": "the cat sat", "domain": "pets"}\n{"text": "a dog ran é", "domain": "law"}\n'
    (tmp_path / "t.jsonl").write_text(rows)
    store = tmp_path / "x.duckdb"
    main(
        ["trace", str(path), "--data", str(tmp_path / "t.jsonl"), "--store", str(store), "--generate", "2"],
        standalone_mode=False,
    )
    with moescope.open(store) as opened:
        texts = opened.rows(
            "select s.domain, string_agg(v.text, '' order by position) filter (not generated), count(*) filter "
            "(generated) from tokens t join vocab v using (vocab_id) join sequences s using (sequence) group by all "
            "order by all desc"
        )
        assert texts == [("pets", "<s> the cat sat", 1), ("law", "<s> a dog ran <0xC3><0xA9>", 1)]
        assert opened.rows("select distinct special, vocab_id from tokens where special") == [(True, 1)]


def test_what_does_not_follow_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written_gguf.write(written_gguf.model_of("glm4_moe"), tmp_path / "a.gguf")
    own = learning._rule
    for wrong in ({"score": "softmax"}, {"normalized": False}, {"bias": None}, {"scale": 1.0}):
        monkeypatch.setattr(learning, "_rule", lambda *said: Rule(**{**vars(own(*said)), **wrong}))  # noqa: B023
        with pytest.raises(ProofFailed, match=r"router blk\.1\.ffn_gate_inp .*nothing is traced"):
            load(path, device="cpu")


def test_decisions_are_executed_as_they_are_written(tmp_path: Path) -> None:
    """An edit changes what llama.cpp computes: other logits, and the edit's own experts in the record."""
    from moescope.contracts import find

    loaded = load(written_gguf.write(written_gguf.model_of("mixtral"), tmp_path / "a.gguf"), dtype="float32", device="cpu")
    ids, seen = torch.arange(3, 23)[None], []
    before = loaded.model(ids).logits
    site = find(loaded.model)[0]
    handles = site.contract.edit(site, lambda experts, weights: ((experts + 1) % 8, weights * 0.5))
    handles += site.contract.listen(site, seen.append)
    after = loaded.model(ids).logits
    for handle in handles:
        handle.remove()
    assert float((before - after).abs().max()) > 1e-3
    assert torch.equal(loaded.model(ids).logits, before)
    with torch.no_grad():
        scores = torch.softmax(seen[0].logits, -1)
        top = scores.topk(2, -1)
    assert torch.equal(seen[0].experts, (top.indices + 1) % 8)
    own = scores.gather(-1, seen[0].experts)  # weights of the experts that were decided, halved
    assert seen[0].weights.sum(-1).allclose(torch.full((20,), 0.5))
    assert not torch.allclose(own, seen[0].weights)


def test_bad_calls(tmp_path: Path) -> None:
    loaded = load(written_gguf.write(written_gguf.model_of("olmoe"), tmp_path / "a.gguf"), device="cpu")
    ids = torch.arange(3, 13)[None]
    cache = loaded.model(ids, use_cache=True).past_key_values
    loaded.model(ids)
    with pytest.raises(ModelError, match="has forgotten"):
        loaded.model(ids[:, :1], past_key_values=cache)
    with pytest.raises(InputError, match="more tokens than the model's 256"):
        loaded.model(torch.ones(1, 300, dtype=torch.long))
    with pytest.raises(InputError, match="is padding"):
        loaded.model(ids, attention_mask=torch.zeros_like(ids))
    with (
        pytest.raises(InputError, match=r"stays in llama\.cpp"),
        Tracer(loaded.model, tmp_path / "x.duckdb", activations=["importance"]),
    ):
        pass
    assert not (tmp_path / "x.duckdb").exists()


def test_an_unknown_architecture(tmp_path: Path) -> None:
    path = written_gguf.write(written_gguf.model_of("olmoe"), tmp_path / "a.gguf")
    path.write_bytes(path.read_bytes().replace(b"olmoe", b"newmo"))
    with pytest.raises(ModelError, match=r"unknown model architecture: 'newmo'") as caught:
        load(path, device="cpu")
    assert "\n" not in str(caught.value)
