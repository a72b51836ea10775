"""Forwards that end by an exception of any kind, anywhere, in any thread: left out by number, and all others recorded."""

import json
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import small
import torch

import moescope


def _run(model: Any, ids: torch.Tensor) -> None:
    with torch.no_grad():
        model(ids)


def _failing(model: Any, ids: torch.Tensor, where: str, error: type[BaseException]) -> None:
    """One forward that ends in `where` by `error`, which the user catches."""
    module = {
        "root": model.lm_head,
        "tower": model.model,
        "layer": model.model.layers[1],
        "experts": model.model.layers[0].mlp.experts,
    }

    def fail(*_: Any) -> None:
        raise error

    handle = module[where].register_forward_hook(fail)
    try:
        with pytest.raises(error):
            _run(model, ids)
    finally:
        handle.remove()


def _told(path: Path) -> tuple[list[Any], list[Any], str, list[str]]:
    with moescope.open(path) as store:
        forwards = store.rows("select tokens from forwards order by forward")
        texts = store.rows("select list(vocab_id order by position) from tokens group by sequence order by sequence")
        ((status, warnings),) = store.rows("select status, warnings from runs")
    return [n for (n,) in forwards], [t for (t,) in texts], status, json.loads(warnings or "[]")


@pytest.mark.sampled(6)
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("where", ["root", "tower", "layer", "experts"])
def test_what_follows_a_caught_exception_is_recorded(where: str, error: type[BaseException], tmp_path: Path) -> None:
    model, ids = small.mixtral(), small.ids(2, 5)
    with moescope.Tracer(model, tmp_path / "run.duckdb"):
        _run(model, ids)
        _failing(model, ids + 1, where, error)
        _run(model, ids + 2)
        _failing(model, ids + 1, where, error)
        _failing(model, ids + 1, where, error)
        _run(model, ids + 3)
    forwards, texts, status, warnings = _told(tmp_path / "run.duckdb")
    assert forwards == [10, 10, 10]
    assert texts == [row for n in (0, 2, 3) for row in (ids + n).tolist()]
    assert status == "complete"
    assert [w for w in warnings if w == "3 forwards ended by an exception and were left out"]


def test_the_last_forward_may_be_the_cut_one(tmp_path: Path) -> None:
    model, ids = small.mixtral(), small.ids(2, 5)
    with moescope.Tracer(model, tmp_path / "run.duckdb"):
        _run(model, ids)
        _failing(model, ids, "layer", KeyboardInterrupt)
    forwards, _, status, warnings = _told(tmp_path / "run.duckdb")
    assert (forwards, status) == ([10], "complete")
    assert "1 forwards ended by an exception and were left out" in warnings
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_model_that_catches_what_its_tower_raises(error: type[BaseException], tmp_path: Path) -> None:
    """The outer call goes on: the second call of the tower belongs to the same forward, and its rows are the record."""
    model, ids = small.mixtral(), small.ids(2, 5)
    own, fails = model.model.forward, [True]

    def twice(*args: Any, **kwargs: Any) -> Any:
        return own(*args, **kwargs)

    def outer(input_ids: torch.Tensor, **kwargs: Any) -> Any:
        try:
            model.model(input_ids=input_ids + 1, **kwargs)
        except error:
            fails[0] = False
        return model.model(input_ids=input_ids, **kwargs)

    def fail(*_: Any) -> None:
        if fails[0]:
            raise error

    model.model.layers[1].register_forward_hook(fail)
    fails[0] = False
    with moescope.Tracer(model, tmp_path / "run.duckdb"):
        fails[0] = True
        model.forward = outer
        _run(model, ids)
        del model.forward
        _run(model, ids + 2)
    with moescope.open(tmp_path / "run.duckdb") as store:
        texts = [t for (t,) in store.rows("select list(vocab_id order by position) from tokens group by sequence order by 1")]
    assert all(row in texts for row in (ids + 2).tolist() + ids.tolist())


@pytest.mark.parametrize("how", ["dies", "catches"])
def test_a_thread_that_leaves_a_forward_open(how: str, tmp_path: Path) -> None:
    """Its turn passes on, at once for itself and soon for others."""
    model, ids = small.mixtral(), small.ids(2, 5)
    caught: list[BaseException] = []

    def work() -> None:
        try:
            _failing(model, ids + 1, "layer", SystemExit)
        except BaseException as error:
            caught.append(error)
            if how == "dies":
                raise SystemExit from None
        else:
            _run(model, ids + 3)

    with moescope.Tracer(model, tmp_path / "run.duckdb"):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        _run(model, ids + 2)
    forwards, texts, status, _ = _told(tmp_path / "run.duckdb")
    assert not caught
    assert (forwards, status) == ([10, 10], "complete")
    assert texts == [row for n in (3, 2) for row in (ids + n).tolist()]


def test_threads_that_interrupt_each_other(tmp_path: Path) -> None:
    """Four threads, each third forward cut short: every whole forward is there once, every cut one not."""
    model, rows = small.mixtral(), [small.ids(1, 6, seed=n) for n in range(24)]
    local = threading.local()

    def fail(*_: Any) -> None:
        if getattr(local, "fails", False):
            raise KeyboardInterrupt

    model.model.layers[1].register_forward_hook(fail)

    def work(mine: list[int]) -> None:
        for n in mine:
            local.fails = n % 3 == 0
            with suppress(KeyboardInterrupt):
                _run(model, rows[n])

    with moescope.Tracer(model, tmp_path / "run.duckdb"):
        threads = [threading.Thread(target=work, args=(list(range(n, 24, 4)),)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    _, texts, status, warnings = _told(tmp_path / "run.duckdb")
    assert sorted(texts) == sorted(rows[n][0].tolist() for n in range(24) if n % 3)
    assert status == "complete"
    assert "8 forwards ended by an exception and were left out" in warnings


@pytest.mark.parametrize("place", ["tokens", "batch"])
def test_a_batch_that_fails_names_nothing_after_it(place: str, tmp_path: Path) -> None:
    from moescope.tracer import SequenceInfo

    model, ids = small.mixtral(), small.ids(2, 5)
    with moescope.Tracer(model, tmp_path / "run.duckdb") as tracer:
        with suppress(ValueError), tracer.batch([SequenceInfo("book", 1), SequenceInfo("book", 2)]):
            if place == "tokens":
                _run(model, ids)
            raise ValueError
        _run(model, ids + 1)
    with moescope.open(tmp_path / "run.duckdb") as store:
        sources = store.rows("select source from sequences where tokens > 0 order by sequence")
    assert sources[-2:] == [(None,), (None,)]
