"""A disk that is full or slow: one sentence, nothing committed is lost, nothing grows without bound."""

import functools
import time
from pathlib import Path

import duckdb
import pytest
import tracing
from click.testing import CliRunner

import moescope
from moescope.cli import main
from moescope.errors import StoreError
from moescope.store import RunWriter
from moescope.store.files.durable import reason
from moescope.tracer import Options, trace
from moescope.tracer.handover import sink


def traced(store: Path, resume: bool = False) -> int:
    return trace(tracing.tiny(), tracing.ids(20), store, batch_size=2, options=Options(commit_rows=1), resume=resume)


@pytest.mark.parametrize("at", [0, 4])
def test_full_while_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """The fifth shard finds no room; four are there, and going on gives the record of a run that had room."""
    real, calls = moescope.store.write.writer.write_rows, iter(range(10_000))

    def full(path: Path, table: object) -> None:
        if path.stem.startswith("routes") and next(calls) >= at:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        real(path, table)  # type: ignore[arg-type]

    traced(tmp_path / "whole.duckdb")
    store = tmp_path / "run.duckdb"
    monkeypatch.setattr("moescope.store.write.writer.write_rows", full)
    with pytest.raises(StoreError, match=r"^writing to \S+ failed: No space left on device; .* go on with --resume$"):
        traced(store)
    monkeypatch.undo()
    with moescope.open(store) as cut:
        assert cut.rows("select status, forwards from runs") == [("interrupted", at)]
    traced(store, resume=True)
    assert tracing.differences(store, tracing.told(tmp_path / "whole.duckdb")) == {}


@pytest.mark.parametrize("what", ["shutil.copyfile", "os.replace", "sync"])
def test_full_while_joining(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    store = tmp_path / "run.duckdb"
    trace(tracing.tiny(), tracing.ids(2), store)
    before = store.read_bytes()

    real = functools.reduce(getattr, what.split("."), moescope.store.write.change)

    def full(path: Path, *rest: Path) -> None:
        if ".duckdb" in path.name:
            raise OSError(28, "No space left on device")
        real(path, *rest)  # type: ignore[operator]

    monkeypatch.setattr(f"moescope.store.write.change.{what}", full)
    with pytest.raises(StoreError, match=r"failed \(No space left on device\); make room; its shards are safe: .* recover"):
        trace(tracing.tiny(), tracing.ids(8), store)
    monkeypatch.undo()
    assert store.read_bytes() == before
    assert CliRunner().invoke(main, ["recover", str(store)]).output == f"run 1 of {store}: 1 committed shards joined\n"
    assert trace(tracing.tiny(), tracing.ids(8), store, resume=True) == 1
    with moescope.open(store) as opened:
        rows = opened.rows("select run, status, sequences, warnings from runs order by run")
        assert rows == [(0, "complete", 2, "[]"), (1, "complete", 8, "[]")]


def test_a_disk_that_is_really_full(mount: Path) -> None:
    """Eight megabytes: some shards fit, and then no more, or the join does not; making room is enough to go on."""
    store, weight = mount / "run.duckdb", mount / "weight"
    traced(store)
    free = 8 << 20
    weight.write_bytes(b"x" * max(0, free - 3 * store.stat().st_size))
    with pytest.raises(StoreError) as raised:
        list(map(traced, [store] * 20))
    assert "\n" not in str(raised.value)
    assert "No space left" in str(raised.value)
    with moescope.open(store) as full:
        complete = full.rows("select count(*) from runs where status = 'complete'")[0][0]
    weight.unlink()
    CliRunner().invoke(main, ["recover", str(store)])
    with moescope.open(store) as opened:
        assert opened.rows("select count(*) from runs where status = 'complete'") == [(complete,)]
        assert len(opened.rows("from runs")) >= complete


def test_a_slow_disk_makes_the_model_wait_and_the_run_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit, held = RunWriter.commit, []

    def slow(self: RunWriter, progress: dict[str, object]) -> None:
        time.sleep(0.05)
        commit(self, progress)

    put = sink.Sink.put

    def watched(self: sink.Sink, job: object) -> None:
        put(self, job)  # type: ignore[arg-type]
        held.append(self._held)

    monkeypatch.setattr(RunWriter, "commit", slow)
    monkeypatch.setattr(sink.Sink, "put", watched)
    store = tmp_path / "run.duckdb"
    trace(tracing.tiny(), tracing.ids(), store, batch_size=2, options=Options(commit_rows=1, max_bytes=2000))
    assert max(held) <= 3000  # one forward of two short texts is about a thousand bytes
    with moescope.open(store) as opened:
        (warnings,) = opened.rows("select warnings from runs")[0]
        assert opened.rows("select status, sequences from runs") == [("complete", 40)]
    assert "because writing could not keep up: the disk is slow or busy" in warnings


@pytest.mark.parametrize("long", [10, 300])
def test_a_cause_behind_a_long_path_is_said(long: int) -> None:
    """DuckDB names the file first, and the cause behind it; sentences are cut."""
    error = duckdb.IOException(f'Checkpoint failed: could not write file "/{"d" * long}/run.duckdb": No space left on device')
    assert "No space left on device" in reason(error)
    assert len(reason(error)) < 240
