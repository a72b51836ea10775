"""Packed rows give every value back, bit for bit, through the views; what cannot be packed stays as it is."""

from pathlib import Path
from typing import Any

import handmade
import numpy as np
import pytest

import moescope
from moescope.store import RunWriter

N = 500


def normalized(rng: np.random.Generator, k: int, scale: float = 1.0) -> np.ndarray[Any, Any]:
    """(N, k) float32 weights that were divided by their sum, largest first."""
    p = -np.sort(-np.exp(rng.normal(0, scale, (N, k)).astype("f4")), axis=1)
    return (p / p.sum(1, keepdims=True)).astype("f4")


def bfloat16(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Cut to bfloat16, as float32."""
    return (values.view("u4") & 0xFFFF0000).view("f4")


def rounded(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The nearest bfloat16, as float32."""
    return bfloat16((values.view("u4") + 0x7FFF + (values.view("u4") >> 16 & 1)).view("f4"))


def with_(values: np.ndarray[Any, Any], weight: float) -> np.ndarray[Any, Any]:
    """With one smallest weight replaced."""
    values = values.copy()
    values[3, -1] = weight
    return values


RNG = np.random.default_rng(0)
FORMS = {
    "float32": (normalized(RNG, 2), {"w0", "rest", "unit"}),
    "float32, apart": (normalized(RNG, 2, 1.5), {"w0", "rest", "unit"}),
    "float32, far apart": (normalized(RNG, 2, 6.0), {"w0", "w1"}),
    "float32, not divided by their sum": (normalized(RNG, 3)[:, :2].copy(), {"w0", "w1"}),
    "float32, a zero": (with_(normalized(RNG, 2), 0.0), {"w0", "w1"}),
    "float32, a NaN": (with_(normalized(RNG, 2), np.nan), {"w0", "w1"}),
    "float32, k = 3": (normalized(RNG, 3), {"w0", "w1", "w2"}),
    "bfloat16": (bfloat16(normalized(RNG, 2)), {"near", "h1"}),
    "bfloat16, rounded": (rounded(normalized(RNG, 2)), {"near", "h1"}),
    "bfloat16, rounded, apart": (rounded(normalized(RNG, 2, 4.0)), {"near", "h1"}),
    "bfloat16, not divided by their sum": (bfloat16(normalized(RNG, 3)[:, :2].copy()), {"h0", "h1"}),
    "bfloat16, k = 1": (bfloat16(normalized(RNG, 2)[:, :1].copy()), {"h0"}),
    "bfloat16, k = 4": (bfloat16(normalized(RNG, 4)), {"h0", "h1", "h2", "h3"}),
    "bfloat16, above one": (bfloat16(normalized(RNG, 2) * np.float32(30)), {"h0", "h1"}),
    "bfloat16, tiny": (with_(bfloat16(normalized(RNG, 2)), 2.0**-50), {"h0", "h1"}),
    "bfloat16, a zero": (with_(bfloat16(normalized(RNG, 2)), 0.0), {"w0", "w1"}),
    "bfloat16, negative": (with_(bfloat16(normalized(RNG, 2)), -0.5), {"w0", "w1"}),
    "bfloat16, infinite": (with_(bfloat16(normalized(RNG, 2)), np.inf), {"w0", "w1"}),
}


def rows(writer: RunWriter, weights: np.ndarray[Any, Any], **more: Any) -> None:
    """One forward of N tokens in router 0."""
    forward, token = writer.take("forward", 1), writer.take("token", N)
    columns = {f"w{rank}": weights[:, rank].copy() for rank in range(weights.shape[1])}
    columns |= {f"e{rank}": np.full(N, rank, np.uint8) for rank in range(weights.shape[1])}
    writer.add(f"routes_{weights.shape[1]}", {
        "forward": np.uint32(forward), "router": np.uint32(0), "iteration": np.uint8(0), "token": np.arange(token, token + N),
        "slots": np.uint64(sum(r << 4 * r for r in range(weights.shape[1]))), "dropped": np.uint32(0), **columns, **more,
    })  # fmt: skip
    writer.commit({})


def store_of(path: Path, *batches: np.ndarray[Any, Any], **more: Any) -> Path:
    """A store of some batches, a shard each."""
    writer = RunWriter.create(path, handmade.HEAD)
    for weights in batches:
        rows(writer, weights, **more)
    writer.close(handmade.FINAL, {})
    return path


def stored(path: Path, k: int) -> np.ndarray[Any, Any]:
    """(n, k) weights as the view gives them."""
    with moescope.open(path) as opened:
        found = opened.con.execute("select weight from assignments order by forward, token, rank").fetchnumpy()["weight"]
    return np.ma.filled(found, np.nan).astype("f4").reshape(-1, k)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.sampled(6)
def test_weights_come_back_bit_for_bit(form: str, tmp_path: Path) -> None:
    weights, columns = FORMS[form]
    path = store_of(tmp_path / "run.duckdb", weights)
    np.testing.assert_array_equal(stored(path, weights.shape[1]).view("u4"), weights.view("u4"))
    with moescope.open(path) as opened:
        table = f"routes_{weights.shape[1]}"
        there = {n for (n,) in opened.rows("select column_name from duckdb_columns() where table_name = ?", [table])}
    assert there == {"run", "forward", "router", "token", *columns, *(f"e{r}" for r in range(weights.shape[1]))}


def test_batches_of_different_forms_share_a_table(tmp_path: Path) -> None:
    batches = [weights for weights, _ in FORMS.values() if weights.shape[1] == 2]
    path = store_of(tmp_path / "run.duckdb", *batches)
    np.testing.assert_array_equal(stored(path, 2).view("u4"), np.concatenate(batches).view("u4"))


def test_batches_of_different_forms_are_read_while_they_grow(tmp_path: Path) -> None:
    batches = [weights for weights, _ in FORMS.values() if weights.shape[1] == 2]
    writer = RunWriter.create(tmp_path / "run.duckdb", handmade.HEAD)
    for weights in batches:
        rows(writer, weights)
    np.testing.assert_array_equal(stored(tmp_path / "run.duckdb", 2).view("u4"), np.concatenate(batches).view("u4"))
    writer.release()


def test_empty_places_and_drops(tmp_path: Path) -> None:
    import pyarrow as pa

    weights = bfloat16(normalized(RNG, 2))
    empty, lost = np.arange(N) % 5 == 0, (np.arange(N) % 3 == 0).astype("u4") * 2
    more = {"e1": pa.array(np.ones(N, "u1"), mask=empty), "w1": pa.array(weights[:, 1], mask=empty), "dropped": lost}
    path = store_of(tmp_path / "run.duckdb", weights, slots=np.where(empty, 0x10, 0x01).astype("u8"), **more)
    with moescope.open(path) as opened:
        found = opened.rows("select token, rank, weight, slot, dropped from assignments order by token, rank")
    expected = []
    for token in range(N):
        expected.append((token, 0, weights[token, 0], 0 if empty[token] else 1, False))
        if not empty[token]:
            expected.append((token, 1, weights[token, 1], 0, token % 3 == 0))
    assert found == expected


@pytest.mark.parametrize("exact", [True, False])
def test_summaries_in_steps(exact: bool, tmp_path: Path) -> None:
    steps = {"entropy": 1024, "log_sum_exp": 1024, "margin": 65536}
    values = {name: RNG.normal(0, 1, N).astype("f4") for name in steps}
    if exact:
        values = {name: (np.rint(v * steps[name]) / steps[name]).astype("f4") for name, v in values.items()}
    path = store_of(tmp_path / "run.duckdb", normalized(RNG, 2), **values)
    with moescope.open(path) as opened:
        found = opened.con.execute("select entropy, log_sum_exp, margin from decisions order by token").fetchnumpy()
        kinds = {n for (n,) in opened.rows("select column_name from duckdb_columns() where table_name = 'routes_2'")}
    assert {f"{name}_n" in kinds for name in steps} == {exact}
    for name, value in values.items():
        np.testing.assert_array_equal(np.asarray(found[name]), value)
