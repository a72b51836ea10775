"""Writer → shards → live reading → one DuckDB file: whole rows, the same everywhere."""

from pathlib import Path
from typing import Any

import duckdb
import handmade
import pytest

import moescope
from moescope.errors import StoreError
from moescope.store import RunWriter
from moescope.store.integrity.verify import verify
from moescope.store.write.unfinished_run import parts_folder, unfinished_runs

ASSIGNMENTS = "select run, forward, router, token, rank, expert, weight, slot, dropped from assignments order by all"
ROWS = [
    (0, 0, 0, 0, 0, 0, 0.75, 0, False), (0, 0, 0, 0, 1, 1, 0.25, 1, False),
    (0, 0, 0, 1, 0, 1, 0.5, 0, False), (0, 0, 0, 1, 1, 0, 0.5, 1, False),
    (0, 0, 1, 0, 0, 2, 0.625, 0, False), (0, 0, 1, 0, 1, 0, 0.375, 1, False),
    (0, 0, 1, 1, 0, 2, 0.875, 0, False), (0, 0, 1, 1, 1, 1, 0.125, 1, False),
    (0, 1, 0, 2, 0, 0, 0.75, 0, False), (0, 1, 0, 2, 1, 1, 0.25, 1, True),
    (0, 1, 0, 3, 0, 1, 0.5, 0, False), (0, 1, 0, 3, 1, 0, 0.5, 1, False),
    (0, 1, 1, 2, 0, 2, 0.625, 0, False), (0, 1, 1, 2, 1, 0, 0.375, 1, False),
    (0, 1, 1, 3, 0, 2, 0.875, 0, False), (0, 1, 1, 3, 1, 1, 0.125, 1, False),
]  # fmt: skip
RUN = "select run, name, status, dataset, seed, forwards, sequences, tokens, decisions, assignments from runs order by run"


def everything(con: duckdb.DuckDBPyConnection) -> dict[str, list[Any]]:
    """All rows of all public tables and views, without what differs between runs that did the same."""
    views = [
        n for (n,) in con.execute("select view_name from duckdb_views() where not internal and comment is not null").fetchall()
    ]
    tables = ["sequences", "sequence_labels", "tokens", "token_labels", "vocab", "forwards", "pools", "routers", "experts"]
    return {name: sorted(con.execute(f"from {name}").fetchall(), key=repr) for name in sorted({*views, *tables})}


def plain(store: Path) -> duckdb.DuckDBPyConnection:
    """The file, as somebody without moescope opens it."""
    return duckdb.connect(str(store), read_only=True)


def test_rows_are_the_same_unfinished_finished_and_in_plain_duckdb(tmp_path: Path) -> None:
    store = tmp_path / "run.duckdb"
    writer = handmade.written(store, close=False)
    with moescope.open(store) as unfinished:
        assert unfinished.rows(RUN) == [(0, "by hand", "running", "letters", 7, 2, 2, 4, 8, 16)]
        assert unfinished.rows(ASSIGNMENTS) == ROWS
        before = everything(unfinished.con)
    assert writer.close(handmade.FINAL, {"batches": 2}) == 0
    assert not parts_folder(store).exists()
    with moescope.open(store) as finished:
        assert finished.rows(RUN) == [(0, "by hand", "complete", "letters", 7, 2, 2, 4, 8, 16)]
        assert everything(finished.con) == before
    with plain(store) as con:
        assert con.execute(ASSIGNMENTS).fetchall() == ROWS
        assert everything(con) == before
    assert [p.name for p in tmp_path.iterdir()] == ["run.duckdb"]


def test_runs_share_a_file_and_their_keys_do_not_meet(tmp_path: Path) -> None:
    store = tmp_path / "run.duckdb"
    handmade.written(store)
    second = handmade.written(store, close=False, name="second")
    for _ in range(2):  # unfinished, then finished
        with moescope.open(store) as both:
            assert both.rows("select run, model, name from runs order by run") == [(0, 0, "by hand"), (1, 0, "second")]
            assert both.rows("select count(*) from models") == [(1,)]
            assert both.rows(ASSIGNMENTS) == ROWS + [(1, f + 2, r + 2, t + 4, *rest) for _, f, r, t, *rest in ROWS]
            assert both.rows("select run, min(sequence), max(token) from tokens group by run order by run") == [
                (0, 0, 3),
                (1, 2, 7),
            ]
            assert both.rows("select count(*), count(distinct vocab_id) from vocab") == [(2, 2)]
        second.close(handmade.FINAL, {}) if second.part.path.exists() else None


def test_uncommitted_rows_are_nobodys(tmp_path: Path) -> None:
    store = tmp_path / "run.duckdb"
    writer = handmade.written(store, batches=1, close=False)
    handmade.batch(writer, 1)
    with moescope.open(store) as unfinished:
        assert unfinished.rows("select forwards, tokens from runs") == [(1, 2)]
        assert unfinished.rows("select max(forward) from assignments") == [(0,)]


def test_rollback_goes_to_the_last_mark(tmp_path: Path) -> None:
    store = tmp_path / "run.duckdb"
    writer = handmade.written(store, batches=1, close=False)
    handmade.batch(writer, 1)
    writer.mark()
    handmade.batch(writer, 2)
    writer.rollback()
    assert writer.next == {"forward": 2, "sequence": 2, "token": 4}
    writer.close(handmade.FINAL, {})
    with plain(store) as con:
        assert con.execute(ASSIGNMENTS).fetchall() == ROWS


def test_a_dead_run_is_read_and_gone_on_with(tmp_path: Path) -> None:
    store = tmp_path / "run.duckdb"
    writer = handmade.written(store, batches=1, close=False)
    handmade.batch(writer, 1)
    (writer.part.path / "shard-000001.tmp").mkdir()
    writer.release()
    with moescope.open(store) as cut:
        assert cut.rows("select status, forwards, progress->>'batches' from runs") == [("interrupted", 1, "1")]
    again = RunWriter.resume(store, unfinished_runs(store)[0])
    assert again.next == {"forward": 1, "sequence": 1, "token": 2}
    handmade.batch(again, 1)
    assert again.close(handmade.FINAL, {}) == 0
    with plain(store) as con:
        assert con.execute(ASSIGNMENTS).fetchall() == ROWS


@pytest.mark.parametrize("between", [False, True], ids=["alone", "another run came between"])
def test_a_run_joined_as_interrupted_is_gone_on_with(tmp_path: Path, between: bool) -> None:
    store = tmp_path / "run.duckdb"
    writer = handmade.written(store, batches=1, close=False)
    writer.close({"status": "interrupted"}, {"batches": 1})
    uid = writer.part.path.name
    if between:
        handmade.written(store, name="between")
    again = RunWriter.reopen(store, 0)
    assert again.part.progress["batches"] == 1
    handmade.batch(again, 1)
    again.commit({"batches": 2})
    with moescope.open(store) as live:
        assert live.rows("select status, forwards, uid from runs where run = 0") == [("running", 2, uid)]
    assert again.close(handmade.FINAL, {"batches": 2}) == 0
    more = 2 if between else 0
    with plain(store) as con:
        assert con.execute("select status, forwards, uid, progress->>'next' from runs where run = 0").fetchall() == [
            ("complete", 2, uid, None)
        ]
        moved = [(0, f + more * (f == 1), r, t + 2 * more * (t > 1), *rest) for _, f, r, t, *rest in ROWS]
        assert con.execute(ASSIGNMENTS.replace("order", "where run = 0 order")).fetchall() == moved
    with moescope.open(store) as opened:
        assert [c for c in verify(opened) if c.broken] == []


def test_every_table_view_and_column_has_a_comment(tmp_path: Path) -> None:
    store = tmp_path / "run.duckdb"
    handmade.written(store)
    with plain(store) as con:
        bare = """
            select table_name as x from duckdb_tables() where comment is null
            union all select view_name from duckdb_views() where not internal and comment is null
            union all select table_name || '.' || column_name from duckdb_columns() where not internal and comment is null"""
        assert con.execute(bare).fetchall() == []
        assert con.execute(
            "select comment from duckdb_columns() where table_name = 'routing' and column_name = 'weight'"
        ).fetchall() == [("what multiplied it",)]


def test_no_run_begins_where_the_first_one_fails_to_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("moescope.store.write.writer.write_atomic", full)
    with pytest.raises(StoreError, match="No space left on device"):
        handmade.written(tmp_path / "run.duckdb")
    assert unfinished_runs(tmp_path / "run.duckdb") == []
    with moescope.open(tmp_path / "run.duckdb") as store:
        assert store.rows("from runs") == []


def test_names_with_signs_of_sql_and_globs(tmp_path: Path) -> None:
    folder = tmp_path / "it's [1] *"
    folder.mkdir()
    writer = handmade.written(folder / "a'b [x].duckdb", close=False)
    with moescope.open(folder / "a'b [x].duckdb") as store:
        assert store.rows(ASSIGNMENTS) == ROWS
    writer.close(handmade.FINAL, {})
    assert [p.name for p in folder.iterdir()] == ["a'b [x].duckdb"]
