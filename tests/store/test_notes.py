"""Notes beside a store: kept whole, found again in copies and merged stores, and a broken file tolerated."""

import json
from pathlib import Path

import pytest
from recounted import Truth, written

import moescope
from moescope.errors import StoreError
from moescope.store import notes


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("notes") / "a.duckdb", Truth(1))


@pytest.fixture(autouse=True)
def _fresh(store: Path) -> None:
    notes.file_of(store).unlink(missing_ok=True)


def test_a_note_is_kept_changed_and_taken_away(store: Path) -> None:
    before = store.read_bytes()
    with moescope.open(store) as opened:
        expert, title = notes.expert(opened, 2, 1)
        token, of = notes.token(opened, 7)
    assert (title, of.startswith("token ")) == ("expert 1 of decoder layer 1", True)
    assert notes.read(store) == []
    notes.write(store, expert, title, " maths, I think \n")
    notes.write(store, token, of, "odd ✓")
    assert {note.text for note in notes.read(store)} == {"maths, I think", "odd ✓"}
    assert notes.text(notes.read(store), expert) == "maths, I think"
    assert notes.text(notes.read(store), expert | {"expert": 2}) == ""
    notes.write(store, expert, title, "law")
    assert notes.text(notes.read(store), expert) == "law"
    notes.write(store, expert, title, "  ")
    assert [note.text for note in notes.read(store)] == ["odd ✓"]
    assert sorted(p.name for p in store.parent.iterdir()) == ["a.duckdb", "a.duckdb.notes.json"]
    assert store.read_bytes() == before  # never in the store


BAD = ["", "{", "[]", '{"notes": 3}', '{"notes": [{"text": "x"}]}', '{"notes": [1]}', "\x00\xff"]


@pytest.mark.parametrize("bad", BAD)
def test_a_broken_file_is_said_and_left_alone(bad: str, store: Path) -> None:
    notes.file_of(store).write_text(bad)
    with pytest.raises(StoreError, match="cannot be read") as said:
        notes.read(store)
    assert "\n" not in str(said.value)
    with pytest.raises(StoreError, match="cannot be read"):
        notes.write(store, {"uid": "u"}, "t", "words")
    assert notes.file_of(store).read_text() == bad


def test_bounds(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoreError, match="write at most 2000"):
        notes.write(store, {"uid": "u"}, "t", "x" * 2001)
    monkeypatch.setattr(notes, "MOST", 1)
    notes.write(store, {"uid": "u"}, "t", "one")
    with pytest.raises(StoreError, match="take some away"):
        notes.write(store, {"uid": "v"}, "t", "two")
    notes.write(store, {"uid": "u"}, "t", "instead")
    assert json.loads(notes.file_of(store).read_text())["notes"][0]["text"] == "instead"
