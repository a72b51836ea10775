"""A trace that several workers make is, row by row, the one that a single process makes; in whatever order, whoever dies."""

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from records import record
from transformers import MixtralConfig, MixtralForCausalLM

import moescope
from moescope.errors import InputError, ModelError
from moescope.models.loading import Loaded, load
from moescope.store.write.many.stretches import Run
from moescope.tracer import Options
from moescope.tracer.many.cut import stretches
from moescope.tracer.many.gather import trace_many
from moescope.tracer.many.processes import Processes
from moescope.tracer.many.worker import Hello, Task, Worker, check_same

TEXTS = [f"{'the red fox saw a dog ' * (n % 5 + 1)}number {n}" for n in range(23)]
LABELLED = [{"text": text, "domain": f"d{n % 3}"} for n, text in enumerate(TEXTS)]
NAMED = [{"text": text, "document": str((n + 7) // 2)} for n, text in enumerate(TEXTS)]


@cache
def loaded(name: str) -> Loaded:
    if name != "texts":
        return load(name)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = MixtralConfig(vocab_size=4096, num_key_value_heads=2, initializer_range=0.2, pad_token_id=0, **sizes)
    return Loaded("texts", MixtralForCausalLM(config).eval(), load("mixtral").tokenizer)


class Killed(BaseException):
    """What a driver that is killed does not hear."""


class Here:
    """Workers in this process, whose turns are drawn; the driver dies behind so many stretches."""

    count = 3

    def __init__(self, task: Task, seed: int = 0, dies: int | None = None) -> None:
        self.task, self.draw, self.dies = task, Random(seed), dies
        self.doing: list[int] = []
        self.made: list[int] = []
        self.run: Run | None = None
        self.workers: list[Worker] = []

    def __enter__(self) -> "Here":
        for _ in range(self.count):
            own = loaded(self.task.model)
            planned = self.task.planned(replace(own, model=copy.deepcopy(own.model)))
            self.workers.append(Worker(planned, self.task.store).__enter__())
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.__exit__(None, None, None)

    def hello(self) -> Hello:
        return self.workers[0].hello()

    def whole(self) -> int | None:
        return self.workers[0].whole()

    def begin(self, run: Run) -> None:
        self.run = run

    def idle(self) -> bool:
        return len(self.doing) < self.count

    def busy(self) -> bool:
        return bool(self.doing)

    def hand(self, number: int) -> None:
        self.doing.append(number)

    def wait(self, seconds: float) -> list[tuple[int, bool]]:
        if self.dies is not None and len(self.made) >= self.dies:
            raise Killed
        assert self.run is not None
        number = self.doing.pop(self.draw.randrange(len(self.doing)))
        there = self.draw.choice(self.workers).make(self.run, number)
        self.made.append(number)
        return [(number, there)]

    def under_way(self) -> tuple[int, int]:
        return 0, 0

    def last_words(self, so_far: Mapping[str, Any]) -> dict[str, Any]:
        return self.draw.choice(self.workers).last_words(so_far)


def many(task: Task, seed: int = 0, dies: int | None = None, **how: Any) -> Here:
    with Here(task, seed, dies) as pool:
        trace_many(task, pool, **how)
    return pool


def alone(task: Task, store: Path) -> None:
    moescope.trace(
        loaded(task.model), task.inputs, store, options=task.options, stream=task.stream, seed=task.seed, **task.plan
    )  # fmt: skip


CASES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "texts": lambda path: {"model": "texts", "inputs": LABELLED, "seed": 3, "plan": {"batch_size": 2}},
    "documents": lambda path: {"model": "texts", "inputs": NAMED, "plan": {"batch_size": 2}},
    "windows": lambda path: {"model": "texts", "inputs": TEXTS, "plan": {"max_length": 7, "batch_size": 3}},
    "tokens": lambda path: {"model": "texts", "inputs": TEXTS, "plan": {"batch_tokens": 40}},
    "enough": lambda path: {"model": "texts", "inputs": TEXTS, "plan": {"batch_size": 2, "max_tokens": 250}},
    "generated": lambda path: {"model": "texts", "inputs": TEXTS, "plan": {"batch_size": 2, "generate": 3, "limit": 11}},
    "stream": lambda path: {"model": "texts", "inputs": jsonl(path), "stream": True, "plan": {"batch_size": 2}},
    "share": lambda path: {"model": "texts", "inputs": TEXTS, "options": Options(logits=0.3), "plan": {"batch_size": 2}},
    "every": lambda path: {"model": "texts", "inputs": TEXTS, "options": Options(every=3), "plan": {"batch_size": 2}},
    "both sides": lambda path: {"model": "switch", "inputs": TEXTS, "plan": {"batch_size": 2, "limit": 9}},
    "images": lambda path: {"model": "vmoe", "inputs": "fashion-mnist", "plan": {"batch_size": 8, "limit": 44}},
}


def jsonl(folder: Path) -> str:
    (folder / "texts.jsonl").write_text("\n".join(json.dumps(row) for row in LABELLED))
    return str(folder / "texts.jsonl")


def task(case: str, folder: Path, name: str = "many") -> Task:
    said = CASES[case](folder)
    options = replace(said.pop("options", Options()), commit_rows=200)
    return Task(store=folder / f"{name}.duckdb", options=options, **said)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("case", CASES)
def test_the_record_is_that_of_one_process(case: str, tmp_path: Path) -> None:
    asked = task(case, tmp_path)
    alone(asked, tmp_path / "one.duckdb")
    pool = many(asked, seed=sorted(CASES).index(case))
    assert len(pool.made) > 3
    assert sorted(pool.made) != pool.made
    one, other = record(tmp_path / "one.duckdb"), record(asked.store)
    assert len(one["assignments"][1]) > 100
    for table in one.keys() | other.keys():
        assert other[table] == one[table], table


def test_what_was_made_before_a_driver_died_is_not_made_again(tmp_path: Path) -> None:
    dies = 5
    asked = task("texts", tmp_path)
    alone(asked, tmp_path / "one.duckdb")
    with pytest.raises(Killed):
        many(asked, seed=1, dies=dies)
    with moescope.open(asked.store) as store:  # watched: what has its place
        assert store.rows("select status from runs") == [("interrupted",)]
    again = many(asked, seed=2, resume=True)
    assert len(again.made) == 12 - dies
    assert record(asked.store) == record(tmp_path / "one.duckdb")
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".duckdb"] == []
    assert many(asked, seed=3, resume=True).made == []  # complete


def test_of_a_driver_that_died_before_anything_was_made_nothing_stays(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        many(task("texts", tmp_path), dies=0)
    with moescope.open(tmp_path / "many.duckdb") as store:
        assert store.rows("from runs") == []
    assert [path.name for path in tmp_path.iterdir()] == ["many.duckdb"]


def test_one_process_goes_on_with_what_workers_made_and_they_with_what_it_made(tmp_path: Path) -> None:
    asked = task("generated", tmp_path)
    alone(asked, tmp_path / "one.duckdb")
    with pytest.raises(Killed):
        many(asked, seed=4, dies=3)
    moescope.trace(loaded("texts"), TEXTS, asked.store, options=asked.options, resume=True, **asked.plan)
    assert record(asked.store) == record(tmp_path / "one.duckdb")
    other = replace(asked, store=tmp_path / "other.duckdb")

    def stop(said: dict[str, Any]) -> None:
        if said["batches"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        moescope.trace(loaded("texts"), TEXTS, other.store, options=asked.options, report=stop, **asked.plan)
    many(other, resume=True)
    theirs, ours = record(other.store), record(tmp_path / "one.duckdb")
    assert theirs == ours


def test_a_stretch_is_made_once_however_often_it_is_asked_for(tmp_path: Path) -> None:
    asked = task("texts", tmp_path)
    with Here(asked) as pool:
        run = Run(tmp_path, 2, {})
        assert [worker.make(run, 1) for worker in pool.workers] == [True] * 3
        made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file() and "stretch-" in str(path)}
        assert {path.parent.name for path in made} == {"stretch-000000002"}
        pool.workers[0].tracer.begin(next(stretch for stretch in stretches(pool.workers[0].planned, run)[1]), first=True)
        pool.workers[0].tracer.writer.finish(run.place(1), {})  # somebody who did not look
        assert {path: path.stat().st_mtime_ns for path in made} == made
        assert not pool.workers[1].make(run, 6)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"options": Options(activations=("importance",))}, "activations are summed up over all tokens"),
        ({"options": Options(every=2), "plan": {"generate": 2}}, "--every chooses a forward by its number in the run"),
        ({"options": Options(logits=0.5), "plan": {"generate": 2}}, "--logits of a share chooses a token by its number"),
    ],
)
def test_what_cannot_be_split_is_one_sentence(how: dict[str, Any], why: str, tmp_path: Path) -> None:
    asked = Task("texts", TEXTS, tmp_path / "s.duckdb", **how)
    with pytest.raises(InputError, match=f"this trace cannot be made by several workers: {why}") as raised:
        many(asked)
    assert str(raised.value).endswith("; trace it with one process")
    assert list(tmp_path.iterdir()) == []


def test_what_is_wrong_with_data_is_said_with_what_is_kept(tmp_path: Path) -> None:
    rows = [json.dumps(row) for row in LABELLED]
    rows[9] = json.dumps({"text": 3})
    (tmp_path / "bad.jsonl").write_text("\n".join(rows))
    bad = Task("texts", str(tmp_path / "bad.jsonl"), tmp_path / "s.duckdb", plan={"batch_size": 2}, stream=True,
               options=Options(commit_rows=200))  # fmt: skip
    with pytest.raises(InputError, match=r"the \d sequences before it are kept: repair it and go on with --resume"):
        many(bad)
    with moescope.open(bad.store) as store:
        assert store.rows("select status from runs") == [("interrupted",)]
    (tmp_path / "bad.jsonl").write_text("\n".join(json.dumps(row) for row in LABELLED))
    many(bad, resume=True)
    with moescope.open(bad.store) as store:
        assert store.rows("select status, sequences from runs") == [("complete", 23)]


def test_more_workers_than_anybody_has_cores_for_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"4096 workers would wait for each other on \d+ cores or GPUs; ask for \d+ at most"):
        Processes(task("texts", tmp_path), 4096)


def test_workers_that_see_other_models_or_data_do_not_work_together(tmp_path: Path) -> None:
    asked = task("texts", tmp_path)
    with Here(asked) as pool:
        hello = pool.hello()
    check_same(hello, hello)
    other = {**hello.head, "routers": hello.head["routers"][:1]}
    with pytest.raises(ModelError, match="two workers disagree on the routers of what they trace"):
        check_same(hello, replace(hello, head=other))
    with pytest.raises(ModelError, match="two workers disagree on the data"):
        check_same(hello, replace(hello, batches=3))
