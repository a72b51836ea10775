"""A path is a path: nothing in it means anything to DuckDB, while a run grows and after."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import handmade
import pytest
from click.testing import CliRunner

import moescope
from moescope.cli import main
from moescope.errors import MoescopeError
from moescope.store.write.change import change_store

# what libraries read into names: columns, patterns, protocols, homes, variables, escapes, options, quotes; and much else
NAMES = [
    "lr=0.1", "run=9", "expert=7,layer=x", "a[12]", "st*r", "q?x", "**", "[!x]", "it's", 'a"b', "back\\slash",
    "new\nline",
    "per%20cent%", "ü é 漢字", "{a,b}", "$HOME", "~", "s3:", "http:", "file:", "-dash", " blanks ", ":memory:", "a;b", "--",
    "x" * 200, "run.duckdb.parts",
]  # fmt: skip
DECOYS = {"a[12]": "a1", "st*r": "star", "q?x": "qax", "**": "other", "[!x]": "y"}
VIEWS = ("runs", "assignments", "decisions", "tokens", "expert_load", "load_balance", "vocab_load", "routing", "label_load")


def record(store: Path) -> dict[str, list[Any]]:
    """All that a store says of its run, but its name, number and status."""
    with moescope.open(store) as opened:
        assert opened.aside == ()
        found = {view: opened.rows(f"select * from {view}") for view in VIEWS}
        found["runs"] = opened.rows("select name, seed, forwards, sequences, tokens, decisions, assignments from runs")
    return {view: sorted(map(repr, rows)) for view, rows in found.items()}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    store = tmp_path_factory.mktemp("plain") / "run.duckdb"
    handmade.written(store)
    return record(store)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.sampled(2)
def test_the_record_is_the_same_wherever_it_lies(tmp_path: Path, plain: dict[str, list[Any]], name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    store = folder / f"{name}.duckdb" if len(name) < 100 else folder / "run.duckdb"
    writer = handmade.written(store, close=False)
    if name in DECOYS:  # what the pattern would match beside it, or instead
        shutil.copytree(folder, tmp_path / DECOYS[name])
    assert record(store) == plain
    grown = CliRunner().invoke(main, ["verify", "-q", "--", str(store)])
    assert (grown.exit_code, "is sound" in grown.output) == (0, True), grown.output
    assert writer.close(handmade.FINAL, {"batches": 2}) == 0
    for _ in range(2):  # a small change, which DuckDB would log first
        change_store(store, lambda con: con.execute("update runs set finished = started"))
    assert record(store) == plain
    assert CliRunner().invoke(main, ["verify", "-q", "--", str(store)]).exit_code == 0
    assert [p.name for p in folder.iterdir()] == [store.name]


@pytest.mark.parametrize(
    "name", ["~/run.duckdb", "s3:/bucket/run.duckdb", "http:/x/run.duckdb", ":memory:", "-r.duckdb", "md:x"]
)
def test_a_relative_path_is_a_path_too(
    tmp_path: Path, plain: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    writer = handmade.written(Path(name), close=False)
    assert record(Path(name)) == plain
    writer.close(handmade.FINAL, {"batches": 2})
    assert record(Path(name)) == plain
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [tmp_path / name]


def loop(folder: Path) -> Path:
    (folder / "a").symlink_to(folder / "b")
    (folder / "b").symlink_to(folder / "a")
    return folder / "a"


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe")
    return folder / "pipe"


NO_PATHS = {
    "NUL": lambda folder: folder / "a\0b.duckdb",
    "not UTF-8": lambda folder: folder / os.fsdecode(b"\xff\xfe.duckdb"),
    "too long": lambda folder: folder / ("x" * 240 + ".duckdb"),
    "far too long": lambda folder: folder / ("x" * 400),
    "a circle of links": loop,
    "a pipe": pipe,
    "a device": lambda folder: Path("/dev/null"),
    "below a file": lambda folder: Path(__file__) / "run.duckdb",
}


@pytest.mark.parametrize("case", NO_PATHS)
def test_what_cannot_be_a_store_is_refused_in_a_sentence(tmp_path: Path, case: str) -> None:
    store = NO_PATHS[case](tmp_path)
    before = sorted(tmp_path.iterdir())
    for call in (moescope.open, handmade.written):
        with pytest.raises(MoescopeError) as raised:
            call(store)
        assert "\n" not in str(raised.value)
    assert sorted(tmp_path.iterdir()) == before


def test_no_extension_is_fetched_for_a_foreign_file(tmp_path: Path) -> None:
    """A file of SQLite makes DuckDB want its reader, from the network."""
    script = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('create table meta (key, value)'); c.commit()"
    subprocess.run([sys.executable, "-c", script, tmp_path / "x.duckdb"], check=True)
    with pytest.raises(MoescopeError, match="is not a moescope store"):
        moescope.open(tmp_path / "x.duckdb")
