"""A store elsewhere is the store that it would be here: written, watched, cut off at any instant, gone on with, removed."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import handmade
import pytest
from click.testing import CliRunner
from fsspec.implementations.memory import MemoryFileSystem

import moescope
from moescope.cli import main
from moescope.cli._support.boundary import guarded
from moescope.errors import MoescopeError, StoreError
from moescope.store import RunWriter
from moescope.store.remote import hollow, place
from moescope.store.remote.addresses import local
from moescope.store.write.change import check_target, reset_store
from moescope.store.write.pack import pack
from moescope.store.write.resume import unfinished

ADDRESS = "memory://bucket/study/run"
PROGRESS = {"batches": 2, "sequences": 2, "total": 2}
Machine = Callable[..., Path]
VIEWS = (
    "assignments",
    "decisions",
    "tokens",
    "token_labels",
    "sequences",
    "expert_load",
    "load_balance",
    "vocab_load",
    "label_load",
)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """Go on as on the machine of a name, which has nothing of other machines but what lies elsewhere; gives the store there."""
    monkeypatch.setattr(hollow, "_WHOLE", 0)
    monkeypatch.setattr(place, "_PAUSE_S", 0.0)

    def goes_on(name: str, address: str = ADDRESS) -> Path:
        monkeypatch.setenv("MOESCOPE_REMOTE", str(tmp_path / name))
        return local(address)

    yield goes_on
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


BOTH = pytest.mark.parametrize("form", ["apart", "in the file"], indirect=True)


@pytest.fixture
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether rows of these small runs stay in their shards."""
    chosen = str(getattr(request, "param", "apart"))
    if chosen == "apart":
        monkeypatch.setenv("MOESCOPE_APART_BYTES", "0")
    return chosen


@pytest.fixture
def plain(tmp_path: Path, form: str) -> Any:
    """What the store has on a disk."""
    handmade.written(tmp_path / "plain.duckdb")
    return record(tmp_path / "plain.duckdb")


def record(store: Path) -> dict[str, Any]:
    """All that a store says of its one run."""
    with moescope.open(store) as opened:
        assert opened.aside == ()
        found = {view: opened.rows(f"select * from {view} order by all") for view in VIEWS}
        return found | {"runs": opened.rows("select name, status, seed, forwards, tokens, decisions, assignments from runs")}


def there() -> dict[str, int]:
    return {name: info["size"] for name, info in fsspec.filesystem("memory").find("/bucket", detail=True).items()}


def gone_on_with(store: Path) -> None:
    """As `--resume` does: the batches that are not there yet, and the end; or all of it where no run is there."""
    if parts := unfinished(store) if store.exists() else []:
        writer = RunWriter.resume(store, parts[0])
        for number in range(writer._shard, 2):
            handmade.batch(writer, number)
            writer.commit({"batches": number + 1, "sequences": number + 1, "total": 2})
        writer.close(handmade.FINAL, PROGRESS)
    elif not store.exists() or not runs(store):
        handmade.written(store)


def runs(store: Path) -> list[Any]:
    with moescope.open(store) as opened:
        return opened.rows("select run from runs")


@BOTH
def test_every_machine_sees_one_record_and_a_copy_is_a_store(machine: Machine, plain: Any, form: str, tmp_path: Path) -> None:
    writer = handmade.written(machine("a"), close=False)
    seen = record(machine("b"))  # while it is traced
    assert {name: rows for name, rows in seen.items() if name != "runs"} == {n: r for n, r in plain.items() if n != "runs"}
    machine("a")
    writer.close(handmade.FINAL, PROGRESS)
    for name in "abc":
        assert record(machine(name)) == plain
        assert CliRunner().invoke(main, ["verify", "-q", ADDRESS]).output == f"{ADDRESS} is sound: 38 of 38 checks hold\n"
    fsspec.filesystem("memory").get("/bucket/study/run", str(tmp_path / "copy"), recursive=True)
    assert record(next((tmp_path / "copy").rglob("store.duckdb"))) == plain
    assert any(name.endswith("/kept.json") for name in there()) == (form == "apart")


@BOTH
def test_a_store_of_this_machine_is_shared_by_copying_it(machine: Machine, plain: Any, form: str, tmp_path: Path) -> None:
    system, there = fsspec.filesystem("memory"), "/bucket/study/run/store.duckdb"
    system.put(str(tmp_path / "plain.duckdb"), there)
    if (tmp_path / "plain.duckdb.parts").exists():
        system.put(f"{tmp_path / 'plain.duckdb.parts'}/", f"{there}.parts/", recursive=True)
    assert record(machine("a")) == plain


def test_rows_that_are_there_are_not_here(machine: Machine, form: str) -> None:
    store = machine("a")
    handmade.written(store, close=False)
    held = [*store.parent.rglob("routes_2.parquet")]
    assert len(held) == 2
    assert all(hollow.is_hollow(file) and b"\0" * 40 in file.read_bytes()[:200] for file in held)
    for file in held:
        with hollow.opened(file) as whole:
            assert whole.read()[-file.stat().st_size :][-8:] == file.read_bytes()[-8:]


@pytest.mark.sampled(4)
@pytest.mark.parametrize("at", range(0, 44, 2))
@BOTH
def test_a_server_that_goes_away_at_any_instant_costs_nothing(
    machine: Machine, plain: Any, at: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    left, away, said = [at], [False], list[str]()

    def failing(name: str) -> Callable[..., Any]:
        whole = getattr(MemoryFileSystem, name)

        def call(self: Any, path: str, *rest: Any, **how: Any) -> Any:
            if name == "rm_file" or "wb" in (how.get("mode"), *rest):
                left[0] -= 1
                away[0] |= left[0] < 0
            if away[0]:
                raise OSError("the server does not answer")
            return whole(self, path, *rest, **how)

        return call

    store = machine("a")
    with monkeypatch.context() as patched:
        patched.setattr(place, "_AT_ONCE", 1)
        for name in ("open", "rm_file", "info", "find", "cat_file"):
            patched.setattr(MemoryFileSystem, name, failing(name))
        try:
            handmade.written(store)
        except MoescopeError as error:
            said.append(str(error))
    assert all("the server does not answer" in sentence for sentence in said)
    other = machine("b")  # sees the record up to some shard, or nothing
    if other.exists():
        with moescope.open(other) as opened:
            assert opened.aside == ()
            (count,) = opened.rows("select count(*) from assignments")
            assert count in [(0,), (8,), (16,)]
    assert machine("a") == store
    gone_on_with(store)
    assert record(machine("a")) == plain
    assert record(machine("c")) == plain


def test_another_machine_goes_on_with_a_run_and_both_cannot(machine: Machine, plain: Any) -> None:
    first = handmade.written(machine("a"), batches=1, close=False)
    store = machine("b")
    writer = RunWriter.resume(store, unfinished(store)[0])
    assert writer._shard == 1
    handmade.batch(writer, 1)
    writer.commit({"batches": 2, "sequences": 2, "total": 2, "by": "b"})
    machine("a")
    handmade.batch(first, 1)
    with pytest.raises(StoreError, match=r"shard-000001 already.* goes on with the same run"):
        first.commit({"batches": 2, "sequences": 2, "total": 2, "by": "a"})
    machine("b")
    writer.close(handmade.FINAL, PROGRESS)
    assert record(machine("c")) == plain


def test_two_machines_add_runs_to_one_store(machine: Machine, form: str) -> None:
    one = handmade.written(machine("a"), close=False)
    handmade.written(machine("b"), name="of b")
    machine("a")
    one.close(handmade.FINAL, PROGRESS)
    with moescope.open(machine("c")) as opened:
        assert opened.rows("select run, name, tokens, assignments from runs order by run") == [
            (0, "of b", 4, 16),
            (1, "by hand", 4, 16),
        ]


def test_a_shard_that_is_put_in_part_does_not_count(machine: Machine, form: str) -> None:
    handmade.written(machine("a"), close=False)
    system = fsspec.filesystem("memory")
    system.rm_file(next(name for name in there() if name.endswith("shard-000001/progress.json")))
    with moescope.open(machine("b")) as opened:
        assert opened.rows("select count(*) from assignments") == [(8,)]
    system.rm_file(next(name for name in there() if name.endswith("shard-000000/routes_2.parquet")))
    with moescope.open(machine("c")) as opened:
        assert "shard-000000: routes_2.parquet cannot be read" in str(opened.aside[0])


def test_what_is_cleared_from_this_machine_comes_back(machine: Machine, plain: Any) -> None:
    store = handmade.written(machine("a")).store
    for file in [*store.parent.rglob("*.parquet"), store]:
        file.unlink(missing_ok=True)
    for part in store.parent.glob("*.parts/*"):
        shutil.rmtree(part)
    before = there()
    assert record(machine("a")) == plain
    handmade.written(machine("a"), name="second")
    assert {name for name in before if ".parts" in name} <= set(there())


def test_a_shard_that_was_not_put_gives_way_to_what_another_machine_made(
    machine: Machine, plain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = handmade.written(machine("a"), batches=1, close=False)
    handmade.batch(first, 1)
    handmade.batch(first, 0)  # it cut the data elsewhere
    with monkeypatch.context() as patched:
        patched.setattr(place.Place, "put", lambda *_: (_ for _ in ()).throw(StoreError("away")))
        with pytest.raises(StoreError, match="away; nothing is lost: what was traced waits in"):
            first.commit(PROGRESS)
    assert (first.part.path / "shard-000001").is_dir()
    first.release()
    gone_on_with(machine("b"))
    assert record(machine("b")) == plain
    assert record(machine("a")) == plain


@BOTH
def test_what_is_removed_is_removed_there(machine: Machine, plain: Any, form: str) -> None:
    handmade.written(machine("a"))
    reader = moescope.open(machine("b"))
    pack(machine("a"))
    assert [name for name in there() if not name.endswith("/store.duckdb")] == []
    reader.close()
    assert record(machine("b")) == plain or form == "apart"  # of which apart says nothing any more
    with moescope.open(machine("b")) as opened:
        assert opened.rows("select count(*) from assignments") == [(16,)]
    reset_store(machine("b"))
    with moescope.open(machine("a")) as opened:
        assert opened.rows("select count(*) from runs") == [(0,)]


class Hub(MemoryFileSystem):
    """Data sets of a hub in memory: written by commits alone."""

    protocol = "hub"
    commits: list[list[str]] = []  # noqa: RUF012

    def __init__(self, **_: Any) -> None:
        super().__init__()
        self._api = self

    def open(self, path: str, mode: str = "rb", **how: Any) -> Any:
        assert mode == "rb", "a commit for each file"
        return super().open(path, mode, **how)

    def create_repo(self, name: str, repo_type: str, private: bool, exist_ok: bool) -> None:
        assert (repo_type, private, exist_ok) == ("dataset", True, True)

    def create_commit(self, name: str, operations: list[Any], commit_message: str, repo_type: str) -> None:
        Hub.commits.append([operation.path_in_repo for operation in operations])
        for operation in operations:
            path = f"/datasets/{name}/{operation.path_in_repo}"
            if hasattr(operation, "path_or_fileobj"):
                with super().open(path, "wb") as file:
                    file.write(Path(operation.path_or_fileobj).read_bytes())
            elif self.exists(path):
                self.rm_file(path)


def test_a_data_set_of_the_hub_gets_a_commit_for_each_shard(
    machine: Machine, plain: Any, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.HfFileSystem", Hub)
    place._system.cache_clear()
    Hub.commits.clear()
    address = "hf://datasets/owner/name/olmoe"
    handmade.written(machine("a", address))
    shards = [sorted({name.rpartition("/")[0][-12:] for name in commit if "/shard-" in name}) for commit in Hub.commits]
    assert [found for found in shards if found][:2] == [["shard-000000"], ["shard-000001"]]
    assert record(machine("b", address)) == plain
    place._system.cache_clear()


def test_what_is_written_about_a_store_lies_in_the_working_folder(
    machine: Machine, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handmade.written(machine("a"))
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["report", ADDRESS])
    assert (done.exit_code, done.stdout) == (0, "run.html\n"), done.output
    page = (tmp_path / "run.html").read_text("utf-8")
    assert "run. Run 0:" in page
    assert str(tmp_path) not in page


def test_where_nothing_may_be_put_is_said_before_anything_is_made(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    store = machine("denied", "memory://other/run")
    with monkeypatch.context() as patched:
        patched.setattr(MemoryFileSystem, "pipe_file", lambda *_, **__: (_ for _ in ()).throw(OSError("ACCESS_DENIED")))
        with pytest.raises(StoreError, match=r"^memory://other/run does not take what is written to it \(access is denied; "):
            check_target(store)
    check_target(store)
    assert fsspec.filesystem("memory").find("/other") == []


BAD = {
    "memory://": "names no folder; say memory://BUCKET/FOLDER",
    "memory://a/../b": "names no folder; say memory://BUCKET/FOLDER",
    "hf://owner/name": "is no data set of the hub; say hf://datasets/OWNER/NAME",
    "memory://bucket/nothing": "there is no store memory://bucket/nothing; make one with: moescope trace MODEL --data DATA",
}


@pytest.mark.parametrize("address", BAD)
@pytest.mark.parametrize("command", [["sql", "{}", "select 1"], ["analyze", "load", "{}"], ["verify", "{}"], ["info", "{}"]])
def test_a_wrong_address_is_one_sentence(machine: Machine, address: str, command: list[str]) -> None:
    machine("a")
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("click.echo", lambda text="", **_: said.append(str(text)))
        asked = [part.format(address) for part in command]
        assert guarded(lambda _: main.main(asked, standalone_mode=False)) == (1 if "no store" in BAD[address] else 2)
    assert len(said) == 1
    assert BAD[address] in said[0]
