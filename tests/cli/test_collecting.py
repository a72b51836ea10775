"""Python looks for garbage as usual while a model runs, and after a command, whatever became of it."""

import gc
from types import SimpleNamespace
from typing import Any

import pytest

from moescope.cli._support import collecting, workers


def test_rarely_while_a_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    usual, seen = gc.get_threshold(), []
    none = dict.fromkeys(("inputs", "store", "options", "reading", "command", "overrides", "seed", "stream", "name"))
    task: Any = SimpleNamespace(loaded=lambda: seen.append(gc.get_threshold()), plan={}, **none)
    monkeypatch.setattr("moescope.tracer.trace", lambda *_, **__: seen.append(gc.get_threshold()) or 7)
    with collecting.rarely():
        assert workers.traced(task, workers.Engine(None, False), False, False, print) == 7
    assert seen[0][0] > usual[0]
    assert seen[1] == gc.get_threshold() == usual


def test_as_usual_after_an_error() -> None:
    usual = gc.get_threshold()
    with pytest.raises(ValueError), collecting.rarely():
        raise ValueError
    assert gc.get_threshold() == usual
