"""What a command writes goes beside its place and is renamed into it, never over what somebody may need."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import handmade
import pytest
from click.testing import CliRunner, Result

from moescope.cli import main
from moescope.store.integrity.verify import verify  # noqa: F401


def tree(folder: Path) -> dict[str, object]:
    return {
        str(p.relative_to(folder)): os.readlink(p) if p.is_symlink() else p.read_bytes() if p.is_file() else p.stat().st_mode
        for p in sorted(folder.rglob("*"))
    }


def link(folder: Path) -> Path:
    (folder / "link").symlink_to(folder / "run.duckdb")
    return folder / "link"


def chain(folder: Path) -> Path:
    link(folder)
    (folder / "chain").symlink_to("link")
    return folder / "chain"


def hard(folder: Path) -> Path:
    os.link(folder / "run.duckdb", folder / "hard")
    return folder / "hard"


def made(folder: Path, make: Callable[[Path], object]) -> Path:
    make(folder / "thing")
    return folder / "thing"


def listening(path: Path) -> None:
    socket.socket(socket.AF_UNIX).bind(str(path))


def through(folder: Path) -> Path:
    (folder / "deep").symlink_to(next(folder.glob("*.parts/*")))
    return folder / "deep" / "head.json"


def other(folder: Path) -> Path:
    handmade.written(folder / "other.duckdb")
    return folder / "other.duckdb"


NEVER: dict[str, Callable[[Path], Path]] = {
    "the store": lambda folder: folder / "run.duckdb",
    "the store, another way": lambda folder: folder / "sub" / ".." / "run.duckdb",
    "another store": other,
    "a link to it": link,
    "a link to a link": chain,
    "its other name": hard,
    "its log": lambda folder: folder / "run.duckdb.wal",
    "its parts": lambda folder: folder / "run.duckdb.parts",
    "a new file in its parts": lambda folder: folder / "run.duckdb.parts" / "x.csv",
    "the head of a run": lambda folder: next(folder.glob("*.parts/*")) / "head.json",
    "the head of a run by a link": through,
    "a folder": lambda folder: made(folder, Path.mkdir),
    "a pipe": lambda folder: made(folder, os.mkfifo),
    "a socket": lambda folder: made(folder, listening),
    "a device": lambda folder: Path("/dev/null"),
    "in no folder": lambda folder: folder / "nowhere" / "x.csv",
    "below a file": lambda folder: folder / "run.duckdb" / "x.csv",
    "a name with NUL": lambda folder: folder / "a\0b",
    "a name too long": lambda folder: folder / ("x" * 300),
}
COMMANDS = {
    "sql table": ["sql", "STORE", "from runs"],
    "sql csv": ["sql", "STORE", "from runs", "--format", "csv"],
    "sql json": ["sql", "STORE", "from runs", "--format", "json"],
    "sql parquet": ["sql", "STORE", "from runs", "--format", "parquet"],
    "report": ["report", "STORE"],
    "export": ["export", "STORE", "load", "--format", "svg"],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    handmade.written(tmp_path / "run.duckdb")
    handmade.written(tmp_path / "run.duckdb", close=False).release()
    return tmp_path


def asked(folder: Path, command: str, target: Path, *more: str) -> Result:
    words = [str(folder / "run.duckdb") if word == "STORE" else word for word in COMMANDS[command]]
    return CliRunner().invoke(main, [*words, "-o", str(target), *more])


@pytest.mark.sampled(30)
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("case", NEVER)
def test_never_over_a_store_a_folder_or_a_device(folder: Path, command: str, case: str) -> None:
    target = NEVER[case](folder)
    before = tree(folder)
    for more in ((), ("--overwrite",)):
        done = asked(folder, command, target, *more)
        assert done.exit_code in (1, 2), done.output
        assert done.stderr.startswith("moescope: ")
        assert done.stderr.count("\n") == 1
    assert tree(folder) == before


@pytest.mark.sampled(4)
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("through", [False, True], ids=["itself", "by a link"])
def test_over_another_file_only_when_asked(folder: Path, command: str, through: bool) -> None:
    place = folder / "mine.txt"
    place.write_text("mine")
    place.chmod(0o640)
    (folder / "link").symlink_to("mine.txt")
    target = folder / "link" if through else place
    before = tree(folder)
    done = asked(folder, command, target)
    assert (done.exit_code, "is there already; name another file, or say --overwrite" in done.stderr) == (2, True)
    assert tree(folder) == before
    done = asked(folder, command, target, "--overwrite")
    assert done.exit_code == 0, done.output
    assert (place.read_bytes() != b"mine", place.stat().st_mode & 0o777, (folder / "link").is_symlink()) == (True, 0o640, True)
    assert set(tree(folder)) == set(before)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("protected", ["file", "folder"])
def test_a_write_protected_place_stays_so_also_for_root(folder: Path, command: str, protected: str) -> None:
    place = folder / "sub" / "mine.txt"
    place.write_text("mine")
    (place if protected == "file" else place.parent).chmod(0o440 if protected == "file" else 0o550)
    done = asked(folder, command, place, "--overwrite")
    place.parent.chmod(0o750)
    assert (done.exit_code, "is write-protected (mode 0" in done.stderr, place.read_text()) == (2, True, "mine")


def test_a_query_that_fails_on_the_way_leaves_nothing(folder: Path) -> None:
    before = tree(folder)
    query = "select case when range = 199999 then error('late') end as x from range(200000)"
    for form in ("csv", "json", "parquet"):
        done = CliRunner().invoke(main, ["sql", str(folder / "run.duckdb"), query, "--format", form, "-o", str(folder / "out")])
        assert (done.exit_code, "late" in done.stderr, done.stderr.count("\n")) == (2, True, 1)
    assert tree(folder) == before


def test_a_report_may_be_made_again_but_not_over_a_store_of_that_name(folder: Path) -> None:
    assert [CliRunner().invoke(main, ["report", str(folder / "run.duckdb")]).exit_code for _ in range(2)] == [0, 0]
    (folder / "run.duckdb").rename(folder / "run.html")
    (folder / "run.duckdb.parts").rename(folder / "run.html.parts")
    before = tree(folder)
    done = CliRunner().invoke(main, ["report", str(folder / "run.html")])
    assert (done.exit_code, "is a DuckDB file, over which moescope writes no result" in done.stderr) == (2, True)
    assert tree(folder) == before
