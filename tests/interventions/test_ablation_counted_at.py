"""A loss is counted to the token that is predicted or to the one that is read: effects against a second computation."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from planted import WORDS, planted

import moescope
from moescope.inputs import Dataset, Example
from moescope.interventions import Zero, ablate, intervene
from moescope.models.loading import Loaded

LENGTHS = (3, 9, 24, 6, 17, 2)


def texts() -> Dataset:
    """Documents of domain a of different lengths, so that batches are padded; labels of kind `half` by document."""
    rng = np.random.default_rng(0)
    rows = [4 + (np.arange(n) + rng.integers(WORDS)) % WORDS for n in LENGTHS]
    return Dataset("planted", "0" * 64, "text", [
        Example("planted", i, f"a{i}", input_ids=ids, labels={"half": "long" if len(ids) > 8 else "short"})
        for i, ids in enumerate(rows)
    ])  # fmt: skip


def losses(model: Any, data: Dataset) -> list[np.ndarray]:
    """Negative log-likelihood of every token but the first, text by text, without padding."""
    found = []
    for example in data.examples:
        ids = torch.tensor(example.input_ids)[None]
        with torch.no_grad():
            log_p = torch.log_softmax(model(input_ids=ids).logits[0, :-1].double(), -1)
        found.append(-log_p.gather(-1, ids[0, 1:, None])[:, 0].numpy())
    return found


def span(position: int) -> str:
    power = int(np.log2(position + 1))
    return "0" if not power else f"{2**power - 1}-{2 ** (power + 1) - 2}"


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Loaded, Path, list[np.ndarray], list[np.ndarray]]:
    path, loaded = tmp_path_factory.mktemp("at") / "a.duckdb", Loaded("planted", planted())
    moescope.trace(loaded, texts(), path, batch_size=4)
    before = losses(loaded.model, texts())
    with intervene(loaded.model, Zero(layers=0, experts=[0])):
        after = losses(loaded.model, texts())
    return loaded, path, before, after


@pytest.mark.parametrize(("at", "shift"), [("target", 1), ("input", 0)])
def test_effects_by_position(stored: Any, at: str, shift: int) -> None:
    loaded, path, before, after = stored
    rows = ablate(loaded, path, {(None, 0): [0]}, mode="zero", by=["position", "half"], at=at)
    own = rows[(rows["control"] == "none")].set_index(["group_kind", "group"])
    expected: dict[tuple[str, str], list[tuple[float, float, int]]] = defaultdict(list)
    for document, (was, now) in enumerate(zip(before, after)):
        for place, (one, two) in enumerate(zip(was, now)):
            for key in (
                ("all", "all"),
                ("position", span(place + shift)),
                ("half", "long" if LENGTHS[document] > 8 else "short"),
            ):
                expected[key].append((one, two - one, document))
    assert set(own.index) == set(expected)
    assert set(own["counted_at"]) == {at}
    for key, parts in expected.items():
        row, (nll, delta, documents) = own.loc[key], zip(*parts)
        assert (row["n"], row["units"]) == (len(parts), len(set(documents))), key
        assert row["baseline_nll"] == pytest.approx(np.mean(nll), abs=1e-5), key
        assert row["delta_nll"] == pytest.approx(np.mean(delta), abs=1e-5), key
    assert ("position", "0") in own.index or at == "target"
    assert own.loc[("all", "all"), "delta_nll"] > 0.5
