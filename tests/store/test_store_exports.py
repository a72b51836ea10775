"""Rows that leave: in bounded memory, exact, and as CSV that a spreadsheet can open."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import handmade
import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from moescope.cli import main
from moescope.store.files.exports import csv_of


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exports") / "run.duckdb"
    handmade.written(path)
    return path


PROBE = """
import resource, sys
from moescope.cli import main
try: main(sys.argv[1:])
except SystemExit as end: assert not end.code, end
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, file=sys.stderr)
"""


def memory(*arguments: str) -> int:
    """Megabytes that a command took at most, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", PROBE, *arguments], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return int(done.stderr.split()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("form", ["csv", "parquet", "json"])
@pytest.mark.parametrize("screen", [False, True], ids=["file", "screen"])
@pytest.mark.sampled(1)
def test_ten_times_the_rows_take_no_more_memory(store: Path, tmp_path: Path, form: str, screen: bool) -> None:
    many = 400_000 if form == "json" else 3_000_000
    query = "select range as a, 'text ' || range as b, range * 0.5 as c from range({})"
    out = [] if screen else ["-o", str(tmp_path / "out"), "--overwrite"]
    few, lots = (memory("sql", str(store), query.format(rows), "--format", form, *out) for rows in (many // 10, many))
    assert lots - few < 100, (few, lots)


@pytest.mark.slow
def test_output_fits_into_a_limit_of_the_system(store: Path, tmp_path: Path) -> None:
    """What DuckDB and Arrow map is more than they use: the limit is well above that, and well below all the rows."""
    query = "select range as a, range as b, 'text ' || range as c from range(4000000)"
    command = [
        sys.executable,
        "-m",
        "moescope.cli",
        "sql",
        str(store),
        query,
        "--format",
        "csv",
        "-o",
        str(tmp_path / "out.csv"),
    ]
    done = subprocess.run(["bash", "-c", 'ulimit -v 3000000; exec "$@"', "bash", *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "out.csv").open() as file:
        assert sum(1 for _ in file) == 4_000_001


FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "=cmd|' /C calc'!A0", "＝1", "-", "=", '="a","b"']
HARMLESS = ["", "a", "1-1", "a=b", " =1", "'=1", "mail@example.org", "None", "ü", 'say "hi"', "a,b", "two\nlines"]


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def told(store: Path, query: str, *more: str) -> list[list[str]]:
    done = CliRunner().invoke(main, ["sql", str(store), query, "--format", "csv", *more])
    assert done.exit_code == 0, done.output
    return list(csv.reader(io.StringIO(done.stdout_bytes.decode(), newline="")))


@pytest.mark.parametrize("text", [*FORMULAS, *HARMLESS])
@pytest.mark.sampled(8)
def test_text_that_is_a_formula_gets_a_mark_and_no_other(store: Path, text: str) -> None:
    safe = f"'{text}" if text in FORMULAS else text
    query = f"select {literal(text)} as a, 1 as b"
    assert told(store, query) == [["a", "b"], [safe, "1"]]
    assert told(store, query, "--raw") == [["a", "b"], [text, "1"]]
    assert list(csv.reader(io.StringIO(csv_of(pd.DataFrame({"a": [text], "b": [1]})), newline=""))) == [["a", "b"], [safe, "1"]]


def test_names_of_columns_are_text_too(store: Path) -> None:
    assert told(store, 'select 1 as "=1+1", 2 as a, 3 as a') == [["'=1+1", "a", "a"], ["1", "2", "3"]]
    assert csv_of(pd.DataFrame({"=x": [1]})) == "'=x\n1\n"


VALUES = {
    "-5": "-5", "-0.5::double": "-0.5", "0.1::float": "0.1", "-1::hugeint": "-1", "-1.50::decimal(9,2)": "-1.50", "null": "",
    "'-inf'::double": "-inf", "true": "true", "date '2026-01-02'": "2026-01-02", "[-1, 2]": "[-1, 2]",
    "{'a': '=1'}": "{'a': '=1'}",
    "'{\"a\": 1}'::json": '{"a": 1}', "1e300": "1e+300", "timestamp '2026-01-02 03:04:05'": "2026-01-02 03:04:05",
    "'-1'::varchar": "'-1", "'=x'::enum('=x', 'y')": "'=x", "18446744073709551615::ubigint": "18446744073709551615",
}  # fmt: skip


@pytest.mark.parametrize("value", VALUES)
def test_values_as_csv(store: Path, value: str) -> None:
    assert told(store, f"select {value} as x, 'end' as y") == [["x", "y"], [VALUES[value], "end"]]


def test_pieces_are_put_together_whole(store: Path, tmp_path: Path) -> None:
    query = "select range as a, case when range % 40000 <> 1 then range end as b from range(100000)"
    expected = [(n, n if n % 40000 != 1 else None) for n in range(100_000)]
    assert [tuple(row) for row in told(store, query)[1:]] == [(str(a), "" if b is None else str(b)) for a, b in expected]
    said = CliRunner().invoke(main, ["sql", str(store), query, "--format", "json"]).output
    assert [tuple(row.values()) for row in json.loads(said)] == expected
    CliRunner().invoke(main, ["sql", str(store), query, "--format", "parquet", "-o", str(tmp_path / "x")])
    assert [tuple(row.values()) for row in pq.read_table(tmp_path / "x").to_pylist()] == expected


def test_nothing_and_odd_values(store: Path, tmp_path: Path) -> None:
    nothing = "select run, name from runs where false"
    assert told(store, nothing) == [["run", "name"]]
    assert json.loads(CliRunner().invoke(main, ["sql", str(store), nothing, "--format", "json"]).output) == []
    CliRunner().invoke(main, ["sql", str(store), nothing, "--format", "parquet", "-o", str(tmp_path / "x")])
    assert (pq.read_table(tmp_path / "x").num_rows, pq.read_schema(tmp_path / "x").names) == (0, ["run", "name"])
    odd = "select 'nan'::double as a, [1, null] as b, {'x': date '2026-01-02'} as c, 0.1::float as d, 1 as e, 2 as e"
    assert json.loads(CliRunner().invoke(main, ["sql", str(store), odd, "--format", "json"]).output) == [
        {"a": None, "b": [1, None], "c": {"x": "2026-01-02"}, "d": 0.1, "e": 1, "e_1": 2}
    ]


def test_the_frame_itself_is_left_alone() -> None:
    frame = pd.DataFrame({"a": ["=1", None], "b": [1.5, None], "c": pd.Categorical(["@x", "y"])})
    before = frame.copy(deep=True)
    assert csv_of(frame) == "a,b,c\n'=1,1.5,'@x\n,,y\n"
    pd.testing.assert_frame_equal(frame, before)
