"""Data that is streamed: the record of data that is held, drawn no further ahead than a batch or a group of them."""

import json
import weakref
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tracing
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from small import mixtral

import moescope
from moescope.cli import main
from moescope.errors import InputError, StoreError
from moescope.inputs import Example
from moescope.models.loading import load
from moescope.tracer import Options
from moescope.tracer.data.batching import _ahead, _by_tokens
from moescope.tracer.data.windows import Window
from moescope.tracer.sequences.token_rows import SequenceInfo

SETTINGS: dict[str, Any] = {"max_length": 9, "options": Options(commit_rows=1)}
WAYS: list[dict[str, Any]] = [{"batch_size": 4}, {"batch_tokens": 24}]
NOTE = (
    "sequences are numbered as they ran, of those that were drawn together the shorter first: source, source_row and part say "
    "the order of the data"
)


@pytest.fixture(scope="module")
def model() -> Any:
    return mixtral()


@pytest.fixture(autouse=True)
def _small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moescope.tracer.data.batching.AHEAD", 3)


@pytest.fixture(scope="module", params=WAYS, ids=str)
def held(request: pytest.FixtureRequest, model: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Any]:
    """A way of making batches, and what is told of rows that are held and traced in it."""
    store = tmp_path_factory.mktemp("held") / "a.duckdb"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("moescope.tracer.data.batching.AHEAD", 3)
        moescope.trace(model, rows(), store, **request.param, **SETTINGS)
    assert (NOTE in warnings(store)) == ("batch_tokens" in request.param)
    return request.param, tracing.told(store)


def rows(size: int = 60, seed: int = 0) -> list[dict[str, Any]]:
    random = np.random.default_rng(seed)
    return [{"input_ids": random.integers(3, 90, random.integers(1, 16)).tolist(), "kind": f"k{n % 3}"} for n in range(size)]


def warnings(store: Path) -> list[str]:
    with moescope.open(store) as opened:
        return json.loads(opened.rows("select warnings from runs order by run desc limit 1")[0][0] or "[]")


@pytest.mark.sampled(1)
def test_the_same_record(tmp_path: Path, model: Any, held: tuple[dict[str, Any], Any]) -> None:
    """Row by row, with windows of long rows; all of the data is there, and its order is said."""
    way, told = held
    moescope.trace(model, iter(rows()), tmp_path / "a.duckdb", stream=True, **way, **SETTINGS)
    assert tracing.differences(tmp_path / "a.duckdb", told) == {}
    with moescope.open(tmp_path / "a.duckdb") as store:
        found = store.rows(
            "select source_row, list(vocab_id order by part, position) from sequences join tokens using (sequence) group by 1 "
            "order by 1"
        )
        assert found == [(n, row["input_ids"]) for n, row in enumerate(rows())]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_no_more_is_held_than_is_drawn_together(tmp_path: Path, model: Any, way: dict[str, Any]) -> None:
    """Of an endless stream: what was drawn and has not run is at most a group of batches, and no row outlives its windows."""
    alive: list[weakref.ref[np.ndarray]] = []
    drawn, begun, ahead, most_alive = [0, 0], [0], [0], [0]  # rows and tokens

    def endless() -> Iterator[dict[str, Any]]:
        for n in count():
            ids = np.arange(3, 6 + n % 11)
            alive.append(weakref.ref(ids))
            drawn[0], drawn[1] = drawn[0] + 1, drawn[1] + len(ids)
            most_alive[0] = max(most_alive[0], sum(one() is not None for one in alive))
            ahead[0] = max(ahead[0], drawn[1] - begun[0])
            yield {"input_ids": ids}

    def report(far: dict[str, Any]) -> None:
        begun[0] = far["place"]["tokens"]  # before the group that runs

    moescope.trace(model, endless(), tmp_path / "a.duckdb", stream=True, report=report, limit=300, **way)
    together = 24 * 3 + 13 if "batch_tokens" in way else 4 * 13
    assert drawn[0] == 300
    assert ahead[0] <= 2 * together  # the group that runs, and the one that is drawn next
    assert most_alive[0] <= 3


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 6)), min_size=1, max_size=60), st.integers(1, 64))
def test_batches_by_tokens(lengths: list[tuple[int, int]], most: int) -> None:
    """Every window once; no batch has more places than were asked for, unless it is a single window; sorted within a group."""
    windows = [Window(SequenceInfo(row=n), [1] * own, None, [1] * other) for n, (own, other) in enumerate(lengths)]
    left, seen = iter(windows), []
    while group := _ahead(left, most):
        assert sum(map(len, group)) < 3 * most + 46
        for batch in _by_tokens(group, most):
            places = len(batch) * (max(len(w.ids or ()) for w in batch) + max(len(w.decoder_ids or ()) for w in batch))
            assert len(batch) == 1 or places <= most
            seen += batch
        assert [len(w) for w in group] == sorted(len(w) for w in group)
    assert sorted(w.info.row for w in seen) == list(range(len(windows)))


def cut_off(data: Any, after: int) -> Iterator[Any]:
    for number, row in enumerate(data):
        if number == after:
            raise KeyboardInterrupt
        yield row


@pytest.mark.sampled(1)
def test_going_on_at_the_same_place(tmp_path: Path, model: Any, held: tuple[dict[str, Any], Any]) -> None:
    """Interrupted while rows are drawn; then with other data, then twice with the same; complete, it is left alone."""
    (way, told), store, same, changed = held, tmp_path / "a.duckdb", rows(), [{"input_ids": [7, 7, 7]}, *rows()[1:]]

    def go_on(data: Any, resume: bool = True) -> int:
        return moescope.trace(model, iter(data), store, stream=True, resume=resume, **way, **SETTINGS)

    for after in (37, 50):
        with pytest.raises(KeyboardInterrupt):
            go_on(cut_off(same, after), resume=after > 37)
        with moescope.open(store) as opened:
            assert opened.rows("select status from runs") == [("interrupted",)]
            assert 0 < json.loads(opened.rows("select progress from runs")[0][0])["place"]["examples"] < after
        with pytest.raises(InputError, match="examples of inputs are not those that were traced"):
            go_on(changed)
    assert go_on(same) == 0
    assert tracing.differences(store, told) == {}
    assert go_on(same) == 0
    for other in (changed, same[:-1], [*same, same[0]]):
        with pytest.raises(StoreError, match=r"run 0 of .* is of a stream that held something else"):
            go_on(other)
    assert [p.name for p in tmp_path.iterdir()] == ["a.duckdb"]


def written(path: Path, bad: dict[int, str]) -> Path:
    path.write_text("".join(f"{bad.get(n, json.dumps(row))}\n" for n, row in enumerate(rows())))
    return path


BAD = {20: "[1, 2]", 41: '{"input_ids": [200, 3]}'}
SAID = {
    20: "a.jsonl, line 21 is a JSON list: write one object per line",
    41: "a.jsonl, row 41 holds id 200, but MixtralForCausalLM embeds ids 0 to 96; give ids of its own tokenizer",
}


@pytest.mark.parametrize("streams", [False, True])
def test_bad_rows_are_left_out_and_counted(tmp_path: Path, model: Any, streams: bool) -> None:
    """Of the file, and those that only this model cannot be given: the rest is as if they had never been there."""
    path, good = written(tmp_path / "a.jsonl", BAD), [row for n, row in enumerate(rows()) if n not in BAD]
    moescope.trace(model, good, tmp_path / "good.duckdb", batch_size=4)
    moescope.trace(model, path, tmp_path / "a.duckdb", batch_size=4, stream=streams, reading={"skip_bad": True})
    queries = "select kind, label from sequence_labels order by sequence", "select * from assignments order by all"
    with moescope.open(tmp_path / "a.duckdb") as found, moescope.open(tmp_path / "good.duckdb") as whole:
        assert [found.rows(query) for query in queries] == [whole.rows(query) for query in queries]
        assert [n for (n,) in found.rows("select source_row from sequences order by sequence")] == [
            n for n in range(60) if n not in BAD
        ]
        assert json.loads(found.rows("select progress from runs")[0][0])["left_out"] == 2
    assert f"Bad input left out: 1 in a.jsonl ({SAID[20]})." in warnings(tmp_path / "a.duckdb")
    assert f"1 rows were left out as bad: {SAID[41]}" in warnings(tmp_path / "a.duckdb")


@pytest.mark.sampled(1)
@pytest.mark.parametrize("row", BAD)
def test_what_ran_before_a_bad_row_is_kept(tmp_path: Path, model: Any, row: int) -> None:
    """Of a stream: interrupted, and gone on with by leaving the row out, or behind its repair. Of held data nothing is."""
    path, store = written(tmp_path / "a.jsonl", {row: BAD[row]}), tmp_path / "a.duckdb"
    with pytest.raises(InputError) as caught:
        moescope.trace(model, path, store, batch_size=4)
    assert str(caught.value).rstrip(".") == SAID[row]
    assert not store.exists()
    for repair in (True, False):
        written(path, {row: BAD[row]})
        with pytest.raises(InputError) as caught:
            moescope.trace(model, path, store, batch_size=4, stream=True, overwrite=True)
        assert str(caught.value) == (
            f"{SAID[row]}; the {row // 4 * 4} sequences before it are kept: repair it and go on with --resume, or leave such "
            "rows out with --skip-bad --resume"
        )
        with moescope.open(store) as opened:
            assert opened.rows("select status, sequences from runs") == [("interrupted", row // 4 * 4)]
        if repair:
            written(path, {})
        moescope.trace(model, path, store, batch_size=4, stream=True, resume=True, reading={"skip_bad": not repair})
        with moescope.open(store) as opened:
            assert opened.rows("select status, sequences from runs") == [("complete", 59 + repair)]


def test_max_tokens_count_what_is_left(tmp_path: Path, model: Any) -> None:
    data = [{"input_ids": [3, 200]}, *rows()]
    for number, streams in enumerate((False, True)):
        moescope.trace(model, iter(data), tmp_path / "a.duckdb", max_tokens=9, stream=streams, reading={"skip_bad": True})
        with moescope.open(tmp_path / "a.duckdb") as store:
            ran = store.rows("select source_row, tokens from sequences where run = ? order by 1", [number])
        lengths = [len(row["input_ids"]) for row in rows()]
        assert ran == [(n + 1, size) for n, size in enumerate(lengths) if sum(lengths[:n]) < 9]


def test_the_first_row_is_bad(tmp_path: Path, model: Any) -> None:
    """Nothing is written, and nothing said of what is kept."""
    with pytest.raises(InputError) as caught:
        moescope.trace(model, written(tmp_path / "a.jsonl", {2: BAD[41]}), tmp_path / "a.duckdb", batch_size=4, stream=True)
    assert str(caught.value) == SAID[41].replace("row 41", "row 2")
    assert not (tmp_path / "a.duckdb").exists()


def test_batches_by_tokens_need_tokens(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="batch_tokens counts the tokens of texts, but vmoe reads images: give batch_size"):
        moescope.trace("vmoe", "fashion-mnist", tmp_path / "a.duckdb", batch_tokens=9)
    said = CliRunner().invoke(
        main, ["trace", "mixtral", "--data", "x", "--store", str(tmp_path / "a"), "--batch-size", "2", "--batch-tokens", "9"]
    )
    assert (said.exit_code, "--batch-size and --batch-tokens exclude each other" in said.output) == (2, True)


def test_images_are_streamed(tmp_path: Path) -> None:
    """In groups, as those that are held; one of another shape is said."""
    data = [np.full((28, 28), n, np.uint8) for n in range(11)]
    model, before = load("vmoe"), None
    examples = [Example("made", n, f"{n}", image=image) for n, image in enumerate(data)]
    for name, streams in (("a", False), ("b", True)):
        moescope.trace(model, iter(examples), tmp_path / f"{name}.duckdb", stream=streams)
        with moescope.open(tmp_path / f"{name}.duckdb") as store:
            found = store.rows("select count(*), sum(expert * (token + 1)), any_value(warnings) from assignments, runs")
        assert (found[0][0] > 0, found) == (True, found if name == "a" else before)
        before = found
    examples[5] = Example("made", 5, "5", image=data[5][:14])
    with pytest.raises(
        InputError, match=r"made, row 5 is \(14, 28\) pixels, but images before it \(28, 28\): bring them to one"
    ):
        moescope.trace(model, iter(examples), tmp_path / "c.duckdb", stream=True)
