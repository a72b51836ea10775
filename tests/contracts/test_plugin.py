"""The example of docs/plugin.md, as it stands there, through a made-up entry point: found, proved, traced, edited."""

import re
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from handwritten import ByHand, Layer, Model

import moescope
from moescope import discover
from moescope.contracts import find
from moescope.proof import edited, prove

PAGE = Path(__file__).parents[2] / "docs" / "plugin.md"
IDS = {"input_ids": torch.arange(10).view(2, 5)}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    """The page's contract as a module of another package that offers it."""
    code = next(
        block for block in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL) if "contract =" in block
    )
    module = types.ModuleType("my_package.contract")
    exec(code, module.__dict__)
    point = types.SimpleNamespace(name="by_hand", load=lambda: module)
    monkeypatch.setattr(discover, "entry_points", lambda group: [point] if group == "moescope.contracts" else [])
    discover.modules.cache_clear()
    yield module
    discover.modules.cache_clear()


def test_the_example_is_about_twenty_lines() -> None:
    """As it says."""
    code = next(b for b in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL) if "contract =" in b)
    assert len([line for line in code.splitlines() if line.strip() and not line.startswith("#")]) <= 20


def test_a_contract_of_another_package_is_proved_and_traced(installed: types.ModuleType, tmp_path: Path) -> None:
    """Decisions in the store equal those made by hand."""
    model = Model(ByHand).eval()
    with moescope.Tracer(model, tmp_path / "run.duckdb", inputs=IDS) as tracer, torch.no_grad():
        model(**IDS)
    assert [(p.router, p.contract, p.rows, p.identical) for p in tracer.proof] == [
        ("layers.0.gate", "by_hand", 10, True),
        ("layers.1.gate", "by_hand", 10, True),
    ]
    with torch.no_grad():
        weights, experts = model.layers[0].route(model.layers[0].gate(model.embed(IDS["input_ids"]).flatten(0, 1)))  # type: ignore[union-attr,operator]
    with moescope.open(tmp_path / "run.duckdb") as store:
        rows = store.rows(
            "select token, rank, expert, weight, entropy is not null from routing join decisions using (router, token) "
            "where layer = 0 order by token, rank"
        )
    first = min(row[0] for row in rows)
    assert [(t - first, r, e) for t, r, e, _, _ in rows] == [(t, r, int(experts[t, r])) for t in range(10) for r in range(2)]
    assert [row[3] for row in rows] == pytest.approx(weights.flatten().tolist())
    assert all(row[4] for row in rows)
    assert "route" not in vars(model.layers[0])


def test_edits_come_before_listeners_and_go(installed: types.ModuleType) -> None:
    """Whoever listens sees what is executed, whichever was attached first."""
    model = Model(ByHand).eval()
    sites = find(model)
    heard = []
    handles = sites[0].contract.listen(sites[0], heard.append)
    with torch.no_grad(), edited(sites[:1], lambda site, call: lambda e, w: (torch.zeros_like(e), w)):
        model(**IDS)
    with torch.no_grad():
        model(**IDS)
    for handle in handles:
        handle.remove()
    assert heard[0].experts.unique().tolist() == [0]
    assert len(heard[1].experts.unique()) > 1
    assert "route" not in vars(model.layers[0])


def test_a_layer_that_calls_experts_as_others_do_needs_no_contract() -> None:
    """Router beside experts(hidden, indices, weights): nothing to write."""
    model = Model(Layer).eval()
    proved = prove(model, find(model), IDS)
    assert [(p.router, p.rows, p.identical) for p in proved] == [("layers.0.router", 10, True), ("layers.1.router", 10, True)]
