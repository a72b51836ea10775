"""The recorder inside an engine, on an engine whose every decision is known: no vLLM is needed for this."""

import json
import logging
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_vllm
import numpy as np
import pytest
import torch
from fake_vllm import LAYERS, Asked, Engine, decision, recorded, requests, worker

import moescope
from moescope.engines import recorder as room
from moescope.engines.buffers import Buffers
from moescope.engines.ledger import CACHED, REJECTED, TWICE
from moescope.engines.step import Sampled
from moescope.engines.vllm import attach
from moescope.importers._core.captured import Captured
from moescope.store.integrity.verify import verify


class Collected(list[Captured]):
    """What would go to the store."""


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch) -> Collected:
    """Sequences are held here and reach no store."""
    found = Collected()
    monkeypatch.setattr(room.Recorder, "_keep", lambda self, one: found.append(one))
    return found


def is_true(one: Captured, asked: Asked) -> None:
    """Tokens, and every decision of every token that was forwarded for the request; none of any other."""
    assert one.tokens is not None
    assert one.weights is not None
    assert (one.request, one.prompt, one.tokens.tolist()) == (asked.name, len(asked.prompt), asked.told)
    there = {one.start + int(n) for n in np.flatnonzero((one.experts >= 0).all(axis=(1, 2)))}
    assert there == asked.seen
    for place in there:
        for router, layer in enumerate(LAYERS):
            experts, weights = decision(layer, tuple(asked.tokens[: place + 1]))
            assert one.experts[place - one.start, router].tolist() == experts.tolist()
            assert one.weights[place - one.start, router].tolist() == weights.tolist()


HOW = [
    {"v2": v2, "waits": waits, "guessing": guessing}
    for v2, waits in ((False, False), (False, True), (True, True)) for guessing in (False, True)
]  # fmt: skip


@pytest.mark.parametrize("how", HOW, ids=lambda how: "-".join(name for name, on in how.items() if on) or "plain")
def test_every_token_has_the_decisions_of_its_own_past(how: dict[str, bool], tmp_path: Path, collected: Collected) -> None:
    """Chunks, several requests at once, prefix caches, requests that are put back, guesses that are wrong."""
    tallies: set[str] = set()
    for seed in range(6):
        collected.clear()
        asked = requests(8, seed)
        watch = recorded(tmp_path, worker(how["v2"], how["waits"]), asked, seed, guessing=how["guessing"])
        assert sorted(str(one.request) for one in collected) == sorted(one.name for one in asked)
        for one in collected:
            is_true(one, next(own for own in asked if own.name == one.request))
        tallies |= watch.recorder.ledger.tallies.keys()
        assert watch.recorder.ledger.names == []
        assert not watch.recorder.ledger.silent.any()
    assert tallies == {CACHED, TWICE} | ({REJECTED} if how["guessing"] else set())


def test_requests_that_are_aborted_are_kept_as_far_as_they_were_forwarded(tmp_path: Path, collected: Collected) -> None:
    """In the middle of a prompt, of an answer, and while they are computed again."""
    aborted = 0
    for seed in range(12):
        collected.clear()
        asked = requests(8, seed)
        recorded(tmp_path, worker(waits=True), asked, seed, aborting=True)
        aborted += sum(not one.done for one in asked)
        assert sorted(str(one.request) for one in collected) == sorted(one.name for one in asked if one.seen)
        for one in collected:
            is_true(one, next(own for own in asked if own.name == one.request))
    assert aborted > 20


def test_guesses_are_told_from_what_is_forwarded_next(tmp_path: Path, collected: Collected) -> None:
    """Where an engine does not say what was sampled, what is kept is a true part, and the latest guesses are left out."""
    asked = requests(8, 0)
    made = worker()
    made.model_runner.sample_tokens = lambda grammar: None
    recorded(tmp_path, made, asked, guessing=True)
    assert len(collected) == 8
    for one in collected:
        own = next(own for own in asked if own.name == one.request)
        assert one.tokens is not None
        assert one.tokens.tolist() == own.tokens[: len(one.tokens)]
        own.tokens, own.tail = own.tokens[: len(one.tokens)], False
        own.seen = {place for place in own.seen if place < one.start + one.rows}
        is_true(one, own)


def test_a_run_is_whole_sound_and_says_what_it_lacks(tmp_path: Path) -> None:
    asked = requests(6, 3)
    asked[0].label = "domain=code, team=a"
    made = worker()
    watch = recorded(tmp_path, made, asked, caching=False)
    assert (watch.recorder.kept, watch.recorder.lost, watch.recorder.runs) == (6, 0, [0])
    with moescope.open(tmp_path / "a.duckdb") as store:
        assert [check.rule for check in verify(store) if check.broken] == []
        run = store.sql("select * from runs").to_dicts()[0]
        assert (run["status"], run["name"], run["device"], run["sequences"]) == ("complete", "engine", "cpu", 6)
        said = json.loads(run["warnings"])
        assert said[0].startswith("recorded inside vLLM unknown, live: what its routers returned; nothing could be proved")
        assert any("computed again for requests that were put back" in text for text in said)
        labels = store.sql("select kind, label from sequence_labels order by all").fetchall()
        assert labels == [("domain", "code"), ("team", "a")]
        found = store.sql(
            "select document, t.position, r.layer, rank, expert, weight from assignments a join tokens t using (token) "
            "join sequences s using (sequence) join routers r on r.router = a.router order by all"
        ).fetchall()
    assert found == sorted(_expected(asked))


def test_what_a_client_calls_a_request_spoils_no_run(tmp_path: Path) -> None:
    """Names and labels are strings of any kind."""
    asked = [Asked("r\x00\ud800", [1, 2, 3], 2, "domain=a\x00b\ud800, \u202e=c" + "d" * 5000), Asked("plain", [4, 5], 1)]
    watch = recorded(tmp_path, worker(), asked, caching=False, preempting=False)
    assert (watch.recorder.kept, watch.recorder.lost, watch.recorder.runs) == (2, 0, [0])
    with moescope.open(tmp_path / "a.duckdb") as store:
        assert store.sql("select document from sequences order by all").fetchall() == [
            ("engine:plain",), ("engine:r\\x00\\ud800",),
        ]  # fmt: skip
        assert store.sql("select label from sequence_labels where kind = 'domain'").fetchall() == [("a\\x00b\\ud800",)]


def _expected(asked: list[Asked]) -> list[tuple[Any, ...]]:
    rows = []
    for one in asked:
        for place in sorted(one.seen):
            for layer in LAYERS:
                experts, weights = decision(layer, tuple(one.tokens[: place + 1]))
                order = np.argsort(-weights, kind="stable")
                pairs = zip(range(fake_vllm.TOP_K), experts[order].tolist(), weights[order].tolist())
                rows += [(f"engine:{one.name}", place, layer, *pair) for pair in pairs]
    return rows


def test_a_router_that_wrote_nothing_is_reported_and_has_no_decision(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The buffer still held the rows of the forward before."""
    asked = [Asked("a", [1, 2, 3], 2), Asked("b", [4, 5, 6], 2)]
    made = worker()
    watch = attach.attached(made, str(tmp_path / "a.duckdb"))
    assert watch is not None
    Engine(made, asked[:1], 0, caching=False, preempting=False).run()
    made.model_runner.silent = {2}
    with caplog.at_level(logging.WARNING, "vllm.moescope"):
        Engine(made, asked[1:], 0, caching=False, preempting=False).run()
        made.shutdown()
    assert [r.getMessage() for r in caplog.records] == [
        "moescope: layer 2 ran a forward in which its router wrote nothing down"
    ]
    with moescope.open(tmp_path / "a.duckdb") as store:
        sql = (
            "select document, r.layer, count(*) from decisions join tokens using (token) join sequences using (sequence) "
            "join routers r using (router) group by all order by all"
        )
        found = store.sql(sql).fetchall()
        warnings = store.sql("select warnings from runs").to_dicts()[0]["warnings"]
    assert found == [("tiny:a", 0, 4), ("tiny:a", 2, 4), ("tiny:a", 3, 4), ("tiny:b", 0, 4), ("tiny:b", 3, 4)]
    assert any(text.startswith("layer 2: in ") and "wrote nothing down" in text for text in json.loads(warnings))


class _Commit(Sampled):
    """Where the thread comes to it, everything so far is committed."""

    recorder: room.Recorder
    done = threading.Event()

    def pairs(self) -> list[Any]:
        self.recorder._commit()
        self.done.set()
        return []


def test_a_store_that_fails_fails_no_request_and_leaves_what_was_committed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moescope.store import RunWriter

    asked = requests(6, 1)
    made = worker()
    watch = attach.attached(made, str(tmp_path / "a.duckdb"))
    assert watch is not None
    Engine(made, asked[:3], 0).run()
    committed = _Commit([], [])
    committed.recorder = watch.recorder
    watch.recorder.put(committed)
    assert committed.done.wait(60)

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    with caplog.at_level(logging.WARNING, "vllm.moescope"), monkeypatch.context() as broken:
        broken.setattr(RunWriter, "commit", full)
        broken.setattr(RunWriter, "close", full)
        Engine(made, asked[3:], 0).run()
        made.shutdown()
    assert all(one.done for one in asked)
    assert (watch.recorder.kept, watch.recorder.lost, watch.recorder.runs) == (3, 3, [])
    assert any("the disk is full" in r.getMessage() and "requests go on" in r.getMessage() for r in caplog.records)
    from click.testing import CliRunner

    from moescope.cli import main

    CliRunner().invoke(main, ["recover", str(tmp_path / "a.duckdb")], standalone_mode=False, catch_exceptions=False)
    with moescope.open(tmp_path / "a.duckdb") as store:
        run = store.sql("select status, sequences, warnings from runs").to_dicts()
    assert [(one["status"], one["sequences"]) for one in run] == [("interrupted", 3)]
    assert json.loads(run[0]["warnings"])[0].startswith("recorded inside vLLM")
    assert not list(tmp_path.glob("a.duckdb.parts/*/*.tmp"))


def test_forwards_that_the_store_cannot_follow_cost_their_requests_alone(
    tmp_path: Path, collected: Collected, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests of which a forward was lost are not kept half."""
    monkeypatch.undo()
    monkeypatch.setattr(attach, "_first_rank", lambda: True)
    made, asked = worker(), [Asked("a", [1] * 30, 2), Asked("b", [2, 3], 2)]
    watch = attach.attached(made, str(tmp_path / "a.duckdb"))
    assert watch is not None
    Engine(made, asked[:1], 0, caching=False, preempting=False).run()
    watch.recorder._gone.add("b")
    Engine(made, asked[1:], 0, caching=False, preempting=False).run()
    made.shutdown()
    assert (watch.recorder.kept, watch.recorder.lost) == (1, 1)


@pytest.mark.parametrize(
    ("parallel", "word"),
    [
        ({"pipeline_parallel_size": 2}, "pipeline parallelism"),
        ({"data_parallel_size": 2}, "data parallelism"),
        ({"decode_context_parallel_size": 2}, "context parallelism"),
        ({"enable_dbo": True}, "two batches at once"),
        ({"use_sequence_parallel_moe": True}, "sequence-parallel experts"),
    ],
)
def test_what_cannot_be_recorded_is_said_and_served(
    parallel: dict[str, Any], word: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made, asked = worker(**parallel), requests(2, 0)
    with caplog.at_level(logging.ERROR, "vllm.moescope"):
        assert attach.attached(made, str(tmp_path / "a.duckdb")) is None
    assert word in caplog.text
    Engine(made, asked, 0).run()
    assert all(one.done for one in asked)
    assert list(tmp_path.iterdir()) == []


def _monolithic(made: Any) -> None:
    modules = made.model_runner.get_model().modules()
    modules[1]._quant_method = type("Fused", (), {"is_monolithic": True})()
    made.model_runner.get_model = lambda: type("M", (), {"modules": lambda self: modules})()


def _no_decision(made: Any) -> None:
    made.model_runner.routers[0]._compute_routing = None


def _unlike(made: Any) -> None:
    made.model_runner.routers[0].top_k = 2


def _no_router(made: Any) -> None:
    made.model_runner.routers.clear()


@pytest.mark.parametrize(
    ("spoil", "word"),
    [(_monolithic, "routes by itself"), (_no_decision, "no decision"), (_unlike, "not alike"), (_no_router, "no router")],
)
def test_a_model_that_cannot_be_recorded_is_said(
    spoil: Any, word: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = worker()
    spoil(made)
    with caplog.at_level(logging.ERROR, "vllm.moescope"):
        assert attach.attached(made, str(tmp_path / "a.duckdb")) is None
    assert word in caplog.text
    assert "it serves as ever" in caplog.text


@pytest.mark.parametrize("copied", [False, True])
def test_a_row_that_repeats_is_told_from_a_router_that_always_chooses_alike(
    copied: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The second has weights of its own in every row."""
    true = fake_vllm.logits

    def alike(layer: int, past: tuple[int, ...]) -> Any:
        return true(layer, ()) * np.float32(1 if copied else 1 + abs(true(layer, past)[0]))

    monkeypatch.setattr(fake_vllm, "logits", alike)
    with caplog.at_level(logging.WARNING, "vllm.moescope"):
        watch = recorded(tmp_path, worker(), [Asked("a", list(range(20)), 2)], caching=False, preempting=False)
    assert (watch.recorder.kept, watch.recorder.lost) == ((0, 1) if copied else (1, 0))
    assert ("chose the same experts in every layer" in caplog.text) == copied


def test_a_place_that_is_no_store_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "vllm.moescope"):
        assert attach.attached(worker(), str(tmp_path / "no" / "a.duckdb")) is None
        assert attach.attached(worker(), str(tmp_path)) is None
    assert "there is no folder" in caplog.text
    assert "is a folder" in caplog.text


class _Unknown:
    """A tensor of another kind."""

    def __getitem__(self, key: object) -> Any:
        return self

    def __setitem__(self, key: object, value: object) -> None:
        pass


def test_an_engine_that_says_other_things_than_expected_ends_the_recording_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made, asked = worker(), requests(3, 0)
    watch = attach.attached(made, str(tmp_path / "a.duckdb"))
    assert watch is not None
    made.model_runner.input_ids = SimpleNamespace(gpu=_Unknown())
    with caplog.at_level(logging.ERROR, "vllm.moescope"):
        Engine(made, asked, 0).run()
        made.shutdown()
    assert all(one.done for one in asked)
    assert [r.getMessage().split("(")[0] for r in caplog.records] == ["moescope stops recording "]


@pytest.mark.parametrize("place", [0, 2])
def test_what_was_forwarded_behind_a_token_that_ends_is_cut_off(place: int, tmp_path: Path, collected: Collected) -> None:
    """Engines that do not wait for their tokens forward one more."""
    one = Asked("a", [1, 2, 3], 5)
    tokens = [1, 2, 3]
    for _ in range(5):
        tokens.append(fake_vllm.following(tuple(tokens)))
    one.stops = [tokens[3 + place]]
    recorded(tmp_path, worker(waits=True), [one], caching=False, preempting=False)
    (found,) = collected
    assert found.tokens is not None
    first = 3 + tokens[3:].index(one.stops[0])
    assert found.tokens.tolist() == tokens[: first + 1]
    assert found.rows <= first + 1


@pytest.mark.parametrize("compiled", [False, True])
def test_buffers_are_poisoned_and_do_not_move(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows beyond those of a forward, ids of another type, more columns than the router chooses, a scale."""
    buffers = Buffers(2, 4, 2, "cpu", 8)
    place = buffers.ids.data_ptr(), buffers.weights.data_ptr()
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiled)
    given = torch.arange(54.0, dtype=torch.bfloat16).reshape(6, 9)
    buffers.write(1, torch.tensor([[0.5, 0.25, 9.0]] * 6), torch.tensor([[7, 3, 99]] * 6, dtype=torch.int64), given)
    ids, weights, beside = buffers.snapshot(3, {"input_ids": torch.arange(5)}).arrays()
    assert ids.tolist() == [[[-1, -1]] * 3, [[7, 3]] * 3]
    assert weights[1].tolist() == [[0.5, 0.25]] * 3
    assert buffers.logits[1].tolist() == given[:4, :8].tolist()
    assert beside["input_ids"].tolist() == [0, 1, 2, 3, 4]
    buffers.poison(2)
    assert buffers.ids[1].tolist() == [[-1, -1], [-1, -1], [7, 3], [7, 3]]
    assert ids[1].tolist() == [[7, 3]] * 3  # what was copied stays
    assert place == (buffers.ids.data_ptr(), buffers.weights.data_ptr())
