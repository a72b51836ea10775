"""A tiny Mixtral and the Tracer: what is recorded, what is not, and what is said when something is wrong."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tracing
from torch import Tensor

import moescope
from moescope.errors import InputError
from moescope.tracer import Tracer

TOKENS = torch.tensor([[11, 12, 13, 14, 15], [21, 22, 23, 24, 25]])
RECORD = """select s.source_row, t.position, t.vocab_id, r.layer, a.rank, a.expert, a.weight from assignments a
join tokens t using (token) join sequences s using (sequence) join routers r using (router) order by all"""


def ask(store: Path, query: str) -> list[Any]:
    with moescope.open(store) as opened:
        return opened.rows(query)


def record(model: Any, store: Path, *calls: dict[str, Any], **settings: Any) -> Path:
    with Tracer(model, store, **settings), torch.no_grad():
        for call in calls:
            model(**call)
    return store


def test_rows_are_the_routers_own(tmp_path: Path) -> None:
    """Recount from router logits: softmax, two largest, renormalized (Mixtral)."""
    model = tracing.tiny()
    store = record(model, tmp_path / "run.duckdb", {"input_ids": TOKENS})
    with torch.no_grad():
        logits = model(input_ids=TOKENS, output_router_logits=True).router_logits
    expected = []
    for layer, rows in enumerate(logits):
        top = rows.softmax(-1).topk(2)
        for row in range(10):
            weights = top.values[row] / top.values[row].sum()
            expected += [
                (layer, TOKENS.flatten()[row].item(), rank, top.indices[row, rank].item(), weights[rank].item())
                for rank in (0, 1)
            ]
    query = (
        "select layer, vocab_id, rank, expert, weight from assignments join routers using (router) join tokens using (token)"
    )
    assert ask(store, query + " order by all") == [(*k, pytest.approx(w, abs=1e-6)) for *k, w in sorted(expected)]


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_never_recorded(tmp_path: Path, side: str) -> None:
    model, short = tracing.tiny(), TOKENS[1, :3]
    pads = torch.zeros(2, dtype=torch.long)
    ids = torch.stack([TOKENS[0], torch.cat([pads, short] if side == "left" else [short, pads])])
    mask = (ids != 0).long()
    places = {"position_ids": (mask.cumsum(-1) - 1).clamp(min=0)} if side == "left" else {}
    padded = record(model, tmp_path / "padded.duckdb", {"input_ids": ids, "attention_mask": mask, **places})
    alone = record(model, tmp_path / "alone.duckdb", {"input_ids": TOKENS[:1]}, {"input_ids": short[None]})
    query = RECORD.replace("s.source_row", "s.tokens")
    rows, expected = ask(padded, query), ask(alone, query)
    assert [row[:-1] for row in rows] == [row[:-1] for row in expected]
    assert np.allclose([row[-1] for row in rows], [row[-1] for row in expected], atol=1e-5)
    assert ask(padded, "select tokens, decisions from runs") == [(8, 16)]


def test_prefill_decode_and_generated_tokens(tmp_path: Path) -> None:
    model, store = tracing.tiny(), tmp_path / "run.duckdb"
    with Tracer(model, store):
        made = model.generate(input_ids=TOKENS, attention_mask=torch.ones_like(TOKENS), max_new_tokens=3, do_sample=False)
    assert ask(store, "select phase, step, batch_size, tokens from forwards order by forward") == [
        ("prefill", 0, 2, 10), ("decode", 1, 2, 2), ("decode", 2, 2, 2),
    ]  # fmt: skip
    assert ask(store, "select sequence, position, vocab_id, generated from tokens order by 1, 2") == [
        (s, p, made[s, p].item(), p >= 5) for s in range(2) for p in range(7)
    ]
    assert ask(store, "select phase, count(*) from decisions join forwards using (forward) group by all order by 1") == [
        ("decode", 8), ("prefill", 20),
    ]  # fmt: skip


def test_what_generate_feeds_after_an_end_is_padding(tmp_path: Path) -> None:
    model, mask = tracing.tiny(), torch.ones_like(TOKENS)
    free = model.generate(input_ids=TOKENS, attention_mask=mask, max_new_tokens=6, do_sample=False)
    end = next(int(free[0, p]) for p in range(5, 9) if int(free[0, p]) not in free[1, 5:10].tolist())
    with_end = tracing.tiny(eos_token_id=end)
    with Tracer(with_end, tmp_path / "end.duckdb"):
        made = with_end.generate(input_ids=TOKENS, attention_mask=mask, max_new_tokens=6, do_sample=False)
    lengths = [int((made[0] == end).nonzero()[0]) + 1, 10]
    assert ask(
        tmp_path / "end.duckdb", "select count(*), max(position) + 1 from tokens group by sequence order by sequence"
    ) == [(n, n) for n in lengths]


def test_a_second_conversation_is_a_new_sequence(tmp_path: Path) -> None:
    model, store = tracing.tiny(), tmp_path / "run.duckdb"
    with Tracer(model, store), torch.no_grad():
        cache = model(input_ids=TOKENS, use_cache=True).past_key_values
        model(input_ids=TOKENS[:, :2], past_key_values=cache)
        model(input_ids=TOKENS)
    assert ask(store, "select sequence, count(*), max(position) from tokens group by 1 order by 1") == [
        (0, 7, 6), (1, 7, 6), (2, 5, 4), (3, 5, 4),
    ]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_are_stored_exactly(tmp_path: Path, dtype: torch.dtype) -> None:
    model = tracing.tiny().to(dtype)
    seen: list[Tensor] = []
    hook = model.model.layers[1].mlp.experts.register_forward_pre_hook(lambda _, args: seen.append(args[2].clone()))
    store = record(model, tmp_path / "run.duckdb", {"input_ids": TOKENS})
    hook.remove()
    stored = ask(store, "select weight from assignments join routers using (router) where layer = 1 order by token, slot")
    assert seen[-1].float().flatten().tolist() == [w for (w,) in stored]


def test_nan_logits_are_recorded_and_reported(tmp_path: Path) -> None:
    model = tracing.tiny()
    with Tracer(model, tmp_path / "run.duckdb"), torch.no_grad():
        model.model.layers[1].mlp.gate.weight[0, 0] = float("nan")
        model(input_ids=TOKENS)
    assert ask(tmp_path / "run.duckdb", "select count(*) from decisions where isnan(entropy)") == [(10,)]
    assert "NaN or infinite router logits at model.layers.1.mlp.gate (10 decisions)" in ask(
        tmp_path / "run.duckdb", "select warnings from runs"
    )[0][0]  # fmt: skip
    assert ask(tmp_path / "run.duckdb", "select layer, nonfinite from router_summary order by 1") == [(0, 0), (1, 10)]


def test_only_the_layers_asked_for(tmp_path: Path) -> None:
    store = record(tracing.tiny(layers=3), tmp_path / "run.duckdb", {"input_ids": TOKENS}, layers=[2])
    assert ask(store, "select router, name, layer from routers") == [(0, "model.layers.2.mlp.gate", 2)]
    with pytest.raises(InputError, match=r"^no router in layer 7: the layers with a router are 0, 1, 2$"):
        record(tracing.tiny(layers=3), tmp_path / "none.duckdb", layers=[2, 7])
    assert not (tmp_path / "none.duckdb").exists()


def test_every_other_forward(tmp_path: Path) -> None:
    calls = [{"input_ids": TOKENS[:1, :n]} for n in (1, 2, 3, 4, 5)]
    store = record(tracing.tiny(), tmp_path / "run.duckdb", *calls, every=2)
    assert ask(store, "select tokens from forwards order by forward") == [(1,), (3,), (5,)]


def test_logits_where_asked_for(tmp_path: Path) -> None:
    model = tracing.tiny()
    store = record(model, tmp_path / "run.duckdb", {"input_ids": TOKENS}, logits=True)
    with torch.no_grad():
        theirs = model(input_ids=TOKENS, output_router_logits=True).router_logits
    stored = [row for (row,) in ask(store, "select logits from logits order by router, token")]
    assert np.allclose(stored, torch.cat(theirs).numpy(), atol=1e-6)
    assert ask(record(model, tmp_path / "none.duckdb", {"input_ids": TOKENS}), "from logits") == []


def test_predictions_are_what_the_head_ranks_first(tmp_path: Path) -> None:
    model = tracing.tiny()
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    inputs = {"input_ids": TOKENS, "attention_mask": mask}
    store = record(model, tmp_path / "run.duckdb", inputs, predictions=True)
    with torch.no_grad():
        first = model(**inputs).logits.argmax(-1)
    found = ask(store, "select label::int from token_labels where kind = 'predicted_id' order by token")
    assert [label for (label,) in found] == first[mask.bool()].tolist()


def test_predictions_of_a_head_that_says_only_the_last_place(tmp_path: Path) -> None:
    model = tracing.tiny()
    store = record(model, tmp_path / "run.duckdb", {"input_ids": TOKENS, "logits_to_keep": 1}, predictions=True)
    with torch.no_grad():
        first = model(input_ids=TOKENS).logits[:, -1].argmax(-1)
    query = "select position, label::int from token_labels l join tokens t using (token) order by token"
    assert ask(store, query) == [(4, i) for i in first.tolist()]
