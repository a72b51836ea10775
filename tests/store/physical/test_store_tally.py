"""What shards count beside their rows is what SQL counts from the rows."""

from pathlib import Path
from typing import Any

import duckdb
import handmade
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import moescope
from moescope.store import RunWriter
from moescope.store.sums.definitions import ADDED, add_rollups
from moescope.store.write import vocabulary
from moescope.store.write.change import change_store
from moescope.store.write.unfinished_run import VOCABULARY, unfinished_runs

LAYERS, EXPERTS, TOKENS = 3, 6, 40


def head() -> dict[str, Any]:
    """Three decoder routers out of order, and one of a vision tower."""
    routers = [
        {"router": r, "name": f"layers.{layer}", "layer": layer, "stack": stack, "block_type": "ffn", "kind": "token_choice",
         "experts": EXPERTS, "top_k": 2}
        for r, layer, stack in ((0, 5, "decoder"), (1, 1, "decoder"), (2, 3, "decoder"), (3, 0, "vision"))
    ]  # fmt: skip
    experts = [{"router": r["router"], "expert": e, "role": "routed"} for r in routers for e in range(EXPERTS)]
    return {**handmade.HEAD, "routers": routers, "experts": experts}


def forward(writer: RunWriter, rng: np.random.Generator, k: int, routers: tuple[int, ...] = (0, 1, 2), **form: Any) -> None:
    """Two sequences; the second without labels. `form`: empty, drop, nan, plain (no summaries), iterations, subset."""
    number, sequence, token = writer.take("forward", 1), writer.take("sequence", 2), writer.take("token", TOKENS)
    writer.add("sequences", {"sequence": [sequence, sequence + 1], "source": "x", "source_row": 0, "part": 0, "beam": 0})
    labels = [("domain", rng.choice(["a", "b"])), ("language", "x")]
    writer.add("sequence_labels", {"sequence": [sequence] * 2, "kind": [k for k, _ in labels], "label": [v for _, v in labels]})
    tokens = np.arange(token, token + TOKENS)
    writer.add("tokens", {"token": tokens, "sequence": sequence + (tokens - token) // (TOKENS // 2), "position": tokens - token,
        "unit": "text", "vocab_id": tokens % 7, "special": False, "generated": False})  # fmt: skip
    writer.add(
        "forwards", {"forward": number, "phase": "prefill", "step": 0, "batch_size": 2, "tokens": TOKENS, "seconds": 1.0}
    )
    for iteration in range(form.get("iterations", 1)):
        for router in routers:
            some = tokens[rng.random(TOKENS) < 0.5] if form.get("subset") else tokens
            writer.add(f"routes_{k}", _columns(rng, k, number, router, iteration, some, form))


def _columns(rng: Any, k: int, number: int, router: int, iteration: int, tokens: Any, form: dict[str, Any]) -> dict[str, Any]:
    n = len(tokens)
    order = np.argsort(rng.random((n, EXPERTS)), axis=1)[:, :k]
    empty = rng.random((n, k)) < (0.3 if form.get("empty") else 0)
    empty |= np.maximum.accumulate(empty, axis=1)
    columns: dict[str, Any] = {"forward": np.uint32(number), "router": np.uint32(router), "iteration": np.uint8(iteration),
        "token": tokens, "slots": np.uint64(0), "dropped": rng.integers(0, 1 << k, n).astype("u4") if form.get("drop") else
        np.uint32(0)}  # fmt: skip
    if form.get("drop"):
        columns["dropped"] &= (~(empty << np.arange(k)).sum(1)).astype("u4")
    for rank in range(k):
        mask = empty[:, rank] if form.get("empty") else None
        columns[f"e{rank}"] = pa.array(order[:, rank].astype("i2"), mask=mask)
        columns[f"w{rank}"] = pa.array(rng.random(n).astype("f4") / (rank + 1), mask=mask)
    if not form.get("plain"):
        columns |= {name: rng.random(n).astype("f4") for name in ("entropy", "log_sum_exp", "margin")}
    if form.get("nan"):
        for name in ("entropy", "log_sum_exp", "margin"):
            columns[name][rng.random(n) < 0.2] = np.nan
        columns["log_sum_exp"][0] = np.inf
    return columns


CASES: dict[str, tuple[bool, list[dict[str, Any]]]] = {
    "top-1": (True, [{"k": 1}] * 3),
    "top-2": (True, [{"k": 2}] * 3),
    "top-4, some empty": (True, [{"k": 4, "empty": True}] * 3),
    "drops": (True, [{"k": 2, "drop": True}] * 3),
    "drops, some empty": (True, [{"k": 3, "drop": True, "empty": True}]),
    "NaN": (True, [{"k": 2, "nan": True}, {"k": 2}]),
    "some without summaries": (True, [{"k": 2, "plain": True}, {"k": 2}]),
    "iterations": (True, [{"k": 2, "iterations": 3}] * 2),
    "two widths": (True, [{"k": 2, "routers": (1, 2)}, {"k": 1, "routers": (3,)}]),
    "one router in two widths": (False, [{"k": 2}, {"k": 1}]),
    "subsets of tokens": (False, [{"k": 2, "subset": True}] * 2),
    "one shard of subsets": (False, [{"k": 2}, {"k": 2, "subset": True}]),
}


def kept(con: duckdb.DuckDBPyConnection) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of every rollup, floats rounded."""
    found = {name: con.execute(f"from {name}_rollup order by all").fetchall() for name in ADDED}
    return {n: [tuple(round(v, 9) if isinstance(v, float) else v for v in row) for row in rows] for n, rows in found.items()}


@pytest.mark.sampled(5)
@pytest.mark.parametrize("case", CASES)
def test_counting_agrees_with_sql(case: str, tmp_path: Path) -> None:
    store, rng = tmp_path / "run.duckdb", np.random.default_rng(0)
    can, forwards = CASES[case]
    writer = RunWriter.create(store, head())
    for number, form in enumerate(forwards):
        forward(writer, rng, **form)
        if number % 2 or case == "top-2":
            writer.commit({})
    writer.commit({})
    assert unfinished_runs(store)[0].counted() is can
    writer.close(handmade.FINAL, {})
    found: list[dict[str, Any]] = []

    def recount(con: duckdb.DuckDBPyConnection) -> None:
        found.append(kept(con))
        add_rollups(con, 0)
        found.append(kept(con))

    change_store(store, recount)
    assert all(rows for name, rows in found[0].items() if name != "coactivation" or case != "top-1")
    assert found[0] == found[1]


def test_tokens_of_another_shard_are_not_guessed(tmp_path: Path) -> None:
    """Rows of tokens that an earlier shard named get their sums from SQL, labels included."""
    writer, rng = RunWriter.create(tmp_path / "run.duckdb", head()), np.random.default_rng(0)
    forward(writer, rng, 2)
    writer.commit({})
    forward(writer, rng, 2)
    writer.add("routes_2", _columns(rng, 2, 0, 3, 0, np.arange(5), {}))
    writer.commit({})
    assert not unfinished_runs(tmp_path / "run.duckdb")[0].counted()
    writer.release()


@pytest.mark.parametrize("form", [{"k": 3, "drop": True}, {"k": 4, "empty": True}])
@pytest.mark.parametrize("cells", [1, 2 * EXPERTS])
def test_words_that_are_counted_in_pieces_are_those_that_sql_counts(
    cells: int, form: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows by router, word and expert, whatever the pieces: a word at a time, or some."""
    monkeypatch.setattr(vocabulary, "_CELLS", cells)
    writer, rng = RunWriter.create(tmp_path / "run.duckdb", head()), np.random.default_rng(0)
    forward(writer, rng, **form)
    writer.commit({})
    (part,) = unfinished_runs(tmp_path / "run.duckdb")
    assert vocabulary.count_vocabulary(part)
    table = pq.ParquetFile(part.path / VOCABULARY)
    assert table.num_row_groups == 3 * {1: 7, 2 * EXPERTS: 3}[cells]
    found = [tuple(row.values())[:4] for row in table.read().to_pylist()]
    writer.close(handmade.FINAL, {})
    with moescope.open(tmp_path / "run.duckdb") as store:
        known = store.rows(
            "select router, vocab_id, expert, count(*) filter (where not dropped) as n from assignments join tokens using "
            "(token, run) group by all having n > 0 order by all"
        )
    assert found == known
