"""What shards count beside their rows is what SQL counts from the rows."""

from pathlib import Path
from typing import Any

import duckdb
import handmade
import numpy as np
import pyarrow as pa
import pytest

import moescope
from moescope.errors import StoreError
from moescope.store import RunWriter
from moescope.store.sums.definitions import ADDED, add_rollups, vocabulary
from moescope.store.write.change import change_store
from moescope.store.write.unfinished_run import unfinished_runs

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
    """Two sequences; the second without labels. `form`: empty, drop, nan, plain (no summaries), iterations, subset,
    ids (of tokens)."""
    number, sequence, token = writer.take("forward", 1), writer.take("sequence", 2), writer.take("token", TOKENS)
    writer.add("sequences", {"sequence": [sequence, sequence + 1], "source": "x", "source_row": 0, "part": 0, "beam": 0})
    labels = [("domain", rng.choice(["a", "b"])), ("language", "x")]
    writer.add("sequence_labels", {"sequence": [sequence] * 2, "kind": [k for k, _ in labels], "label": [v for _, v in labels]})
    tokens = np.arange(token, token + TOKENS)
    writer.add("tokens", {"token": tokens, "sequence": sequence + (tokens - token) // (TOKENS // 2), "position": tokens - token,
        "unit": "text", "vocab_id": form.get("ids", lambda some: some % 7)(tokens), "special": False,
        "generated": False})  # fmt: skip
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
        found.append(kept(con) | {"vocabulary": con.execute("from vocab_rollup order by all").fetchall()})
        add_rollups(con, 0)
        found.append(kept(con) | {"vocabulary": con.execute(f"{vocabulary(0)} order by all").fetchall()})

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


def counted(tmp_path: Path, name: str, spoil: Any = None) -> list[tuple[Any, ...]]:
    """`vocab_rollup` of a run in three shards, which is what SQL counts."""
    store, rng = tmp_path / f"{name}.duckdb", np.random.default_rng(0)
    writer = RunWriter.create(store, head())
    for number, ids in enumerate((lambda t: t % 7, lambda t: pa.array(t * 31 % 97, mask=t % 3 == 0), lambda t: None)):
        forward(writer, rng, 2, drop=True, ids=ids)
        writer = spoil(writer, number) if spoil else writer
        writer.commit({})
    writer.close(handmade.FINAL, {})
    with moescope.open(store) as opened:
        found = opened.rows("from vocab_rollup order by all")
        assert found == opened.rows(f"{vocabulary(0)} order by all")
    return found


def test_the_vocabulary_is_counted_the_same_while_traced_and_from_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a run that was gone on with, with more ids than there is room for, and after a commit that failed."""

    def resumed(writer: RunWriter, number: int) -> RunWriter:
        if number != 1:
            return writer
        writer.commit({})
        writer.release()
        return RunWriter.resume(writer.store, writer.part)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def failing(writer: RunWriter, number: int) -> RunWriter:
        with monkeypatch.context() as patch:
            patch.setattr("moescope.store.write.shard.os.rename", full)
            with pytest.raises(StoreError):
                writer.commit({})
        return writer

    whole = counted(tmp_path, "whole")
    assert len({vocab_id for _, _, vocab_id, *_ in whole}) > 30
    assert counted(tmp_path, "resumed", resumed) == whole
    assert counted(tmp_path, "failing", failing) == whole
    monkeypatch.setattr("moescope.store.write.vocabulary._WHILE_TRACED", 8 * 4 * 7 * 20)
    monkeypatch.setattr("moescope.store.write.vocabulary._MEMORY", 8 * 7 * 100 * 2)
    assert counted(tmp_path, "small") == whole
    monkeypatch.setattr("moescope.store.write.vocabulary._MEMORY", 0)
    monkeypatch.setattr("moescope.store.write.vocabulary._GROUPS", 0)
    monkeypatch.setattr("moescope.store.write.vocabulary._MOST", 8 * 7 * 100)
    monkeypatch.setattr("moescope.store.write.join.add_vocabulary", None)  # DuckDB has no memory for it
    assert counted(tmp_path, "many") == whole
