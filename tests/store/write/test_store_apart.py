"""Rows of large runs stay beside the file: it shows them as its own, to plain DuckDB too, and one command brings them in."""

import subprocess
import sys
from pathlib import Path

import duckdb
import handmade
import pytest
import tracing
from click.testing import CliRunner

import moescope
from moescope.cli import main
from moescope.errors import StoreError
from moescope.store import RunWriter
from moescope.store.connect import lying_apart
from moescope.store.integrity.damage import examine
from moescope.store.integrity.verify import verify
from moescope.store.write import apart, pack, scans
from moescope.store.write.change import change_store, reset_store
from moescope.store.write.unfinished_run import parts_folder
from moescope.tracer import Options, trace
from moescope.tracer.recorder import Recorder

NAMES = ("first", "second", "third")
LARGE, SMALL = "1", "1000000000"
COUNTS = "select run, count(*), count(distinct token), sum(weight) from routing group by all order by run"


@pytest.fixture
def size(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv(apart.SETTING, LARGE)
    return monkeypatch


@pytest.fixture(scope="module")
def one_file(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What three runs tell that are in the file."""
    store = tmp_path_factory.mktemp("one") / "run.duckdb"
    for name in NAMES:
        handmade.written(store, name=name)
    return tracing.told(store)


def mixed(store: Path, size: pytest.MonkeyPatch, form: str) -> Path:
    """Three runs, each large (L) or small (s)."""
    for name, letter in zip(NAMES, form):
        size.setenv(apart.SETTING, LARGE if letter == "L" else SMALL)
        handmade.written(store, name=name)
    return store


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("form", ["LLL", "LsL", "sLs", "ssL", "Lss"])
@pytest.mark.sampled(2)
def test_it_tells_the_same_apart_and_packed(
    tmp_path: Path, size: pytest.MonkeyPatch, one_file: dict[str, list[str]], form: str
) -> None:
    store = mixed(tmp_path / "run.duckdb", size, form)
    assert len(list(parts_folder(store).iterdir())) == form.count("L")
    assert tracing.differences(store, one_file) == {}
    with moescope.open(store) as opened:
        assert [check.rule for check in verify(opened) if check.broken] == []
        counts = opened.rows(COUNTS)
    assert not examine(store)
    assert plainly(store, tmp_path) == counts
    assert pack.pack(store) == [number for number, letter in enumerate(form) if letter == "L"]
    assert names(tmp_path) == ["run.duckdb"]
    assert tracing.differences(store, one_file) == {}
    assert plainly(store, tmp_path) == counts
    assert pack.pack(store) == []


def plainly(store: Path, folder: Path) -> list[object]:
    with duckdb.connect(str(store), read_only=True) as con:
        return con.execute(COUNTS).fetchall()


def test_plain_duckdb_from_another_folder_and_after_a_move(tmp_path: Path, size: pytest.MonkeyPatch) -> None:
    store = mixed(tmp_path / "run.duckdb", size, "LLs")
    before = plainly(store, tmp_path)
    code = f"import duckdb; print(duckdb.connect({str(store)!r}, read_only=True).execute({COUNTS!r}).fetchall())"
    shown = subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True, check=True)
    assert shown.stdout == f"{before}\n"
    (tmp_path / "there").mkdir()
    for path in (store, parts_folder(store)):
        path.rename(tmp_path / "there" / path.name)
    moved = tmp_path / "there" / store.name
    with moescope.open(moved) as opened:
        assert opened.rows(COUNTS) == before
    with duckdb.connect(str(moved), read_only=True) as con:
        con.execute(f"set variable {scans.VARIABLE} = '{parts_folder(moved)}'")
        assert con.execute(COUNTS).fetchall() == before
    handmade.written(moved, name="fourth")  # small: the views stay
    size.setenv(apart.SETTING, LARGE)
    handmade.written(moved, name="fifth")  # large: they are of where the store lies now
    assert [run for run, *_ in plainly(moved, tmp_path)] == [0, 1, 2, 3, 4]


def test_a_run_that_was_cut_off_goes_on(tmp_path: Path, size: pytest.MonkeyPatch) -> None:
    """Joined as interrupted with its rows apart, gone on with, joined again: in every mixture, the same as one never cut."""
    trace(tracing.tiny(), tracing.ids(8), tmp_path / "whole.duckdb", batch_size=2, options=Options(commit_rows=1))
    for number, (first, second) in enumerate([(LARGE, LARGE), (LARGE, SMALL), (SMALL, LARGE)]):
        store = tmp_path / f"{number}.duckdb"
        size.setenv(apart.SETTING, first)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Recorder, "_forward", tracing.broken_off(Recorder._forward, 2))
            with pytest.raises(KeyboardInterrupt):
                trace(tracing.tiny(), tracing.ids(8), store, batch_size=2, options=Options(commit_rows=1))
        with moescope.open(store) as opened:
            assert opened.rows("select status from runs") == [("interrupted",)]
        size.setenv(apart.SETTING, second)
        trace(tracing.tiny(), tracing.ids(8), store, batch_size=2, options=Options(commit_rows=1), resume=True)
        assert tracing.differences(store, tracing.told(tmp_path / "whole.duckdb")) == {}
        assert pack.pack(store) == [0]
        assert tracing.differences(store, tracing.told(tmp_path / "whole.duckdb")) == {}


def test_what_is_not_as_it_was_written_is_found_and_not_packed(tmp_path: Path, size: pytest.MonkeyPatch) -> None:
    store = mixed(tmp_path / "run.duckdb", size, "Ls")
    file = next(parts_folder(store).glob("*/shard-000001/routes_2.parquet"))
    whole = file.read_bytes()
    file.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    where = f"run.duckdb.parts/{file.relative_to(parts_folder(store))}"
    assert examine(store).unreadable == {"run 0": f"{where} is not as it was written"}
    result = CliRunner().invoke(main, ["pack", str(store)])
    assert (result.exit_code, "Traceback" in result.output) == (1, False)
    assert f"cannot be packed: of run 0, {where} is not as it was written" in result.output
    parts_folder(store).rename(tmp_path / "elsewhere")
    for command in ("info", "verify", "pack"):
        result = CliRunner().invoke(main, [command, str(store)])
        assert (result.exit_code, "Traceback" in result.output) == (1, False)
        assert "run.duckdb.parts/" in result.output.splitlines()[0]
        assert "run 0" in result.output.splitlines()[0]


@pytest.mark.parametrize(
    "change",
    [
        "part = '../../../../'",
        "\"table\" = 'runs'",
        "files = '{\"../x\": [1, 2]}'",
        "moved = '{}'",
        "columns = '[\"x\"]'",
        "files = '3'",
    ],
)
def test_a_strangers_description_is_refused(tmp_path: Path, size: pytest.MonkeyPatch, change: str) -> None:
    store = mixed(tmp_path / "run.duckdb", size, "L")
    with duckdb.connect(str(store)) as con:
        con.execute(f"update apart set {change}")
    with pytest.raises(StoreError):
        moescope.open(store)


def test_begun_anew_nothing_of_it_stays_and_a_lost_file_is_made_again(
    tmp_path: Path, size: pytest.MonkeyPatch, one_file: dict[str, list[str]]
) -> None:
    store = mixed(tmp_path / "run.duckdb", size, "LLL")
    store.unlink()
    with pytest.raises(StoreError, match=r"moescope recover .* --adopt"):
        moescope.open(store)
    assert CliRunner().invoke(main, ["recover", str(store), "--adopt"]).exit_code == 0
    with moescope.open(store) as opened:
        assert [count for _, count, *_ in opened.rows(COUNTS)] == [16, 16, 16]
    reset_store(store)
    assert names(tmp_path) == ["run.duckdb"]


def test_a_reader_keeps_what_it_reads_while_it_is_packed(tmp_path: Path, size: pytest.MonkeyPatch) -> None:
    store = mixed(tmp_path / "run.duckdb", size, "LL")
    with moescope.open(store) as opened:
        before = opened.rows(COUNTS)
        assert pack.pack(store) == [0, 1]
        assert opened.rows(COUNTS) == before
    with moescope.open(store) as opened:
        assert opened.rows(COUNTS) == before
    assert names(tmp_path) == ["run.duckdb"]


def test_no_room_to_pack(tmp_path: Path, size: pytest.MonkeyPatch) -> None:
    store = mixed(tmp_path / "run.duckdb", size, "L")
    before = store.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for what in ("shutil.copyfile", "sync", "os.replace"):
        size.setattr(f"moescope.store.write.change.{what}", full)
        with pytest.raises(StoreError, match=r"No space left on device.*it is as it was"):
            pack.pack(store)
        size.undo()
        assert store.read_bytes() == before
    assert names(tmp_path) == ["run.duckdb", "run.duckdb.parts"]
    with moescope.open(store) as opened:
        assert opened.rows("select count(*) from routing") == [(16,)]


def test_a_change_copies_what_the_file_holds_and_no_rows_of_large_runs(tmp_path: Path, size: pytest.MonkeyPatch) -> None:
    store = mixed(tmp_path / "run.duckdb", size, "L")
    change_store(store, lambda con: con.execute("update runs set name = 'other'"))
    with moescope.open(store) as opened:
        assert opened.rows("select name, decisions from runs") == [("other", 8)]
        assert len(lying_apart(opened.con)) == 1


def test_a_setting_that_is_no_number_is_refused(tmp_path: Path, size: pytest.MonkeyPatch) -> None:
    size.setenv(apart.SETTING, "8 MB")
    with pytest.raises(StoreError, match="give a whole number of bytes"):
        RunWriter.create(tmp_path / "run.duckdb", handmade.HEAD)
