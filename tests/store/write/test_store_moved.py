"""A run that is packed, and joined to a store elsewhere: it is whole there, or nothing of it is."""

import io
import json
import tarfile
from pathlib import Path

import handmade
import pytest
from tracing import tiny

import moescope
from moescope.errors import StoreError
from moescope.store.connect import connect
from moescope.store.write.many.moved import FINAL, Aside, join_packed, packed
from moescope.store.write.unfinished_run import UnfinishedRun, unfinished_runs
from moescope.tracer import Tracer


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A run of a tiny model, packed."""
    import torch

    store = tmp_path_factory.mktemp("aside") / "scratch.duckdb"
    with Tracer(tiny(), store, writes=Aside, run={"name": "tiny"}) as tracer, torch.no_grad():
        tracer.model(torch.tensor([[3, 4, 5]]))
    assert tracer.run == -1
    with connect(store) as con:
        assert con.execute("select count(*) from base.main.runs").fetchall() == [(0,)]
    (part,) = unfinished_runs(store)
    return packed(part)


def test_it_joins_a_store_once_under_the_name_that_is_given(whole: bytes, tmp_path: Path) -> None:
    store = tmp_path / "kept.duckdb"
    handmade.written(store)
    assert join_packed(store, whole, "mine") == 1
    assert join_packed(store, whole, "again") == 1
    with moescope.open(store) as opened:
        assert opened.rows("select run, name, status, tokens, decisions from runs where run = 1") == [
            (1, "mine", "complete", 3, 6)
        ]
    assert join_packed(tmp_path / "new.duckdb", whole) == 0
    assert not (tmp_path / "kept.duckdb.parts").exists()


def changed(data: bytes, spoil: str) -> bytes:
    """The tar with one thing wrong."""
    held = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(data)) as old, tarfile.open(fileobj=held, mode="w") as new:
        for member in old.getmembers():
            content = old.extractfile(member).read()
            if spoil == "cut" and member.name.endswith("routes_2.parquet"):
                content = content[:-20]
            if spoil == "gone" and member.name.endswith("progress.json"):
                continue
            if spoil == "head" and member.name == "head.json":
                content = json.dumps({"run": {}}).encode()
            if spoil == "final" and member.name == FINAL:
                continue
            member.name = "../../escaped" if spoil == "outside" and member.name.endswith("tokens.parquet") else member.name
            member.size = len(content)
            new.addfile(member, io.BytesIO(content))
    return held.getvalue()


@pytest.mark.parametrize("spoil", ["cut", "gone", "head", "final", "outside", "no tar"])
def test_what_is_not_whole_is_refused_and_nothing_stays(spoil: str, whole: bytes, tmp_path: Path) -> None:
    store = tmp_path / "kept.duckdb"
    handmade.written(store)
    before = store.read_bytes()
    with pytest.raises(StoreError) as error:
        join_packed(store, b"hello" if spoil == "no tar" else changed(whole, spoil))
    assert "\n" not in str(error.value)
    assert store.read_bytes() == before
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["kept.duckdb"]


def test_a_store_that_cannot_be_written_refuses(whole: bytes, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no folder"):
        join_packed(tmp_path / "nowhere" / "kept.duckdb", whole)
    with pytest.raises(StoreError, match="is not as it was written"):
        packed(UnfinishedRun(tmp_path))
