"""Packing at its edges: the last value that a form takes and the first that it refuses, in both directions, value by value."""

from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from moescope.store.physical import encoding_loops, tables
from moescope.store.physical.lossless_encoding import pack

Floats = np.ndarray[Any, Any]


def table(**columns: Any) -> pa.Table:
    """Rows of routes_<k> with these columns beside plain keys and experts."""
    n = len(next(iter(columns.values())))
    k = max((int(c[1:]) + 1 for c in columns if c[1:].isdigit()), default=1)
    keys: dict[str, Any] = {name: np.zeros(n, np.uint32) for name in ("run", "forward", "router")} | {
        "token": np.arange(n, dtype=np.uint32)
    }
    return pa.table(keys | {f"e{r}": np.full(n, r, np.uint8) for r in range(k)} | columns)


def back(packed: pa.Table, k: int) -> Floats:
    """(n, k) weights as the view gives them, as float32 bits."""
    con = duckdb.connect()
    con.register(f"routes_{k}", packed)
    sql = " union all ".join(tables.assignments_sql(k, set(packed.column_names), r) for r in range(k))
    found = con.execute(f"select weight from ({sql}) order by token, rank").fetchnumpy()["weight"]
    return np.asarray(np.ma.filled(found, np.nan), "f4").reshape(-1, k).view("u4")


def f4(*values: float) -> Floats:
    return np.array(values, "f4")


def step(value: float, times: int = 1) -> np.float32:
    """The float32 so many places further on."""
    return (
        (f4(value).view("u4") + np.uint32(times)).view("f4")[0]
        if times >= 0
        else (f4(value).view("u4") - np.uint32(-times)).view("f4")[0]
    )


@pytest.mark.parametrize(
    ("weight", "form"),
    [(2.0**-56, "h0"), (2.0**-57, "w0"), (float(step(2.0**-56, -65536)), "w0"),
     (255.0, "h0"), (256.0, "w0"), (2.0**63, "w0"), (3.3895314e38, "w0"),
     (np.inf, "w0"), (-1.0, "w0"),
     (-0.0, "w0"), (0.0, "w0"), (1.0 + 2.0**-7, "h0"), (1.0 + 2.0**-8, "w0"), (1.0 + 2.0**-23, "w0"), (np.nan, "w0")],
)  # fmt: skip
def test_sixteen_bits_of_a_weight(weight: float, form: str) -> None:
    """All the weights of a batch decide; each comes back bit for bit."""
    weights = f4(0.5, weight, 1.5)
    packed = pack(table(w0=weights))
    assert [c for c in packed.column_names if c in ("w0", "h0")] == [form]
    assert (back(packed, 1)[:, 0] == weights.view("u4")).all()


@pytest.mark.parametrize("place", [0, 1023, 1024, 1999])
def test_a_single_weight_out_of_line_keeps_all_as_they_are(place: int) -> None:
    weights = np.full(2000, 0.5, "f4")
    weights[place] = step(0.5)
    packed = pack(table(w0=weights))
    assert "h0" not in packed.column_names
    assert (back(packed, 1)[:, 0] == weights.view("u4")).all()


def test_a_long_batch_is_packed_whole() -> None:
    weights = (np.arange(1, 3001) / 4096).astype("f4")
    weights = (weights.view("u4") & np.uint32(0xFFFF0000)).view("f4")
    packed = pack(table(w0=weights))
    assert "h0" in packed.column_names
    assert (back(packed, 1)[:, 0] == weights.view("u4")).all()


def bfloat(value: float) -> np.float32:
    """The next smaller bfloat16, as float32."""
    return (f4(value).view("u4") & np.uint32(0xFFFF0000)).view("f4")[0]


@pytest.mark.parametrize("off", range(-5, 6))
@pytest.mark.parametrize("second", [0.5, 0.375, 0.25, 0.125, 0.01, 0.003, 2.0**-9, 2.0**-10])
def test_so_many_256ths_beside_the_other(off: int, second: float) -> None:
    """w0 may be three 256ths off 1 - w1 and lie in 0.5 ... 1; else its bits are kept."""
    w1 = bfloat(second)
    rounded = np.floor(256.5 - 256 * float(w1))
    w0 = f4((rounded + off) / 256)[0]
    packed = pack(table(w0=f4(w0, w0), w1=f4(w1, w1)))
    fits = abs(off) <= 3 and 0.5 <= w0 <= 1.0
    exact = (f4(w0).view("u4") & 0xFFFF)[0] == 0
    assert ("near" in packed.column_names) is bool(fits and exact)
    assert (back(packed, 2) == np.array([[w0, w1]] * 2, "f4").view("u4")).all()


@pytest.mark.parametrize("units", [0, 1, -1, 2**20 - 1, 1 - 2**20, 2**20, -(2**20), 2**21])
@pytest.mark.parametrize("least", [0.25, 0.2500001, 0.3, 2.0**-20, 2.0**-37])
def test_units_beside_the_other(units: int, least: float) -> None:
    """w1 as 1 - w0 and less than 2^20 units of its last place; every value comes back."""
    w1 = f4(least)[0]
    unit = 23 - int(np.floor(np.log2(w1)))
    w0 = f4(1.0 - (float(w1) - units / 2.0**unit))[0]
    exactly = (float(w1) - (1.0 - float(w0))) * 2.0**unit
    packed = pack(table(w0=f4(w0), w1=f4(w1)))
    coarse = all(not f4(w).view("u4")[0] & 0xFFFF for w in (w0, w1))
    fits = not coarse and 0 < w0 <= 1 and abs(exactly) < 2**20 and 23 <= unit <= 60
    assert ("rest" in packed.column_names) is bool(fits)
    assert (back(packed, 2) == np.array([[w0, w1]], "f4").view("u4")).all()


def test_the_least_weight_sets_the_unit() -> None:
    """Of a batch: other weights are whole multiples of its last place."""
    w1 = f4(0.3, 2.0**-9 + 2.0**-32, 0.4)
    packed = pack(table(w0=(1 - w1.astype("f8")).astype("f4"), w1=w1))
    assert packed["unit"].to_pylist() == [23 + 9] * 3
    assert (back(packed, 2)[:, 1] == w1.view("u4")).all()


def test_no_rest_of_a_first_weight_above_one() -> None:
    assert "rest" not in pack(table(w0=f4(float(step(1.0))), w1=f4(0.3))).column_names


STEPS = [("entropy", 1024), ("log_sum_exp", 1024), ("margin", 65536)]


@pytest.mark.parametrize(("name", "scale"), STEPS)
@pytest.mark.parametrize(
    ("steps", "whole"),
    [(0, True), (1, True), (-3, True), (0.5, False), (2**24 - 1, True), (2**24, False),
     (1 - 2**24, True), (-(2**24), False), (np.nan, False), (np.inf, False)],
)  # fmt: skip
def test_summaries_in_whole_steps(name: str, scale: int, steps: float, whole: bool) -> None:
    values = f4(1 / scale, steps / scale)
    packed = pack(table(w0=f4(0.5, 0.5), **{name: values}))
    assert (f"{name}_n" in packed.column_names, name in packed.column_names) == (whole, not whole)
    con = duckdb.connect()
    con.register("routes_1", packed)
    sql = tables.decisions_sql(1, set(packed.column_names))
    found = con.execute(f"select {name} from ({sql}) order by token").fetchnumpy()[name]
    assert (np.asarray(found, "f4").view("u4") == values.view("u4")).all()


def test_bounds_of_values() -> None:
    for values, inside in (([3, 5], True), ([2], False), ([6], False), ([3, 4, 5, 3], True), ([], True)):
        assert bool(encoding_loops.within(np.array(values, np.int64), 3, 6)) is inside


@pytest.mark.parametrize(("name", "usual", "other"), [("dropped", 0, 1), ("iteration", 0, 1), ("slots", 0x10, 0x01)])
def test_what_is_usual_is_left_out(name: str, usual: int, other: int) -> None:
    """And stays where one row has another value, or none."""
    for values, there in (([usual, usual], False), ([usual, other], True), ([usual, None], True)):
        packed = pack(table(w0=f4(0.5, 0.5), w1=f4(0.25, 0.25), **{name: pa.array(values, pa.uint64())}))
        assert (name in packed.column_names) is there
