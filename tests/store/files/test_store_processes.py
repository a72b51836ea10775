"""Several processes and one store: writers beside writers, readers beside writers, nobody in anybody's way."""

import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import duckdb
import handmade
import pytest
import tracing

import moescope
from moescope.store import reader as reading
from moescope.store.connect import connect
from moescope.store.integrity.verify import verify
from moescope.store.write.unfinished_run import parts_folder

HOLD = "import duckdb, sys; c = duckdb.connect(sys.argv[1], read_only=True); print('open', flush=True); sys.stdin.read()"


@pytest.mark.slow
def test_processes_trace_at_once_into_one_store(tmp_path: Path) -> None:
    """Four writers and two readers; every run is whole, and the same as one that was alone."""
    context, store = tracing.server(), tmp_path / "run.duckdb"
    writers = [context.Process(target=tracing.run, args=(store,)) for _ in range(4)]
    for writer in writers:
        writer.start()
    seen: list[Counter[str]] = []
    stop, ended = threading.Event(), []

    def read() -> None:
        try:
            look()
            ended.append("well")
        except BaseException as error:
            ended.append(repr(error))

    def look() -> None:
        while not stop.is_set() or not seen:
            if store.exists():
                with moescope.open(store) as opened:
                    runs = opened.rows("select run, status, forwards, decisions from runs")
                    counted = opened.rows("select run, count(*) from decisions group by run order by run")
                    assert [(r, d) for r, _, _, d in sorted(runs) if d] == counted
                    seen.append(Counter(status for _, status, *_ in runs))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for writer in writers:
        writer.join()
    stop.set()
    for reader in readers:
        reader.join()
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert ended == ["well"] * 2
    assert any(counts["running"] for counts in seen)
    with moescope.open(store) as opened:
        assert opened.rows(
            "select status, count(*), count(distinct uid), min(forwards), max(forwards) from runs group by status"
        ) == [("complete", 4, 4, 20, 20)]
        assert opened.rows("select count(*) from models") == [(1,)]
        assert [c for c in verify(opened) if c.broken] == []
    assert [p.name for p in tmp_path.iterdir()] == ["run.duckdb"]


def test_somebody_who_reads_with_plain_duckdb_is_not_in_the_way(tmp_path: Path) -> None:
    store = tmp_path / "run.duckdb"
    handmade.written(store)
    with subprocess.Popen([sys.executable, "-c", HOLD, store], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with duckdb.connect(str(store), read_only=True) as here:
            handmade.written(store, name="second")
            assert here.execute("select count(*) from runs").fetchall() == [(1,)]
            with moescope.open(store) as again:  # sees what was joined since, though `here` keeps the old file
                assert again.rows("select count(*) from runs") == [(2,)]
        other.communicate()


def test_a_reader_keeps_what_it_reads_though_the_run_is_joined_meanwhile(tmp_path: Path) -> None:
    store = tmp_path / "run.duckdb"
    writer = handmade.written(store, close=False)
    reader, count = moescope.open(store), "select count(*) from assignments"
    writer.close(handmade.FINAL, {})
    assert reader.rows(count) == [(16,)]
    with moescope.open(store) as other:
        assert other.rows(count) == [(16,)]
    assert parts_folder(store).exists()
    reader.refresh()
    assert (reader.rows(count), reader.rows("select status from runs")) == ([(16,)], [("complete",)])
    reader.close()
    assert [p.name for p in tmp_path.iterdir()] == ["run.duckdb"]


def test_a_run_is_joined_while_a_reader_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the reader has the file of before and the shards, and before it has looked into them."""
    store = tmp_path / "run.duckdb"
    handmade.written(store, name="first")
    writer = handmade.written(store, name="second", close=False)

    def meanwhile(path: Path, *how: object) -> duckdb.DuckDBPyConnection:
        con = connect(path, *how)  # type: ignore[arg-type]
        writer.close(handmade.FINAL, {})
        return con

    monkeypatch.setattr(reading, "connect", meanwhile)
    with moescope.open(store) as opened:
        monkeypatch.undo()
        assert opened.rows("select run, count(*) from assignments group by run order by run") == [(0, 16), (1, 16)]
    assert [p.name for p in tmp_path.iterdir()] == ["run.duckdb"]


def test_a_run_that_grows_is_seen_after_refresh(tmp_path: Path) -> None:
    store = tmp_path / "run.duckdb"
    writer = handmade.written(store, batches=1, close=False)
    with moescope.open(store) as reader:
        before = reader.state()
        handmade.batch(writer, 1)
        writer.commit({"batches": 2})
        assert reader.rows("select count(*) from assignments") == [(8,)]
        assert reader.state() != before
        reader.refresh()
        assert reader.rows("select count(*) from assignments") == [(16,)]
    writer.release()


def test_probing_whether_a_run_lives_disturbs_nobody(tmp_path: Path) -> None:
    writer = handmade.written(tmp_path / "run.duckdb", batches=1, close=False)
    assert [writer.part.alive() for _ in range(3)] == [True] * 3
    writer.release()
    found: list[bool] = []
    threads = [threading.Thread(target=lambda: found.extend(writer.part.alive() for _ in range(50))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [False] * 200
