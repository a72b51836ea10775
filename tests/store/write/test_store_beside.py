"""One broken run, or something foreign, beside a store hides no other run: it is left aside, said, and kept."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import handmade
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import moescope
from moescope.cli import main
from moescope.errors import StoreError
from moescope.store import RunWriter
from moescope.store.integrity.verify import verify
from moescope.store.write.unfinished_run import parts_folder, unfinished_runs

Break = Callable[[Path], object]


def head(part: Path, **changes: Any) -> None:
    found = json.loads((part / "head.json").read_text())
    for name, value in changes.items():
        found["run" if name in ("seed", "uid", "started") else name] |= {name: value} if name in found["run"] else value
    (part / "head.json").write_text(json.dumps(found))


def shard(part: Path, name: str = "routes_2.parquet", number: int = 0) -> Path:
    return part / f"shard-{number:06d}" / name


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BROKEN: dict[str, Break] = {
    "head gone": lambda part: (part / "head.json").unlink(),
    "head empty": lambda part: (part / "head.json").write_text(""),
    "head cut": lambda part: cut(part / "head.json"),
    "head a list": lambda part: (part / "head.json").write_text("[]"),
    "head a folder": lambda part: ((part / "head.json").unlink(), (part / "head.json").mkdir()),
    "head binary": lambda part: (part / "head.json").write_bytes(b"\xff\xfe\0"),
    "head of nothing": lambda part: (part / "head.json").write_text('{"run": {}, "model": {}, "routers": [], "experts": []}'),
    "a value that fits no column": lambda part: head(part, seed=-1),
    "a word for a number": lambda part: head(part, seed="x"),
    "a time that is none": lambda part: head(part, started="yesterday"),
    "no name of the model": lambda part: (part / "head.json").write_text(
        json.dumps(json.loads((part / "head.json").read_text()) | {"model": {}})
    ),
    "progress gone": lambda part: shard(part, "progress.json").unlink(),
    "progress garbage": lambda part: shard(part, "progress.json").write_text("{"),
    "rows cut": lambda part: cut(shard(part)),
    "rows gone": lambda part: shard(part).unlink(),
    "rows empty": lambda part: shard(part).write_bytes(b""),
    "first shard gone": lambda part: shutil.rmtree(part / "shard-000000"),
    "rows of another shape": lambda part: pq.write_table(pa.table({"x; drop table runs": [1]}), shard(part, "tokens.parquet")),
    "words for numbers": lambda part: pq.write_table(
        pa.table({"forward": ["x"], "phase": [1]}), shard(part, "forwards.parquet")
    ),
}
FOREIGN: dict[str, Break] = {
    "a file": lambda folder: (folder / "notes.txt").write_text("mine"),
    "a folder": lambda folder: ((folder / "mine").mkdir(), (folder / "mine" / "notes.txt").write_text("mine")),
    "an empty folder": lambda folder: (folder / "mine").mkdir(),
    "a link to nowhere": lambda folder: (folder / "link").symlink_to(folder / "nowhere"),
    "a link to a folder": lambda folder: (folder / "link").symlink_to(folder.parent),
    "hidden": lambda folder: (folder / ".DS_Store").write_bytes(b"\0"),
}


def tree(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def two(store: Path) -> tuple[Path, Path]:
    """A whole run in the file, and two that were cut off, of which the first will be broken."""
    handmade.written(store, name="whole")
    cuts = [handmade.written(store, name=name, close=False) for name in ("broken", "other")]
    for writer in cuts:
        writer.release()
    return cuts[0].part.path, cuts[1].part.path


@pytest.mark.parametrize("case", [*BROKEN, *FOREIGN])
@pytest.mark.sampled(3)
def test_the_others_are_read_and_recovered(tmp_path: Path, case: str) -> None:
    store = tmp_path / "run.duckdb"
    bad, _ = two(store)
    BROKEN[case](bad) if case in BROKEN else FOREIGN[case](parts_folder(store))
    thing = bad.name if case in BROKEN else next(p.name for p in parts_folder(store).iterdir() if len(p.name) != 12)
    with pytest.warns(UserWarning, match="left aside"):
        opened = moescope.open(store)
    with opened:
        assert [thing in str(aside) for aside in opened.aside] == [True]
        kept = opened.rows("select name, status, decisions from runs where name <> 'broken' order by run")
        assert kept == [("whole", "complete", 8), ("other", "interrupted", 8)]
        assert opened.rows("select count(*) from assignments a join runs r using (run) where name = 'other'") == [(16,)]
    said = CliRunner().invoke(main, ["info", str(store)])
    assert (said.exit_code, "left aside" in said.stderr, thing in said.stderr) == (0, True, True)
    done = CliRunner().invoke(main, ["recover", str(store)])
    assert "2 committed shards joined" in done.output
    assert thing in done.stderr
    with moescope.open(store) as opened:
        assert ("other", "interrupted", 8) in opened.rows("select name, status, decisions from runs")
        assert [c for c in verify(opened) if c.broken] == []
    if case in FOREIGN:
        FOREIGN[case](tmp_path) if not (tmp_path / thing).exists() else None
        assert (parts_folder(store) / thing).is_symlink() or tree(parts_folder(store) / thing) == tree(tmp_path / thing)


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_what_precedes_a_lost_shard_is_kept_and_gone_on_with(tmp_path: Path, lost: int) -> None:
    store, whole = tmp_path / "run.duckdb", tmp_path / "whole.duckdb"
    handmade.written(whole, batches=3)
    handmade.written(store, batches=3, close=False).release()
    shutil.rmtree(unfinished_runs(store)[0].path / f"shard-{lost:06d}")
    with moescope.open(store) as opened:
        assert opened.rows("select forwards, status from runs") == [(lost, "interrupted")]
    again = RunWriter.resume(store, unfinished_runs(store)[0])
    assert again.next["forward"] == lost
    for number in range(lost, 3):
        handmade.batch(again, number)
        again.commit({"batches": number + 1})
    again.close(handmade.FINAL, {})
    query = "select * exclude (run) from assignments order by all"
    with moescope.open(store) as opened, moescope.open(whole) as expected:
        assert opened.rows(query) == expected.rows(query)
        assert [c for c in verify(opened) if c.broken] == []
    assert len(list(parts_folder(store).rglob("shard-*"))) == 2 - lost  # what came behind is kept aside


@pytest.mark.parametrize("harm", ["rmtree", "cut", "flip", "unlink"])
@pytest.mark.parametrize("number", [0, 1])
def test_a_shard_harmed_while_it_is_traced_is_never_joined_as_complete(tmp_path: Path, harm: str, number: int) -> None:
    store = tmp_path / "run.duckdb"
    writer = handmade.written(store, close=False)
    file = shard(writer.part.path, number=number)
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 4
    {"rmtree": lambda: shutil.rmtree(file.parent), "cut": lambda: cut(file), "unlink": file.unlink,
     "flip": lambda: file.write_bytes(content)}[harm]()  # fmt: skip
    with pytest.raises(StoreError, match=rf"of its 2 committed shards only the first {number} are as they were written"):
        writer.close(handmade.FINAL, {"batches": 2})
    said = CliRunner().invoke(main, ["recover", str(store)])
    assert f"run 0 of {store}: {number} committed shards joined" in said.output
    with moescope.open(store) as opened:
        assert opened.rows("select status, forwards from runs") == [("interrupted", number)]


def test_runs_of_a_store_that_was_deleted_are_not_those_of_the_next(tmp_path: Path) -> None:
    store = tmp_path / "run.duckdb"
    handmade.written(store, name="old", close=False).release()
    store.unlink()
    with pytest.raises(StoreError, match=r"there is no store .* --adopt joins them"):
        moescope.open(store)
    handmade.written(store, name="new")
    with pytest.warns(UserWarning, match="of another store of this name"):
        opened = moescope.open(store)
    with opened:
        assert opened.rows("select name, status from runs") == [("new", "complete")]
    said = CliRunner().invoke(main, ["recover", str(store)])
    assert (said.exit_code, "has no run that was cut off" in said.output, "--adopt" in said.stderr) == (0, True, True)
    said = CliRunner().invoke(main, ["recover", str(store), "--adopt"])
    assert said.output == f"run 1 of {store}: 2 committed shards joined\n"
    with moescope.open(store) as opened:
        assert opened.rows("select name, status from runs order by run") == [("new", "complete"), ("old", "interrupted")]
    assert list(tmp_path.iterdir()) == [store]


def test_runs_of_a_store_that_is_gone_are_adopted_by_a_new_one(tmp_path: Path) -> None:
    store = tmp_path / "run.duckdb"
    handmade.written(store, name="old", close=False).release()
    store.unlink()
    assert CliRunner().invoke(main, ["recover", str(store)]).exit_code == 1
    said = CliRunner().invoke(main, ["recover", str(store), "--adopt"])
    assert said.output == f"run 0 of {store}: 2 committed shards joined\n"


@pytest.mark.parametrize("between", ["gone", "another"])
def test_a_store_deleted_while_a_run_is_traced(tmp_path: Path, between: str) -> None:
    store = tmp_path / "run.duckdb"
    writer = handmade.written(store, name="long", close=False)
    store.unlink()
    if between == "gone":
        assert writer.close(handmade.FINAL, {}) == 0
        with moescope.open(store) as opened:
            assert opened.rows("select name, status, decisions from runs") == [("long", "complete", 8)]
        return
    handmade.written(store, name="short")
    with pytest.raises(StoreError, match=r"is another store than the one in which this run began"):
        writer.close(handmade.FINAL, {})
    CliRunner().invoke(main, ["recover", str(store), "--adopt"])
    with moescope.open(store) as opened:
        assert opened.rows("select name, decisions from runs order by run") == [("short", 8), ("long", 8)]


def test_two_begin_a_store_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one saw no store either; the first one's run stays one of its."""
    from moescope.store.write import change as replacing

    store, real, first = tmp_path / "run.duckdb", replacing.change_store, []

    def late(*args: Any, **named: Any) -> None:
        if not first:
            monkeypatch.undo()
            first.append(handmade.written(store, name="first", close=False))
        real(*args, **named)

    monkeypatch.setattr(replacing, "change_store", late)
    handmade.written(store, name="second")
    first[0].close(handmade.FINAL, {})
    with moescope.open(store) as opened:
        assert opened.rows("select name from runs order by run") == [("second",), ("first",)]
