"""A training run is judged by its end: against the load that was planted, step by step."""

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
import synthetic_training
from pages import part, rows, same, view

STEPS, EXPERTS, LAYERS = 20, synthetic_training.EXPERTS, synthetic_training.LAYERS
LAST = slice(STEPS - 2, STEPS)  # a tenth of them


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, np.ndarray]]:
    folder = tmp_path_factory.mktemp("training")
    more: dict[str, dict[str, Any]] = {"collapsed": {}, "even": {"collapses": False}, "measured": {"measured_only": True}}
    return {
        name: (folder / f"{name}.duckdb", synthetic_training.trained(folder / f"{name}.duckdb", STEPS, **options))
        for name, options in more.items()
    }


def entropy(load: np.ndarray) -> float:
    share = load[load > 0] / load.sum()
    return float(-(share * np.log(share)).sum() / np.log(EXPERTS))


@pytest.mark.parametrize("name", ["collapsed", "even", "measured"])
def test_health_at_the_end(name: str, made: dict[str, tuple[Path, np.ndarray]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Dead: no token in any of the last steps; where decisions were not kept, the least that were dead in one of them."""
    path, loads = made[name]
    monkeypatch.setenv("MOESCOPE_STORE", str(path))
    ended = part("queries.training_end")
    assert ended.last(0) == (STEPS - 1, STEPS)
    found = ended.routers(0)
    expected = []
    for layer in range(LAYERS):
        end = loads[LAST, layer]
        dead = (end.sum(0) == 0).sum() if name != "measured" else min((step == 0).sum() for step in end)
        even = entropy(end.sum(0)) if name != "measured" else np.mean([entropy(step) for step in end])
        expected.append((layer, EXPERTS, float(dead), even, bool(even < 0.5 or dead >= EXPERTS / 2)))
    same(rows(found, "router", "experts", "dead", "even", "collapsed"), expected)
    with duckdb.connect(str(path), read_only=True) as con:  # the store asked the same, in other words
        con.execute("set search_path = 'main'")
        says = con.execute("select min(value) from measures where name = 'dead' and subset = ?", [f"step {STEPS}"]).fetchone()
    assert (says[0] >= 3) is (name != "even")  # type: ignore[index]


@pytest.mark.parametrize("name", ["collapsed", "even"])
def test_a_run_that_collapsed_has_a_red_card(
    name: str, made: dict[str, tuple[Path, np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, loads = made[name]
    monkeypatch.setenv("MOESCOPE_STORE", str(path))
    runs, end = view("runs"), loads[LAST].sum(0)
    cards = {label: (value, note, tone) for label, value, note, tone in runs.health(part("parts.pickers").runs()[0])}
    dead, never, at = (end == 0).sum(), (loads.sum(0) == 0).sum(), f"in steps {STEPS - 1}–{STEPS}"
    lost = sum(entropy(layer) < 0.5 or (layer == 0).sum() >= EXPERTS / 2 for layer in end)
    ran = f"{never} expert{'' if never == 1 else 's'} never ran at all"
    assert cards["Dead at the end"] == (f"{dead} of {EXPERTS * LAYERS}", f"{at}; {ran}", "bad" if dead else "good")
    assert cards["Routing at the end"][0::2] == (("collapsed", "bad") if lost else ("holds", "good"))
    assert cards["Load evenness at the end"][0] == part("wording").share(np.mean([entropy(layer) for layer in end]))
    assert bool(lost) is (name == "collapsed")
    assert "Dead experts" not in cards
    value, words, frame, _, _ = runs.glanced(0)
    assert (value, words) == ("share", "Load of every expert, at the end of training")
    same(rows(frame, "router", "expert", "assignments"), [(r, e, end[r, e]) for r in range(LAYERS) for e in range(EXPERTS)])


def test_load_by_step(made: dict[str, tuple[Path, np.ndarray]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every expert of every step that is drawn, 0 where it did not run; the last step is always among them."""
    path, loads = made["collapsed"]
    monkeypatch.setenv("MOESCOPE_STORE", str(path))
    ended = part("queries.training_end")
    for most in (200, 7, 1):
        some = ended.kept(ended.steps(0), most)
        assert (some[-1], len(some) <= most) == (STEPS, True)
        frame = ended.by_step(1, some, EXPERTS)[0]
        expected = [
            (s, e, loads[s - 1, 1, e], loads[s - 1, 1, e] / loads[s - 1, 1].sum()) for s in some for e in range(EXPERTS)
        ]
        same(rows(frame, "step", "expert", "assignments", "share"), expected)
    assert ended.kept([], 5) == []


def test_curves_are_smoothed_over_recorded_steps(
    made: dict[str, tuple[Path, np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, loads = made["collapsed"]
    monkeypatch.setenv("MOESCOPE_STORE", str(path))
    training = part("parts.load.training")
    frame = part("queries.store_access").frame(training.HEALTH, 0, "train")
    dead = training.smoothed(frame, ["dead"], "layer", 5)
    for layer in range(LAYERS):
        own = (loads[:, layer] == 0).sum(1)
        expected = [own[max(0, n - 4) : n + 1].mean() for n in range(STEPS)]
        found = dead[dead["layer"] == f"decoder {layer}"].sort_values("step")["dead"]
        assert found.tolist() == pytest.approx(expected)
    assert training.smoothed(frame, ["dead"], "layer", 1) is frame


def test_axes_of_curves_start_at_0(made: dict[str, tuple[Path, np.ndarray]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOESCOPE_STORE", str(made["collapsed"][0]))
    training, drawn = part("parts.load.training"), {}
    monkeypatch.setattr(training.charts, "lines", lambda *_, **look: drawn.update({look["title"]: look["zero"]}))
    monkeypatch.setattr(training.figures, "figure", lambda *_, **__: None)
    training.show({"run": 0})
    assert {"Loss", "Dead experts, of a step", "Load entropy, of its maximum"} <= drawn.keys()
    assert set(drawn.values()) == {True}
