"""A store is changed where it lies, as what it is: links followed, mode and owner kept, nobody's writing lost."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import handmade
import pytest
from click.testing import CliRunner

import moescope
from moescope.cli import main
from moescope.errors import StoreError
from moescope.store.write import change as replace
from moescope.store.write.change import change_store, reset_store


def names(store: Path) -> list[Any]:
    with moescope.open(store) as opened:
        return [name for (name,) in opened.rows("select name from runs order by run")]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("way", ["absolute", "relative", "chain", "folder"])
def test_through_a_link_to_what_it_leads_to(tmp_path: Path, way: str) -> None:
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "run.duckdb", tmp_path / "link.duckdb"
    handmade.written(target, name="first")
    if way == "folder":
        (tmp_path / "short").symlink_to("there")
        link = tmp_path / "short" / "run.duckdb"
    elif way == "chain":
        (tmp_path / "middle").symlink_to("there/run.duckdb")
        link.symlink_to("middle")
    else:
        link.symlink_to(target if way == "absolute" else "there/run.duckdb")
    before = {p: os.readlink(p) for p in tmp_path.iterdir() if p.is_symlink()}
    writer = handmade.written(link, name="second", close=False)
    assert names(link) == names(target) == ["first", "second"]  # one store, whichever name it is called by
    writer.close(handmade.FINAL, {})
    handmade.written(link, name="cut", close=False).release()
    assert CliRunner().invoke(main, ["recover", str(target)]).output == f"run 2 of {target}: 2 committed shards joined\n"
    change_store(link, lambda con: con.execute("update runs set name = 'third' where name = 'cut'"))
    assert names(link) == names(target) == ["first", "second", "third"]
    assert {p: os.readlink(p) for p in tmp_path.iterdir() if p.is_symlink()} == before
    assert [p.name for p in (tmp_path / "there").iterdir()] == ["run.duckdb"]
    reset_store(link)
    assert (names(target), {p: os.readlink(p) for p in tmp_path.iterdir() if p.is_symlink()}) == ([], before)


def test_a_link_to_where_a_store_will_be(tmp_path: Path) -> None:
    (tmp_path / "link.duckdb").symlink_to("run.duckdb")
    handmade.written(tmp_path / "link.duckdb")
    assert (os.readlink(tmp_path / "link.duckdb"), names(tmp_path / "run.duckdb")) == ("run.duckdb", ["by hand"])


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o660, 0o664, 0o644])
def test_mode_and_owner_are_kept(tmp_path: Path, mode: int) -> None:
    store = tmp_path / "run.duckdb"
    handmade.written(store)
    store.chmod(mode)
    if os.geteuid() == 0:
        os.chown(store, 1234, 4321)
    before = store.stat()
    handmade.written(store, name="second")
    assert names(store) == ["by hand", "second"]
    reset_store(store)
    assert names(store) == []
    after = store.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


def test_a_new_store_has_the_mode_that_files_have(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        handmade.written(tmp_path / "run.duckdb")
    finally:
        os.umask(old)
    assert (tmp_path / "run.duckdb").stat().st_mode & 0o777 == 0o640


CHANGES: dict[str, Callable[[Path], object]] = {
    "trace": handmade.written,
    "overwrite": reset_store,
    "update": lambda store: change_store(store, lambda con: con.execute("delete from runs")),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("file", "folder"), [(0o440, 0o755), (0o400, 0o755), (0o644, 0o555), (0o444, 0o500)])
def test_what_is_write_protected_stays_as_it_is_also_for_root(tmp_path: Path, change: str, file: int, folder: int) -> None:
    store = tmp_path / "there" / "run.duckdb"
    store.parent.mkdir()
    handmade.written(store)
    before = store.read_bytes()
    store.chmod(file)
    store.parent.chmod(folder)
    try:
        with pytest.raises(StoreError, match=r"^cannot write .* is write-protected \(mode 0[45]"):
            CHANGES[change](store)
        assert names(store) == ["by hand"]
    finally:
        store.parent.chmod(0o755)
    assert (store.read_bytes(), store.stat().st_mode & 0o777, list(store.parent.iterdir())) == (before, file, [store])


def test_a_store_that_became_write_protected_while_a_run_was_traced(tmp_path: Path) -> None:
    store = tmp_path / "run.duckdb"
    handmade.written(store, name="first")
    writer = handmade.written(store, name="second", close=False)
    store.chmod(0o440)
    with pytest.raises(StoreError, match=r"write-protected .* its shards are safe"):
        writer.close(handmade.FINAL, {})
    store.chmod(0o640)
    CliRunner().invoke(main, ["recover", str(store)])
    assert names(store) == ["first", "second"]


def write(store: Path) -> None:
    with duckdb.connect(str(store)) as con:
        con.execute("update runs set name = 'changed by somebody else', seconds = coalesce(seconds, 0) + 1 where run = 0")


def touch(store: Path) -> None:
    content = store.read_bytes()
    store.write_bytes(content)


def swap(store: Path) -> None:
    other = store.with_name("other.duckdb")
    other.write_bytes(store.read_bytes())
    write(other)
    os.replace(other, store)


@pytest.mark.parametrize("foreign", [write, touch, swap])
@pytest.mark.parametrize("when", ["shutil.copyfile", "working_copy.create_tables", "seal", "sync"])
@pytest.mark.parametrize("times", [1, 2, 99])
@pytest.mark.sampled(2)
def test_who_writes_into_the_file_meanwhile_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, foreign: Callable[[Path], None], when: str, times: int
) -> None:
    """At any instant of the join, however often; in the end all is there, or the run is refused and its shards are safe."""
    store, calls = tmp_path / "run.duckdb", [0]
    handmade.written(store, name="first")
    writer = handmade.written(store, name="second", close=False)
    owner, name = (getattr(replace, when.partition(".")[0]), when.partition(".")[2]) if "." in when else (replace, when)
    real = getattr(owner, name)

    def meanwhile(*args: Any, **named: Any) -> Any:
        result = real(*args, **named)
        if calls[0] < times:
            calls[0] += 1
            foreign(store)
        return result

    monkeypatch.setattr(owner, name, meanwhile)
    if times == 99:
        with pytest.raises(StoreError, match=r"another program writes into .* again and again.* its shards are safe"):
            writer.close(handmade.FINAL, {})
        monkeypatch.undo()
        CliRunner().invoke(main, ["recover", str(store)])
    else:
        assert writer.close(handmade.FINAL, {}) == 1
    assert names(store) == ["first" if foreign is touch else "changed by somebody else", "second"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.duckdb"]


def test_no_other_program_can_begin_to_write_while_the_new_file_is_put_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import subprocess
    import sys

    store, heard = tmp_path / "run.duckdb", []
    handmade.written(store)
    real = os.replace
    script = "import duckdb, sys; duckdb.connect(sys.argv[1])"

    def renaming(*args: Any) -> None:
        if args[1] == store:
            heard.append(subprocess.run([sys.executable, "-c", script, store], capture_output=True, text=True).stderr)
        real(*args)

    monkeypatch.setattr(replace.os, "replace", renaming)
    handmade.written(store, name="second")
    assert len(heard) == 1
    assert "Could not set lock on file" in heard[0]
    assert names(store) == ["by hand", "second"]
