"""Counterfactual sets for one token; importance against effect; pruning."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from planted import mixtral, planted, texts

import moescope
from moescope.contracts import find
from moescope.errors import InputError
from moescope.interventions import ablate, norms
from moescope.interventions.ablation.worth import agreement, predicted, pruning, with_effects
from moescope.interventions.counterfactual import fragility, regrets
from moescope.interventions.data import Batches
from moescope.models.loading import Loaded


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Loaded, Path]:
    store = tmp_path_factory.mktemp("worth") / "p.duckdb"
    loaded = Loaded("planted", planted())
    moescope.trace(loaded, texts(6), store, batch_size=8)
    return loaded, store


def test_regret_is_against_every_other_set(traced: Any, tmp_path: Path) -> None:
    loaded = Loaded("two", mixtral(5, k=2, layers=2))
    moescope.trace(loaded, texts(1, 12), tmp_path / "t.duckdb")
    with moescope.open(tmp_path / "t.duckdb") as opened:
        (batch,) = Batches(opened, 0, loaded)
    frame = regrets(loaded, batch, 1, [(0, 3), (2, 7), (3, 10)], alternatives=None)
    with torch.no_grad():
        for row, (sequence, place) in zip(frame.itertuples(), [(0, 3), (2, 7), (3, 10)]):
            ids = batch.inputs["input_ids"][sequence : sequence + 1, : place + 1]
            plain = torch.log_softmax(loaded.model(input_ids=ids).logits[0, -1].float(), -1)
            assert row.log_p == pytest.approx(float(plain[batch.targets[sequence, place]]), abs=1e-5)
            assert (row.alternatives, row.regret >= 0, len(set(row.executed))) == (5, True, 2)
    with pytest.raises(InputError, match="has no next token"):
        regrets(loaded, _cut(batch), 1, [(0, 3)])


def _cut(batch: Any) -> Any:
    batch.targets = torch.full_like(batch.targets, -1)
    return batch


def test_the_planted_expert_cannot_be_replaced(traced: Any) -> None:
    loaded, store = traced
    with moescope.open(store) as opened:
        batch = next(iter(Batches(opened, 0, loaded)))
    places = [(row, place) for row in range(8) for place in (2, 9, 15)]
    frame = regrets(loaded, batch, 0, places, alternatives=None)
    in_a = np.array([row % 4 == 0 for row, _ in places])
    assert float(frame["regret"][in_a].max()) == 0
    assert float(frame["gain_mean"][in_a].max()) < -0.5
    table = fragility(frame, bins=2)
    assert int(table["n"].sum()) == len(places)


def test_what_a_trace_predicts_beside_what_ablation_shows(traced: Any) -> None:
    loaded, store = traced
    ablate(loaded, store, mode="zero", sweep=True)
    sites = find(loaded.model)
    with moescope.open(store) as opened:
        sums = norms(loaded.model, sites, ({**b.inputs, "use_cache": False} for b in Batches(opened, 0, loaded)))
        reap = {path: n.reap.numpy() for path, n in sums.items()}
        frame = with_effects(opened, predicted(opened, 0, {"reap": reap}), "zero")
        with pytest.raises(InputError, match="has no sweep of mode 'mean'"):
            with_effects(opened, frame, "mean")
    assert frame["expert"].tolist() == [0, 1, 2, 3]
    assert frame["frequency"].tolist() == [0.25] * 4
    assert (frame["reap"] > 0).tolist() == [True, False, False, False]
    assert int(frame["effect"].idxmax()) == 0
    found = agreement(frame, ["reap"]).iloc[0]
    assert found["correlation"] == pytest.approx(1.0)
    curve = pruning(loaded, store, {"reap": reap, "worst": {p: -v for p, v in reap.items()}}, keep=[1, 3, 4])
    assert curve["keep"].tolist() == [1, 3, 1, 3]
    assert (
        curve[curve["score"] == "reap"]["delta_nll"].abs().max() < 1e-6
        or curve["delta_nll"].iloc[0] < curve["delta_nll"].iloc[2]
    )
