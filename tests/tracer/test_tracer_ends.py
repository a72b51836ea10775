"""How a trace ends: nothing run, errors, threads, tracers side by side; and hooks that look at no value."""

import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import tracing
from torch import Tensor

import moescope
from moescope.errors import InputError, ModelError
from moescope.tracer import Options, Tracer, trace

TOKENS = torch.tensor([[11, 12, 13, 14, 15], [21, 22, 23, 24, 25]])


def ask(store: Path, query: str) -> list[Any]:
    with moescope.open(store) as opened:
        return opened.rows(query)


def record(model: Any, store: Path, *calls: dict[str, Any]) -> Path:
    with Tracer(model, store), torch.no_grad():
        for call in calls:
            model(**call)
    return store


def record_and_fail(model: Any, store: Path) -> None:
    with Tracer(model, store):
        model(input_ids=TOKENS)
        raise ZeroDivisionError


def test_nothing_run_leaves_nothing(tmp_path: Path) -> None:
    model, store = tracing.tiny(), tmp_path / "run.duckdb"
    with pytest.raises(ModelError, match=r"^MixtralForCausalLM was never run inside the Tracer, so there is nothing to store"):
        record(model, store)
    assert ask(store, "from runs") == []
    with (
        pytest.raises(ModelError, match="routers fired 1 times, but never inside a forward of MixtralForCausalLM"),
        Tracer(model, store),
    ):
        model.model.layers[0].mlp(torch.zeros(1, 2, 16))
    assert [p.name for p in tmp_path.iterdir()] == ["run.duckdb"]


def test_an_error_inside_the_block_passes_on_and_what_was_run_is_kept(tmp_path: Path) -> None:
    model, store = tracing.tiny(), tmp_path / "run.duckdb"
    with pytest.raises(ZeroDivisionError):
        record_and_fail(model, store)
    assert ask(store, "select status, forwards, decisions from runs") == [("interrupted", 1, 20)]


def test_a_forward_that_fails_is_not_recorded(tmp_path: Path) -> None:
    model, store = tracing.tiny(), tmp_path / "run.duckdb"
    with Tracer(model, store), torch.no_grad():
        with pytest.raises(IndexError):
            model(input_ids=TOKENS + 1000)
        hook = model.model.layers[1].register_forward_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            model(input_ids=TOKENS)
        hook.remove()
        model(input_ids=TOKENS[:1])
    assert ask(store, "select forwards, tokens, decisions from runs") == [(1, 5, 10)]


def test_no_hooks_stay_behind(tmp_path: Path) -> None:
    model = tracing.tiny()
    record(model, tmp_path / "run.duckdb", {"input_ids": TOKENS})
    with pytest.raises(ZeroDivisionError):
        record_and_fail(model, tmp_path / "run.duckdb")
    hooks = [h for m in model.modules() for h in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())]
    assert [h for h in hooks if "moescope" in getattr(h, "__module__", "")] == []


def test_two_tracers_at_once(tmp_path: Path) -> None:
    one, two, store = tracing.tiny(), tracing.tiny(layers=3), tmp_path / "run.duckdb"
    with Tracer(one, store, name="one"), Tracer(two, store, name="two"), torch.no_grad():
        one(input_ids=TOKENS)
        two(input_ids=TOKENS[:1])
        one(input_ids=TOKENS[:1])
    assert ask(store, "select name, status, forwards, tokens, decisions from runs order by name") == [
        ("one", "complete", 2, 15, 30), ("two", "complete", 1, 5, 15),
    ]  # fmt: skip


def test_threads_of_the_callers_own(tmp_path: Path) -> None:
    """Eight threads run one model at once; every forward is whole, and says what it says alone."""
    model, store = tracing.tiny(), tmp_path / "run.duckdb"
    rows = [torch.arange(1, 4 + n)[None] for n in range(8)]
    with Tracer(model, store), torch.no_grad():
        threads = [threading.Thread(target=torch.no_grad()(lambda r=r: [model(input_ids=r) for _ in range(3)])) for r in rows]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    alone = record(model, tmp_path / "alone.duckdb", *({"input_ids": r} for r in rows))
    query = "select vocab_id, s.tokens, router, rank, expert from assignments join tokens t using (token) "
    query += "join sequences s using (sequence)"
    assert Counter(ask(store, query)) == Counter(ask(alone, query) * 3)


def test_inputs_may_be_overwritten_after_the_call(tmp_path: Path) -> None:
    model, ids = tracing.tiny(), TOKENS.clone()
    with Tracer(model, tmp_path / "run.duckdb"), torch.no_grad():
        for n in range(5):
            ids.fill_(n + 1)
            model(input_ids=ids)
        ids.zero_()
    assert ask(tmp_path / "run.duckdb", "select vocab_id, count(*) from tokens group by 1 order by 1") == [
        (n, 10) for n in range(1, 6)
    ]


def test_hooks_and_handover_never_look_at_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU each of these waits for the device; the writing thread alone may."""
    main, looked = threading.get_ident(), []
    for name in ("item", "cpu", "numpy", "tolist", "__bool__", "__int__", "__float__", "nonzero", "__index__"):
        real = getattr(Tensor, name)

        def look(self: Tensor, *args: Any, real: Any = real, name: str = name, **named: Any) -> Any:
            if threading.get_ident() == main:
                looked.append(name)
            return real(self, *args, **named)

        monkeypatch.setattr(Tensor, name, look)
    model, mask = tracing.tiny(), torch.ones_like(TOKENS)

    def looks(call: Any) -> list[str]:
        looked.clear()
        with torch.no_grad():
            call()
        return list(looked)

    calls = [lambda: model(input_ids=TOKENS, attention_mask=mask), lambda: model(input_ids=TOKENS, use_cache=True)]
    plain = [looks(call) for call in calls]
    with Tracer(model, tmp_path / "run.duckdb", options=Options(logits=True)):
        traced = [looks(call) for call in calls]
    assert traced == plain


def test_example_texts_need_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="comes without a tokenizer"):
        trace(tracing.tiny(), ["some text"], tmp_path / "run.duckdb")
    with pytest.raises(InputError, match="inputs are neither a path"):
        trace(tracing.tiny(), [], tmp_path / "run.duckdb")
    assert list(tmp_path.iterdir()) == []
