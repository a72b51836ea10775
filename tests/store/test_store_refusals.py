"""What is no usable store is refused in one sentence, and left as it was."""

import hashlib
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import handmade
import pytest
from click.testing import CliRunner

import moescope
from moescope.cli import main
from moescope.errors import StoreError
from moescope.store.migrations import VERSION, readable
from moescope.store.schema import statements
from moescope.store.write.change import change_store, ensure_store, reset_store

HOLD = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"


def sentence(call: Callable[[], object]) -> str:
    """What is raised, which must be one line."""
    with pytest.raises(StoreError) as raised:
        call()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_missing(tmp_path: Path) -> None:
    assert sentence(lambda: moescope.open(tmp_path / "x.duckdb")).startswith(f"there is no store {tmp_path}/x.duckdb; make one")
    said = sentence(lambda: ensure_store(tmp_path / "nowhere" / "x.duckdb"))
    assert said == f"there is no folder {tmp_path}/nowhere to hold x.duckdb; make it first"
    assert list(tmp_path.iterdir()) == []


def test_a_folder(tmp_path: Path) -> None:
    assert sentence(lambda: ensure_store(tmp_path)) == f"{tmp_path} is a folder; name a file such as {tmp_path}/run.duckdb"
    assert "is not a moescope store" in sentence(lambda: moescope.open(tmp_path))


@pytest.mark.parametrize("content", [b"hello", b"", b"\0" * 9000])
def test_another_kind_of_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.duckdb"
    path.write_bytes(content)
    assert "moescope store" in sentence(lambda: moescope.open(path))
    assert "moescope store" in sentence(lambda: handmade.written(path))
    assert "moescope store" in sentence(lambda: reset_store(path))
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "table", ["create table t (a int)", "create table meta (x int)", "create table meta (key int, value int)"]
)
def test_another_duckdb_file(tmp_path: Path, table: str) -> None:
    path = tmp_path / "x.duckdb"
    with duckdb.connect(str(path)) as con:
        con.execute(table)
    assert "no moescope store" in sentence(lambda: moescope.open(path)) + sentence(lambda: handmade.written(path))


def test_another_version(tmp_path: Path) -> None:
    path = tmp_path / "x.duckdb"
    handmade.written(path)
    change_store(path, lambda con: con.execute("update meta set value = '99' where key = 'schema_version'"))
    said = sentence(lambda: moescope.open(path))
    reads = f"{readable()[0]} to {readable()[-1]}"
    wanted = (
        f"x.duckdb has schema version 99 and this moescope {moescope.__version__} reads {reads}; use the moescope that wrote it"
    )
    assert said.endswith(wanted)
    assert sentence(lambda: handmade.written(path)) == said


def test_open_for_writing_elsewhere_and_then_recovered(tmp_path: Path) -> None:
    path = tmp_path / "x.duckdb"
    writer = handmade.written(path, close=False)
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert "is open for writing in another program" in sentence(lambda: moescope.open(path))
        said = sentence(lambda: writer.close(handmade.FINAL, {"batches": 2}))
        assert "is open for writing in another program" in said
        assert "moescope recover" in said
        other.communicate()
    again = CliRunner().invoke(main, ["recover", str(path)])
    assert (again.exit_code, again.output) == (0, f"run 0 of {path}: 2 committed shards joined\n")
    with moescope.open(path) as store:
        assert store.rows("select status, decisions from runs") == [("interrupted", 8)]


def test_open_for_writing_in_this_program(tmp_path: Path) -> None:
    path = tmp_path / "x.duckdb"
    handmade.written(path)
    with duckdb.connect(str(path)):
        assert "is open for writing in this program" in sentence(lambda: moescope.open(path))


def test_changes_that_another_program_left_unwritten(tmp_path: Path) -> None:
    path = tmp_path / "x.duckdb"
    handmade.written(path)
    path.with_name("x.duckdb.wal").write_bytes(b"")
    assert "was changed by another program and not closed" in sentence(lambda: change_store(path, lambda con: None))


def test_a_folder_that_cannot_be_written(mount: Path) -> None:
    """On a read-only file system, since root may write everywhere else."""
    handmade.written(mount / "old.duckdb")
    dead = handmade.written(mount / "cut.duckdb", close=False)
    dead.release()
    subprocess.run(["mount", "-o", "remount,ro", str(mount)], check=True)
    for name in ("new.duckdb", "old.duckdb"):
        assert sentence(lambda name=name: handmade.written(mount / name)).startswith(f"cannot write {mount}/{name}: ")
    for name, status in (("old.duckdb", "complete"), ("cut.duckdb", "interrupted")):
        with moescope.open(mount / name) as store:
            assert store.rows("select status, decisions from runs") == [(status, 8)]


def test_overwriting_waits_for_nobody(tmp_path: Path) -> None:
    path = tmp_path / "x.duckdb"
    handmade.written(path)
    live = handmade.written(path, close=False)
    assert "while a trace writes into it" in sentence(lambda: reset_store(path))
    live.release()
    reset_store(path)
    with moescope.open(path) as store:
        assert store.rows("from runs") == []
    assert list(tmp_path.iterdir()) == [path]


TABLES = {"6": "f8c9b2721f119dbe"}


def test_other_tables_are_another_version() -> None:
    """A store of other tables would open and fail later: whoever changes schema.sql raises VERSION, and says it here."""
    said = "".join(re.sub(r"--[^\n]*|\s+", " ", statement) for _, _, statement, _ in statements("schema"))
    assert {VERSION: hashlib.sha256(" ".join(said.split()).encode()).hexdigest()[:16]} == TABLES
